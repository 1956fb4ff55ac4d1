"""What a network is made of: field of view, parameters, multiply-adds, output size, activation memory.

All of it is read off the network itself, on tensors without memory, so that it takes seconds for any of them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deeplab_ray.config.network import NetworkConfig
from deeplab_ray.models.networks import create
from deeplab_ray.models.norm import FrozenBatchNorm2d


@dataclass(frozen=True)
class NetworkSize:
    """Figures of one network at one size of image."""

    field_of_view: int
    """Side in pixels of what the (largest) kernel of the head spans on the image; 0 if the network does not say."""
    parameters: int
    """With the scales and shifts of frozen batch norms."""
    trainable_parameters: int
    multiply_adds: int
    """Of all convolutions for one image, forward."""
    output_size: tuple[int, int]
    """Height and width of what the (first) loss is computed on."""
    activation_bytes: int
    """What one image's forward pass in float32 keeps for the backward pass, parameters left out: the peak of
    training's activation memory."""


def measure_network(config: NetworkConfig, classes: int, height: int, width: int) -> NetworkSize:
    """The figures of the network for one image of height × width pixels."""
    with torch.device("meta"):
        model = create(config, classes).train()
        image = torch.empty((1, height, width, config.channels), dtype=torch.uint8)
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
        scores = model(image)[0]
    trainable = sum(parameter.numel() for parameter in model.parameters())
    norms = [module for module in model.modules() if isinstance(module, FrozenBatchNorm2d)]
    return NetworkSize(
        field_of_view=model.field_of_view(),
        parameters=trainable + sum(norm.weight.numel() + norm.bias.numel() for norm in norms),
        trainable_parameters=trainable,
        multiply_adds=multiply_adds,
        output_size=(int(scores.shape[-2]), int(scores.shape[-1])),
        activation_bytes=sum(storage.nbytes() for storage in kept.values()),
    )
