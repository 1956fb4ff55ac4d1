"""What the CRF changed: near the boundaries (the paper's Fig. 10) and image by image, as charts of the page."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deeplab_ray.metrics import WIDTHS, trimap_iou
from deeplab_ray.report.curves import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Tick, steps
from deeplab_ray.report.scores import VISIBLE, percent, signed

_TABLE = (1, 2, 3, 5, 10, 20, 30, 40)
"""Widths of bands whose figures stand beside the plot."""
_BARS = 30
"""The least number of bars that the histogram's range is divided into."""
_LISTED = 8


@dataclass(frozen=True)
class ImageGain:
    """Mean IoU of one image over the classes of its truth, in 0..1, before and after the CRF; NaN if it has none."""

    id: str
    miou_before: float
    miou_after: float

    @property
    def gain(self) -> float:
        """What the CRF added."""
        return self.miou_after - self.miou_before


@dataclass(frozen=True)
class TrimapPlot:
    """Mean IoU against the width of the band in a WIDTH×HEIGHT view box, and some of its figures."""

    summary: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    network: str
    """Points of the network's polyline, "x,y x,y …"."""
    crf: str | None
    """The same after the CRF; None if it did not run."""
    table: list[tuple[int, float, float | None]]
    """Width in pixels, mean IoU before and after the CRF."""


@dataclass(frozen=True)
class Bar:
    """One bar of the histogram in SVG units, upright on the axis; `lost` if it counts losses."""

    x: float
    y: float
    width: float
    height: float
    lost: bool


@dataclass(frozen=True)
class Gains:
    """How many images gained and lost, their histogram in a WIDTH×HEIGHT view box, and the worst losses."""

    summary: str
    gained: int
    lost: int
    unchanged: int
    """Images whose gain is 0.0 points as the page writes it."""
    mean: float
    """Mean gain of an image, in 0..1."""
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    zero: float
    """x of the line between losses and gains."""
    bars: list[Bar]
    """Of the images that gained or lost; none if no image did."""
    worst: list[ImageGain]
    """The largest losses, the largest first."""


def trimap_plot(counts: NDArray[np.int64] | None, counts_crf: NDArray[np.int64] | None) -> TrimapPlot | None:
    """Draw Fig. 10 from the counts of `trimap_counts`, int64 W×3×C with the W widths `WIDTHS`.

    Returns None without counts, and if no pixel lies near a boundary.
    """
    if counts is None or not counts.any():
        return None
    before = trimap_iou(counts)
    after = None if counts_crf is None else trimap_iou(counts_crf)
    both = 100 * np.concatenate([scores for scores in (before, after) if scores is not None])
    low, high = float(np.nanmin(both)), float(np.nanmax(both))
    # One point at least, or noise would fill the plot.
    slack = max(0.0, 1 - (high - low)) / 2
    y_steps = steps(max(low - slack, 0.0), high + slack)
    across = _scale(0, WIDTHS[-1], LEFT, WIDTH - RIGHT)
    up = _scale(y_steps[0], y_steps[-1], HEIGHT - BOTTOM, TOP)

    def path(scores: NDArray[np.float64]) -> str:
        points = [(width, 100 * score) for width, score in zip(WIDTHS, scores, strict=True) if not math.isnan(score)]
        return " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)

    table = [
        (width, float(before[place]), None if after is None else float(after[place]))
        for place, width in enumerate(WIDTHS)
        if width in _TABLE
    ]
    ends = [f"{_arrow(first, second)} in a band of {width} px" for width, first, second in (table[0], table[-1])]
    return TrimapPlot(
        summary=f"Mean IoU near boundaries: {', '.join(ends)}",
        x_ticks=[Tick(across(width), str(width)) for width in range(0, WIDTHS[-1] + 1, 10)],
        y_ticks=[Tick(up(step), f"{step:g}") for step in y_steps],
        network=path(before),
        crf=None if after is None else path(after),
        table=table,
    )


def summarise_gains(gains: Sequence[ImageGain]) -> Gains | None:
    """Count, draw and rank what single images gained; images without a score are left out. None if none is left."""
    known = [each for each in gains if not math.isnan(each.gain)]
    if not known:
        return None
    values = np.array([each.gain for each in known])
    lost, gained = values <= -VISIBLE, values >= VISIBLE
    counts = int(gained.sum()), int(lost.sum())
    x_ticks, y_ticks, zero, bars = _histogram(100 * values[lost | gained])
    ranked = sorted((each for each in known if each.gain <= -VISIBLE), key=lambda each: each.gain)
    return Gains(
        summary=f"Gain of single images: {counts[0]:,} gained, {counts[1]:,} lost, "
        f"from {signed(values.min())} to {signed(values.max())} points",
        gained=counts[0],
        lost=counts[1],
        unchanged=len(known) - sum(counts),
        mean=float(values.mean()),
        x_ticks=x_ticks,
        y_ticks=y_ticks,
        zero=zero,
        bars=bars,
        worst=ranked[:_LISTED],
    )


def _histogram(points: NDArray[np.float64]) -> tuple[list[Tick], list[Tick], float, list[Bar]]:
    """Ticks, place of zero and bars of gains in points, none of them 0. A bar lies on one side of zero."""
    if not points.size:
        return [], [], 0.0, []
    x_steps = steps(min(float(points.min()), 0.0), max(float(points.max()), 0.0))
    step = x_steps[1] - x_steps[0]
    wide = step / math.ceil(_BARS / (len(x_steps) - 1))
    # Losses into bars that begin below, gains into bars that begin above: a gain of 0.1 is no neighbour of its loss.
    places = np.where(points < 0, np.ceil(points / wide) - 1, np.floor(points / wide)).astype(int)
    numbers, counts = np.unique(places, return_counts=True)
    y_steps = [level for level in steps(0, float(counts.max())) if level == int(level)]
    top = max(y_steps[-1], float(counts.max()))
    across = _scale(x_steps[0], x_steps[-1], LEFT, WIDTH - RIGHT)
    up = _scale(0, top, HEIGHT - BOTTOM, TOP)
    bars = [
        Bar(
            x=round(across(number * wide) + 0.4, 2),
            y=round(up(count), 2),
            width=round(max(across(wide) - across(0) - 0.8, 0.6), 2),
            height=round(up(0) - up(count), 2),
            lost=number < 0,
        )
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True)
    ]
    x_ticks = [Tick(across(level), f"{level:+g}".replace("-", "−") if level else "0") for level in x_steps]
    return x_ticks, [Tick(up(level), f"{level:,.0f}") for level in y_steps], across(0), bars


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """The function that takes low..high to start..end."""
    return lambda value: start + (end - start) * (value - low) / (high - low)


def _arrow(before: float, after: float | None) -> str:
    return f"{percent(before)} %" if after is None else f"{percent(before)} → {percent(after)} %"
