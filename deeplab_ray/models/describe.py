"""What a network is made of: field of view, parameters, multiply-adds, output size, activation memory.

All figures are measured on the network itself, with tensors that take no memory, so this takes seconds for any network.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deeplab_ray.config.network import NetworkConfig
from deeplab_ray.models.networks import create
from deeplab_ray.models.norm import FrozenBatchNorm2d


@dataclass(frozen=True)
class NetworkSize:
    """Figures of one network for one image size."""

    field_of_view: int
    """Side in pixels of the image area that the head's (largest) kernel spans; 0 if the network does not say."""
    parameters: int
    """Number of parameters, with the scales and shifts of frozen batch norms."""
    trainable_parameters: int
    multiply_adds: int
    """Multiply-adds of all convolutions in the forward pass of one image."""
    output_size: tuple[int, int]
    """Height and width of the scores that the (first) loss is computed on."""
    activation_bytes: int
    """Bytes that the forward pass of one image in float32 keeps for the backward pass, without parameters: the peak of
    the activation memory in training."""


def measure_network(config: NetworkConfig, classes: int, height: int, width: int) -> NetworkSize:
    """Measure the network for one image of height × width pixels."""
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
    # The storages are kept alive, because an id may be reused once its storage is gone.
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
