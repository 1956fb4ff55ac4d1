"""Scores before and after the CRF, per class and of all, and how they are written.

What the CRF gained is always taken over the classes of the truth, so that a stray pixel of another class does not move
it; the mean IoU itself is the benchmarks' (see `deeplab_ray.metrics.mean_iou`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from deeplab_ray.metrics import (
    frequency_weighted_iou,
    iou,
    mean_class_accuracy,
    mean_iou,
    mean_iou_of_truth,
    pixel_accuracy,
)

_ASCII = str.maketrans({"–": "-", "−": "-", "→": "->"})
_OF_TRUTH = "mean IoU of the truth's classes"
VISIBLE = 5e-4
"""A difference that is smaller is 0.0 points as the page writes it."""


@dataclass(frozen=True)
class ClassScore:
    """One class: its share of the true pixels and its IoU, all in 0..1, NaN if there is none."""

    name: str
    share: float
    network: float
    crf: float | None

    @property
    def gain(self) -> float | None:
        """What the CRF adds: None without a CRF, NaN for a class that is not in the truth."""
        if self.crf is None:
            return None
        return self.crf - self.network if self.share else math.nan


@dataclass(frozen=True)
class Measure:
    """One score of all classes, in 0..1, before and after the CRF (None without one)."""

    name: str
    network: float
    crf: float | None
    comparable: bool = True
    """Whether both are taken over the same classes."""

    @property
    def gain(self) -> float | None:
        """What the CRF adds, None without a CRF and if the two cannot be compared."""
        return self.crf - self.network if self.crf is not None and self.comparable else None


def class_scores(classes: Sequence[str], confusion: np.ndarray, confusion_crf: np.ndarray | None) -> list[ClassScore]:
    """The score of every class, from int64 C×C confusion matrices (rows = truth)."""
    total = max(int(confusion.sum()), 1)
    shares = confusion.sum(axis=1) / total
    network = iou(confusion)
    crf = [None] * len(classes) if confusion_crf is None else iou(confusion_crf).tolist()
    return [ClassScore(*row) for row in zip(classes, shares.tolist(), network.tolist(), crf, strict=True)]


def measures(confusion: np.ndarray, confusion_crf: np.ndarray | None) -> list[Measure]:
    """Mean IoU, pixel accuracy, mean class accuracy and frequency-weighted IoU, from int64 C×C (rows = truth).

    Mean IoU is the benchmarks'. Where pixels are called a class that is not in the truth, before or after the CRF, it
    cannot be compared, and the mean over the classes of the truth follows it.
    """

    def measure(name: str, score: Callable[[np.ndarray], float], comparable: bool = True) -> Measure:
        return Measure(name, score(confusion), None if confusion_crf is None else score(confusion_crf), comparable)

    stray = confusion_crf is not None and ((confusion.sum(1) == 0) & ((confusion + confusion_crf).sum(0) > 0)).any()
    return [
        measure("mean IoU", mean_iou, not stray),
        *([measure(_OF_TRUTH, mean_iou_of_truth)] if stray else []),
        measure("pixel accuracy", pixel_accuracy),
        measure("mean class accuracy", mean_class_accuracy),
        measure("frequency-weighted IoU", frequency_weighted_iou),
    ]


def loss_by_crf(confusion: np.ndarray, confusion_crf: np.ndarray | None) -> str | None:
    """Say so if the CRF lowered mean IoU, in a sentence without full stop; None if it did not or none ran."""
    if confusion_crf is None:
        return None
    headline = mean_iou(confusion), mean_iou(confusion_crf)
    before, after = mean_iou_of_truth(confusion), mean_iou_of_truth(confusion_crf)
    if after < before:
        return _lowered("mean IoU" if (before, after) == headline else _OF_TRUTH, before, after)
    if headline[1] < headline[0]:
        return f"{_lowered('mean IoU', *headline)}, though not over the truth's classes ({signed(after - before)})"
    return None


def _lowered(name: str, before: float, after: float) -> str:
    loss = before - after
    digits = 1 if loss >= VISIBLE else 2
    points = percent(loss, digits) if loss >= VISIBLE / 10 else "less than 0.01"
    return f"The CRF lowered {name} by {points} points ({percent(before, digits)} → {percent(after, digits)} %)"


def percent(fraction: float | None, digits: int = 1) -> str:
    """A fraction of 1 in per cent, "–" for None and NaN."""
    return "–" if fraction is None or math.isnan(fraction) else f"{100 * fraction:.{digits}f}"


def signed(fraction: float | None) -> str:
    """A difference in percentage points with its sign, "–" for None and NaN."""
    if fraction is None or math.isnan(fraction):
        return "–"
    text = f"{100 * fraction:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def format_table(dataset_classes: Sequence[str], confusion: np.ndarray, confusion_crf: np.ndarray | None) -> str:
    """The per-class table for a terminal: pixel share and IoU before and after the CRF, in per cent.

    confusion, confusion_crf: int64 C×C, rows = truth; the latter None if no CRF ran.
    The first line says so if the CRF lowered mean IoU. The text is ASCII but for the class names, and ends without a
    newline.
    """
    scores = class_scores(dataset_classes, confusion, confusion_crf)
    totals = measures(confusion, confusion_crf)
    width = max(len(name) for name in (*dataset_classes, *(measure.name for measure in totals)))

    def line(name: str, share: str, network: str, crf: str, gain: str) -> str:
        text = f"{name:<{width}}  {share:>8}  {network:>7}"
        return text if confusion_crf is None else f"{text}  {crf:>5}  {gain:>5}"

    def numbers(score: ClassScore | Measure) -> str:
        share = percent(score.share) if isinstance(score, ClassScore) else ""
        cells = (share, percent(score.network), percent(score.crf), signed(score.gain))
        return line(score.name, *(cell.translate(_ASCII) for cell in cells))

    loss = loss_by_crf(confusion, confusion_crf)
    head = line("IoU in %", "pixels %", "network", "+ CRF", "gain")
    rule = "-" * len(head)
    lines = [head, rule, *(numbers(score) for score in scores), rule, *(numbers(measure) for measure in totals)]
    return "\n".join([loss.translate(_ASCII), "", *lines] if loss else lines)
