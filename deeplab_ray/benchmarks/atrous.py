"""Atrous convolution tap by tap, as training on a CPU computes it, against PyTorch's: on one thread, in one run."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import nn

from deeplab_ray.models.atrous import AtrousConv2d, lay_out_by_taps

CASES = (
    ("res5, crop 97", 2, 512, 512, 13, 4),
    ("fc6, crop 161", 4, 512, 1024, 21, 12),
    ("fc6, crop 321", 1, 512, 1024, 41, 12),
    ("ASPP r24, crop 321", 1, 512, 1024, 41, 24),
)
"""For each layer: name, crops, channels in and out, side of the feature map in cells, rate of the 3×3 convolution."""


@dataclass(frozen=True)
class Row:
    """Seconds that one layer's forward and backward pass take."""

    layer: str
    pytorch: float
    taps: float

    @property
    def times_faster(self) -> float:
        return self.pytorch / self.taps


def measure(repeats: int) -> list[Row]:
    """Measure each of CASES: the medians of `repeats` passes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [_row(*case, repeats) for case in CASES]
    finally:
        torch.set_num_threads(threads)


def _row(layer: str, crops: int, inputs: int, outputs: int, side: int, rate: int, repeats: int) -> Row:
    torch.manual_seed(0)
    x = torch.randn(crops, inputs, side, side, requires_grad=True)
    gradient = torch.randn(crops, outputs, side, side)
    rivals = [kind(inputs, outputs, 3, padding=rate, dilation=rate) for kind in (nn.Conv2d, AtrousConv2d)]
    lay_out_by_taps(rivals[1])

    def seconds(convolution: nn.Conv2d) -> Callable[[], float]:
        def once() -> float:
            start = time.perf_counter()
            convolution(x).backward(gradient)
            return time.perf_counter() - start

        return once

    passes = [seconds(convolution) for convolution in rivals]
    for one in passes:
        one()
    times = [[one() for one in passes] for _ in range(repeats)]
    return Row(layer, *(median(column) for column in zip(*times, strict=True)))


def table(rows: list[Row]) -> str:
    """Format the rows for a terminal."""
    lines = [f"{'layer':<20} {'PyTorch s':>10} {'by taps s':>10} {'× faster':>9}"]
    lines += [f"{row.layer:<20} {row.pytorch:>10.3f} {row.taps:>10.3f} {row.times_faster:>9.2f}" for row in rows]
    return "\n".join(lines)
