"""One weight update, in a single process or as one of several DDP workers."""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn, optim
from torch import distributed as dist
from torch.nn import functional as F

from deeplab_ray.config.recipe import Precision
from deeplab_ray.labels import IGNORE
from deeplab_ray.models.network import Network
from deeplab_ray.models.scoring import autocast


def train_step(
    network: Network,
    optimizer: optim.Optimizer,
    micro_batches: Sequence[tuple[Tensor, Tensor]],
    precision: Precision = "float32",
    normalise: bool = True,
    weights: Tensor | None = None,
    forward: nn.Module | None = None,
) -> Tensor:
    """Run forward and backward passes over the micro-batches, then update the weights once.

    micro_batches: (images uint8 N×H×W×3, labels uint8 N×H×W) on the network's device, of sizes that fit its grid.
    Each output of the network adds its softmax cross-entropy against its target, summed over pixels and divided by the
    number of valid (not ignored) labels in the *global* batch: in all micro-batches of all workers. Without `normalise`
    it is not divided.
    weights: float32 C, the weight of a pixel of each class (see `class_weights`); None: 1.
    forward: the network wrapped in DDP or compiled; None: `network` itself.
    Returns the loss of the global batch, a float32 scalar, the same on every worker.
    """
    call = network if forward is None else forward
    targets = [network.targets(labels) for _, labels in micro_batches]
    workers = dist.get_world_size() if dist.is_initialized() else 1
    counts = torch.zeros(len(targets[0]), dtype=torch.int64, device=micro_batches[0][1].device)
    for target in targets:
        counts += torch.stack([(labels != IGNORE).sum() for labels, _ in target])
    valid = sum_over_workers(counts).clamp_min(1)
    total = torch.zeros((), device=counts.device)
    optimizer.zero_grad(set_to_none=True)
    last = len(micro_batches) - 1
    for index, ((images, _), target) in enumerate(zip(micro_batches, targets, strict=True)):
        waits = index < last and hasattr(call, "no_sync")
        with call.no_sync() if waits else nullcontext():  # type: ignore[operator]
            with autocast(images.device, precision):
                outputs = call(images)
            loss = torch.zeros((), device=counts.device)
            for scores, (labels, weight), count in zip(outputs, target, valid, strict=True):
                part = F.cross_entropy(scores.float(), labels, weights, ignore_index=IGNORE, reduction="sum")
                loss = loss + weight * (part / count if normalise else part)
            # DDP averages gradients over workers; the loss is already divided by the global count.
            (loss * workers).backward()
        total += loss.detach()
    optimizer.step()
    return sum_over_workers(total)


def class_weights(pixels: Sequence[int], balance: float) -> Tensor:
    """Return the weight in the loss of a pixel of each class, float32 C: proportional to frequency^−balance, with mean
    1 over the labelled pixels. A balance of 1 is that of Eigen and Fergus (ICCV 2015), up to a constant factor.

    pixels: number of pixels of each class in the training split; a class without any gets weight 1.
    """
    counts = torch.tensor(pixels, dtype=torch.float64)
    present = counts > 0
    weights = torch.ones_like(counts)
    weights[present] = counts[present] ** -balance
    weights[present] *= counts.sum() / (weights * counts).sum()
    return weights.float()


def sum_over_workers(value: Tensor) -> Tensor:
    """Sum the tensor over all workers, in place, and return it; with one worker it stays as it is."""
    if dist.is_initialized():
        dist.all_reduce(value)
    return value
