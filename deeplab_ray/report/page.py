"""The report of an evaluation: one HTML file that needs nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from deeplab_ray.labels import ClassTable
from deeplab_ray.metrics import mean_iou, pixel_accuracy
from deeplab_ray.report import curves as charts
from deeplab_ray.report.pictures import PANELS, GalleryRow, data_uri, label_picture, photograph, worst_first
from deeplab_ray.report.scores import class_scores, percent, signed

PICTURE_WIDTH = 640
"""Largest width of a picture in the page, in pixels: twice what a column of the gallery shows."""

_TEMPLATES = Environment(
    loader=PackageLoader("deeplab_ray.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters.update(percent=percent, signed=signed)


@dataclass(frozen=True)
class EvaluationReport:
    """What the page tells. Raises ValueError if a confusion matrix is not C×C of the table's C classes."""

    title: str
    classes: ClassTable
    images: int
    """Number of images measured."""
    confusion: np.ndarray
    """The network's int64 C×C, rows = truth."""
    confusion_crf: np.ndarray | None
    """The same after the CRF; None if it did not run."""
    gallery: Sequence[GalleryRow] = ()
    history: Sequence[dict[str, Any]] = ()
    """Training's records: iteration, loss, learning_rate and, where known, miou and images_per_s."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The resolved config, nested."""
    facts: dict[str, str] = field(default_factory=dict)
    """What was measured, where and how: checkpoint, data, time, command."""

    def __post_init__(self) -> None:
        shape = (len(self.classes),) * 2
        for matrix in (self.confusion, self.confusion_crf):
            if matrix is not None and matrix.shape != shape:
                raise ValueError(f"confusion matrix is {matrix.shape}, {len(self.classes)} classes need {shape}")


@dataclass(frozen=True)
class Confusion:
    """A frequent mistake: `share` of the pixels of class `truth` that are called `prediction`."""

    truth: str
    prediction: str
    share: float


def write_report(report: EvaluationReport) -> str:
    """The page as HTML text: self-contained, without script; for screen (light and dark), phone and paper."""
    scores = class_scores(report.classes.names, report.confusion, report.confusion_crf)
    final = report.confusion if report.confusion_crf is None else report.confusion_crf
    speeds = [record["images_per_s"] for record in report.history if record.get("images_per_s") is not None]
    return _TEMPLATES.get_template("report.html.j2").render(
        report=report,
        classes=report.classes.names,
        colours=["rgb({} {} {})".format(*colour) for colour in report.classes.colours],
        scores=scores,
        absent=any(score is not None and np.isnan(score) for each in scores for score in (each.network, each.crf)),
        miou=_before_after(mean_iou, report),
        accuracy=_before_after(pixel_accuracy, report),
        present=int((report.confusion.sum(axis=1) > 0).sum()),
        pixels=int(report.confusion.sum()),
        curves=charts.curves(report.history),
        chart=charts,
        speed=float(np.median(speeds)) if speeds else None,
        gallery=[_pictures(row, report.classes) for row in worst_first(report.gallery)],
        rates=_row_shares(final).tolist(),
        confusions=_largest_confusions(final, report.classes.names),
    )


def _before_after(score: Any, report: EvaluationReport) -> tuple[float, float | None, float | None]:
    """(before, after, gain) of a score of the confusion matrix."""
    before = score(report.confusion)
    if report.confusion_crf is None:
        return before, None, None
    after = score(report.confusion_crf)
    return before, after, after - before


def _pictures(row: GalleryRow, classes: ClassTable) -> dict[str, Any]:
    image: tuple[Image.Image, float | None] = (photograph(row.image, PICTURE_WIDTH), None)
    labels = [(label_picture(ids, classes, PICTURE_WIDTH), miou) for ids, miou in row.labels]
    return {
        "id": row.id,
        "panels": [
            {"name": name, "uri": data_uri(picture), "size": picture.size, "miou": miou}
            for name, (picture, miou) in zip(PANELS, [image, *labels], strict=False)
        ],
    }


def _row_shares(confusion: np.ndarray) -> np.ndarray:
    """float64 C×C: the confusion matrix with every row divided by its sum; zeros if a class is absent."""
    return confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)


def _largest_confusions(confusion: np.ndarray, classes: Sequence[str], count: int = 5) -> list[Confusion]:
    """The off-diagonal entries with the most pixels, largest first."""
    wrong = confusion - np.diag(np.diag(confusion))
    shares = _row_shares(confusion)
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    places = [divmod(int(place), len(classes)) for place in order if wrong.flat[place]]
    return [Confusion(classes[i], classes[j], float(shares[i, j])) for i, j in places]
