"""The training curves: points and ticks of small charts, which the page's templates draw as inline SVG.

Drawn by hand and not by a plotting library, so that a line takes the page's colours in light, dark and print.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 48, 24, 12, 28


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis, in SVG units."""

    at: float
    text: str


@dataclass(frozen=True)
class Curve:
    """One chart in a WIDTH×HEIGHT view box."""

    title: str
    summary: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    line: str
    """Points of the polyline, "x,y x,y …"."""
    faint: str
    """Points of the unsmoothed line behind it; empty where nothing was smoothed."""
    dots: list[tuple[float, float]]
    """Points worth a mark of their own."""


def curves(history: Iterable[dict[str, Any]]) -> list[Curve]:
    """Loss, mean IoU and learning rate over the iterations, each only if the history has it.

    history: records with "iteration" and any of "loss", "miou" (0..1), "learning_rate". Where an iteration
    occurs twice (a run that went on from a checkpoint), the later record counts.
    """
    records: dict[int, dict[str, Any]] = {}
    for record in history:
        records[int(record["iteration"])] = {**records.get(int(record["iteration"]), {}), **record}
    last = max(records, default=0)
    charts = [
        _curve("Loss", "loss", "{:.3g}", 1, records, last, smooth=True),
        _curve("Mean IoU on the validation split (%)", "miou", "{:.1f}", 100, records, last, dots=True),
        _curve("Learning rate", "learning_rate", "{:.2g}", 1, records, last),
    ]
    return [chart for chart in charts if chart]


def _curve(
    title: str,
    key: str,
    number: str,
    factor: float,
    records: dict[int, dict[str, Any]],
    last: int,
    smooth: bool = False,
    dots: bool = False,
) -> Curve | None:
    points = [
        (iteration, factor * float(record[key]))
        for iteration, record in sorted(records.items())
        if record.get(key) is not None and math.isfinite(record[key])
    ]
    if not points:
        return None
    x, y = np.array(points, np.float64).T
    x_steps = [step for step in steps(0, max(last, 1)) if step == int(step)]
    y_steps = steps(0, float(y.max()) if y.max() > 0 else 1.0)
    x_top, y_top = max(last, 1), max(y_steps[-1], float(y.max()))

    def across(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * value / x_top

    def up(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * max(value, 0) / y_top

    def path(values: np.ndarray) -> str:
        thin = max(1, math.ceil(len(x) / 600))
        kept = zip(x[::thin], values[::thin], strict=True)
        return " ".join(f"{across(a):.1f},{up(b):.1f}" for a, b in kept)

    smoothed = smooth and len(y) >= 40
    return Curve(
        title=title,
        summary=f"{title}: from {number.format(y[0])} at iteration {int(x[0]):,} to {number.format(y[-1])} "
        f"at iteration {int(x[-1]):,}",
        x_ticks=[Tick(across(step), f"{step:,.0f}") for step in x_steps if step <= x_top],
        y_ticks=[Tick(up(step), f"{step:.3g}") for step in y_steps],
        line=path(_running_mean(y, len(y) // 20) if smoothed else y),
        faint=path(y) if smoothed else "",
        dots=[(round(across(a), 1), round(up(b), 1)) for a, b in points] if dots or len(points) == 1 else [],
    )


def steps(low: float, high: float) -> list[float]:
    """Round numbers at even distances, a handful of them, the first at most `low`, the last at least `high` > low."""
    power = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next(power * unit for unit in (1, 2, 2.5, 5, 10) if power * unit * 5 >= high - low)
    return [step * i for i in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]


def _running_mean(values: np.ndarray, window: int) -> np.ndarray:
    kernel = np.ones(2 * (window // 2) + 1)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones_like(values), kernel, "same")
