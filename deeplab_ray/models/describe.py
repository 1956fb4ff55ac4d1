"""What a network is made of: field of view, parameters, multiply-adds, output size, activation memory.

All of it is read off the network itself, on tensors without memory, so that it takes seconds for any of them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deeplab_ray.config.recipe import FCN_HEADS, ModelConfig
from deeplab_ray.models.grid import STRIDE
from deeplab_ray.models.networks.deeplab_v2 import DeepLab
from deeplab_ray.models.trunks.resnet import FrozenBatchNorm2d


@dataclass(frozen=True)
class Description:
    """Figures of one network at one size of image."""

    field_of_view: int
    """Side in pixels of what the (largest) kernel of the head spans on the image; see `field_of_view`."""
    parameters: int
    """With the scales and shifts of frozen batch norms."""
    trainable_parameters: int
    multiply_adds: int
    """Of all convolutions for one image, forward."""
    output_size: tuple[int, int]
    """Height and width of what the loss is computed on."""
    activation_bytes: int
    """What one image's forward pass in float32 keeps for the backward pass, parameters left out: the peak of
    training's activation memory."""


def describe(config: ModelConfig, classes: int, height: int, width: int) -> Description:
    """The figures of the network for one image of height × width pixels."""
    with torch.device("meta"):
        model = DeepLab(config, classes).train()
        image = torch.empty((1, height, width, 3), dtype=torch.uint8)
    multiply_adds = 0

    def count(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal multiply_adds
        assert isinstance(module, nn.Conv2d)
        multiply_adds += output.numel() * module.weight[0].numel()

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    constants = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    # Kept alive, because an identity is that of another storage once the first is gone.
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in constants:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(image)
    scores = output[0] if isinstance(output, tuple) else output
    trainable = sum(parameter.numel() for parameter in model.parameters())
    norms = [module for module in model.modules() if isinstance(module, FrozenBatchNorm2d)]
    return Description(
        field_of_view=field_of_view(model),
        parameters=trainable + sum(norm.weight.numel() + norm.bias.numel() for norm in norms),
        trainable_parameters=trainable,
        multiply_adds=multiply_adds,
        output_size=(int(scores.shape[-2]), int(scores.shape[-1])),
        activation_bytes=sum(storage.nbytes() for storage in kept.values()),
    )


def field_of_view(model: DeepLab) -> int:
    """Pixels that the head's (largest) kernel spans, as the paper counts: distance of its outer taps + one cell.

    The taps of a k×k kernel at rate r on cells s pixels apart span r (k − 1) s pixels; each stands on a cell of the
    image classifier that the trunk was made from, whose halvings are 32 pixels together. 7×7 at rate 4: 4·6·8 + 32.
    """
    cell = _halvings(model)
    # How far apart the trunk's last cells are; FCN's trunk halves as often as the classifier's.
    stride = cell if model.config.head in FCN_HEADS else STRIDE
    return max(layer.dilation[0] * (layer.kernel_size[0] - 1) * stride + cell for layer in _looking(model.head))


def _looking(head: nn.Module) -> list[nn.Conv2d]:
    """The layers of a head that see more than one cell: fc6 of each branch, or ResNet's classifiers."""
    fc6 = [module for name, module in head.named_modules() if name.endswith("fc6")]
    layers = fc6 or list(head.modules())
    return [layer for layer in layers if isinstance(layer, nn.Conv2d)]


def _halvings(model: DeepLab) -> int:
    """Pixels of a cell of the image classifier: its pools (VGG-16), or its first layer, pool and stages (ResNet)."""
    pools = sum(isinstance(module, nn.MaxPool2d) for module in model.trunk.modules())
    if hasattr(model.trunk, "features"):
        return int(2**pools)
    stages = sum(name.startswith("layer") for name, _ in model.trunk.named_children())
    return int(2 ** (1 + pools + stages - 1))
