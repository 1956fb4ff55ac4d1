"""Batch norms: frozen ones, and ones that train, on each worker by itself or over all workers together."""

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm


class FrozenBatchNorm2d(nn.Module):
    """Batch norm whose statistics, scale and shift are constants: buffers with batch norm's names.

    torchvision's module of this name is not used: it turns bfloat16 activations into float32, and importing torchvision
    would take every inference actor as long as importing torch.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((channels,), value))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm by the statistics of all workers' batches; float N×C×h×w → the same shape.

    PyTorch's own SyncBatchNorm runs only on GPUs. Without `torch.distributed`, or with one worker, this is a plain
    batch norm. All workers must have batches of equal size, as they do in training.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(x)
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        axes = (0, 2, 3)
        mean = _mean_over_workers(values.mean(axes))
        variance = _mean_over_workers((values - mean[:, None, None]).square().mean(axes))
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        with torch.no_grad():
            count = x.numel() // x.shape[1] * dist.get_world_size()
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
            unbiased = variance * (count / max(1, count - 1))
            self.running_var.lerp_(unbiased.to(self.running_var), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        return (values * scale[:, None, None] + shift[:, None, None]).to(x.dtype)


class _MeanOverWorkers(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return _all_mean(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _all_mean(gradient)


def _all_mean(value: Tensor) -> Tensor:
    total = value.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def _mean_over_workers(value: Tensor) -> Tensor:
    mean: Tensor = _MeanOverWorkers.apply(value)
    return mean


def norms_that_train(network: nn.Module) -> list[nn.Module]:
    """Return the network's batch norms whose statistics change in training."""
    return [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]


def batch_norm(kind: str, channels: int) -> nn.Module:
    """Make a batch norm over N×channels×h×w; kind: "frozen", "trained" or "synchronised"."""
    kinds = {"frozen": FrozenBatchNorm2d, "trained": nn.BatchNorm2d, "synchronised": SynchronisedBatchNorm2d}
    return kinds[kind](channels)


@torch.no_grad()
def calibrate_frozen_norms(trunk: nn.Module, images: Tensor) -> None:
    """Set the mean and variance of every frozen batch norm to those of its input for `images` (N×channels×H×W).

    A network with random weights has no statistics to freeze; with those of one batch of training images its
    activations start at unit scale (data-dependent initialisation, Krähenbühl et al., ICLR 2016).
    """

    def measure(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, FrozenBatchNorm2d)
        values = inputs[0].float()
        module.running_mean.copy_(values.mean(dim=(0, 2, 3)))
        module.running_var.copy_(values.var(dim=(0, 2, 3)).clamp_min(1e-3))

    handles = [m.register_forward_pre_hook(measure) for m in trunk.modules() if isinstance(m, FrozenBatchNorm2d)]
    training = trunk.training
    try:
        # Norms that train shall not see these images, nor ask other workers for theirs.
        trunk.eval()(images)
    finally:
        trunk.train(training)
        for handle in handles:
            handle.remove()
