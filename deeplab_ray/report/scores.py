"""Scores per class before and after the CRF, and how they are written."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deeplab_ray.metrics import iou, mean_iou, pixel_accuracy

_ASCII = str.maketrans("–−", "--")


@dataclass(frozen=True)
class ClassScore:
    """One class: its share of the true pixels and its IoU, all in 0..1, NaN if there is none."""

    name: str
    share: float
    network: float
    crf: float | None

    @property
    def gain(self) -> float | None:
        """What the CRF adds, None without a CRF."""
        return None if self.crf is None else self.crf - self.network


def class_scores(classes: Sequence[str], confusion: np.ndarray, confusion_crf: np.ndarray | None) -> list[ClassScore]:
    """The score of every class, from int64 C×C confusion matrices (rows = truth)."""
    total = max(int(confusion.sum()), 1)
    shares = confusion.sum(axis=1) / total
    network = iou(confusion)
    crf = [None] * len(classes) if confusion_crf is None else iou(confusion_crf).tolist()
    return [ClassScore(*row) for row in zip(classes, shares.tolist(), network.tolist(), crf, strict=True)]


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
    The text is ASCII but for the class names, and ends without a newline.
    """
    scores = class_scores(dataset_classes, confusion, confusion_crf)
    rows = [(score.name, percent(score.share), score.network, score.crf) for score in scores]
    totals = [
        (name, "", measure(confusion), None if confusion_crf is None else measure(confusion_crf))
        for name, measure in (("mean IoU", mean_iou), ("pixel accuracy", pixel_accuracy))
    ]
    width = max(len(name) for name, *_ in rows + totals)

    def line(name: str, share: str, network: str, crf: str, gain: str) -> str:
        text = f"{name:<{width}}  {share:>8}  {network:>7}"
        return text if confusion_crf is None else f"{text}  {crf:>5}  {gain:>5}"

    def numbers(name: str, share: str, network: float, crf: float | None) -> str:
        gain = signed(None if crf is None else crf - network)
        return line(name, *(cell.translate(_ASCII) for cell in (share, percent(network), percent(crf), gain)))

    head = line("IoU in %", "pixels %", "network", "+ CRF", "gain")
    rule = "-" * len(head)
    return "\n".join([head, rule, *(numbers(*row) for row in rows), rule, *(numbers(*row) for row in totals)])
