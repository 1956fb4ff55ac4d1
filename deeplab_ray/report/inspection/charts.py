"""The plots of an inspection: class shares as bars on a common scale, and images by width and height."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from deeplab_ray.report.curves import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Tick, steps
from deeplab_ray.report.inspection.columns import Columns

_LOGARITHMIC = 100
"""The scale is logarithmic if the largest share is so many times the smallest: a bar of a hundredth is hard to see."""
_LOWEST = 1e-7
_DOTS = 500
_CELLS = 40
_RADII = (1.8, 9.0)


@dataclass(frozen=True)
class Scale:
    """Where shares lie on an axis; places in per cent of its length."""

    low: float
    high: float
    logarithmic: bool
    ticks: list[Tick]
    """Evenly spaced, from 0 to 100; their texts are per cent of the pixels."""

    def at(self, share: float | None) -> float:
        """The place of a share in 0..1; 0 for none at all."""
        if not share:
            return 0.0
        if not self.logarithmic:
            return 100 * share / self.high
        return 100 * max(0.0, math.log10(share / self.low)) / math.log10(self.high / self.low)


def share_scale(shares: Iterable[float | None]) -> Scale:
    """The scale that shows all these shares, in 0..1."""
    known = [share for share in shares if share]
    smallest, largest = min(known, default=1.0), max(known, default=1.0)
    if largest < _LOGARITHMIC * smallest:
        levels = [level / 100 for level in steps(0, 100 * largest)]
        ticks = [Tick(100 * level / levels[-1], f"{100 * level:g}") for level in levels]
        return Scale(0.0, levels[-1], False, ticks)
    # A bar of the smallest is to be seen, too.
    first = math.floor(math.log10(max(0.7 * smallest, _LOWEST)))
    powers = range(first, math.ceil(math.log10(largest)) + 1)
    ticks = [
        Tick(100 * place / (len(powers) - 1), f"{100 * 10.0**power:.10f}".rstrip("0").rstrip("."))
        for place, power in enumerate(powers)
    ]
    return Scale(10.0**first, 10.0 ** powers[-1], True, ticks)


@dataclass(frozen=True)
class Scatter:
    """Images by width and height in a WIDTH×HEIGHT view box."""

    title: str
    summary: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    dots: list[tuple[float, float, float, str]]
    """x, y and radius, whose square grows with the number of images, and what it stands for."""


def scatters(columns: Mapping[str, Columns]) -> list[Scatter]:
    """Draw the sizes of the images of each split by its name, all on the same axes.

    Nearby sizes are one dot if there are many. A split without images, or with one size alone, has no plot.
    """
    drawn = {name: each for name, each in columns.items() if len(each.sizes) > 1}
    if not drawn:
        return []
    x_steps, y_steps = (steps(0, max(size[axis] for each in drawn.values() for size in each.sizes)) for axis in (1, 0))
    return [_scatter(name, each, x_steps, y_steps) for name, each in drawn.items()]


def _scatter(title: str, columns: Columns, x_steps: Sequence[float], y_steps: Sequence[float]) -> Scatter:
    across = _scale(x_steps[-1], LEFT, WIDTH - RIGHT)
    up = _scale(y_steps[-1], HEIGHT - BOTTOM, TOP)
    grouped = len(columns.sizes) > _DOTS
    groups = _grouped(columns.sizes, y_steps[-1], x_steps[-1]) if grouped else columns.sizes
    most = max(groups.values())
    smallest, largest = _RADII
    dots = [
        (
            round(across(width), 1),
            round(up(height), 1),
            round(smallest + (largest - smallest) * math.sqrt(number / most), 1),
            f"{'about ' if grouped else ''}{width}×{height}: {number:,}",
        )
        # The largest first, so that none hides another.
        for (height, width), number in sorted(groups.items(), key=lambda item: -item[1])
    ]
    widths, heights = columns.widths, columns.heights
    return Scatter(
        title=title,
        summary=f"Sizes of {title}: {widths[0]} to {widths[-1]} pixels wide, {heights[0]} to {heights[-1]} high",
        x_ticks=[Tick(across(step), f"{step:,.0f}") for step in x_steps],
        y_ticks=[Tick(up(step), f"{step:,.0f}") for step in y_steps],
        dots=dots,
    )


def _scale(top: float, start: float, end: float) -> Callable[[float], float]:
    return lambda value: start + (end - start) * value / top


def _grouped(sizes: Mapping[tuple[int, int], int], tallest: float, widest: float) -> dict[tuple[int, int], int]:
    """The sizes counted in cells, each by the middle of its cell."""
    high, wide = math.ceil(tallest / _CELLS), math.ceil(widest / _CELLS)
    groups = Counter[tuple[int, int]]()
    for (height, width), number in sizes.items():
        groups[height // high * high + high // 2, width // wide * wide + wide // 2] += number
    return dict(groups)
