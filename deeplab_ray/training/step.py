"""One weight update, on one process or as one of several DDP workers."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn, optim
from torch import distributed as dist
from torch.nn import functional as F

from deeplab_ray.config.recipe import RuntimeConfig
from deeplab_ray.labels import IGNORE
from deeplab_ray.models.grid import labels_at_stride

# Where scores may lie: FCN's at every pixel, DeepLab's at every 8th, MSC's smallest at every 16th.
_STRIDES = (8, 16, 1)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """bfloat16 autocast on the device, or nothing for float32."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def train_step(
    model: nn.Module,
    optimizer: optim.Optimizer,
    micro_batches: Sequence[tuple[Tensor, Tensor]],
    runtime: RuntimeConfig,
    normalise: bool = True,
    weights: Tensor | None = None,
) -> Tensor:
    """Forward and backward over the micro-batches, then one update.

    micro_batches: (images uint8 N×H×W×3, labels uint8 N×H×W) on the model's device, H, W ≡ 1 (mod 8).
    The loss is the softmax cross-entropy at output stride against `label[::8, ::8]`, summed and divided by
    the number of valid (not ignored) label pixels of the *global* batch: over all micro-batches of all workers.
    MSC has four such losses, which are added: of the fused, the ×1 and the ×0.75 scores, and of the ×0.5 ones
    against `label[::16, ::16]`. FCN's is at full size. Without `normalise` the sum is not divided.
    weights: float32 C, what a pixel of each class counts in the sum (see `class_weights`); None: 1.
    Returns that loss over the global batch, a float32 scalar, the same on every worker.
    """
    targets = [{k: labels_at_stride(labels, k).long() for k in _STRIDES} for _, labels in micro_batches]
    workers = dist.get_world_size() if dist.is_initialized() else 1
    counts = torch.stack([sum((target[k] != IGNORE).sum() for target in targets) for k in _STRIDES])  # type: ignore[misc]
    valid = dict(zip(_STRIDES, sum_over_workers(counts).clamp_min(1), strict=True))
    total = torch.zeros((), device=counts.device)
    optimizer.zero_grad(set_to_none=True)
    last = len(micro_batches) - 1
    for index, ((images, _), target) in enumerate(zip(micro_batches, targets, strict=True)):
        waits = index < last and hasattr(model, "no_sync")
        with model.no_sync() if waits else nullcontext():  # type: ignore[operator]
            with autocast(images.device, runtime.precision):
                output = model(images)
            loss = torch.zeros((), device=counts.device)
            for scores in output if isinstance(output, tuple) else (output,):
                stride = next(k for k in _STRIDES if target[k].shape[1:] == scores.shape[2:])
                part = F.cross_entropy(scores.float(), target[stride], weights, ignore_index=IGNORE, reduction="sum")
                loss = loss + (part / valid[stride] if normalise else part)
            # DDP averages gradients over workers; the loss is already divided by the global count.
            (loss * workers).backward()
        total += loss.detach()
    optimizer.step()
    return sum_over_workers(total)


def class_weights(pixels: Sequence[int], balance: float) -> Tensor:
    """What a pixel of each class counts in the loss: in proportion to frequency^−balance, and 1 in the mean over the
    labelled pixels. A balance of 1 is that of Eigen and Fergus (ICCV 2015), up to this constant.

    pixels: those of each class in the training split. Returns float32 C; 1 for a class that has none.
    """
    counts = torch.tensor(pixels, dtype=torch.float64)
    present = counts > 0
    weights = torch.ones_like(counts)
    weights[present] = counts[present] ** -balance
    weights[present] *= counts.sum() / (weights * counts).sum()
    return weights.float()


def sum_over_workers(value: Tensor) -> Tensor:
    """The tensor summed over all workers (itself where there is one), in place."""
    if dist.is_initialized():
        dist.all_reduce(value)
    return value
