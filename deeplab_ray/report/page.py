"""The report of an evaluation: one HTML file that needs nothing else."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deeplab_ray.labels import ClassTable
from deeplab_ray.metrics import WIDTHS
from deeplab_ray.report import curves as charts
from deeplab_ray.report.comparison import ImageGain, summarise_gains, trimap_plot
from deeplab_ray.report.environment import TEMPLATES
from deeplab_ray.report.figure5 import FLOOR, SCALE, BeliefMaps
from deeplab_ray.report.pictures import (
    PANELS,
    GalleryRow,
    data_uri,
    file_uri,
    label_picture,
    largest_loss_first,
    photograph,
    worst_first,
)
from deeplab_ray.report.scores import class_scores, loss_by_crf, measures

PICTURE_WIDTH = 640
"""Largest width of a picture in the page, in pixels: twice what a column of the gallery shows."""
ERRORS = 50
"""How many of the images that could not be measured the page lists."""


@dataclass(frozen=True)
class EvaluationReport:
    """What the page tells. Raises ValueError for a confusion matrix or trimap counts of another shape than C needs."""

    title: str
    classes: ClassTable
    images: int
    """Number of images measured."""
    confusion: np.ndarray
    """The network's int64 C×C, rows = truth."""
    confusion_crf: np.ndarray | None
    """The same after the CRF; None if it did not run."""
    gallery: Sequence[GalleryRow] = ()
    """Images to show, in any order: the page begins with the worst."""
    history: Sequence[dict[str, Any]] = ()
    """Training's records: iteration, loss, learning_rate and, where known, miou and images_per_s."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The resolved config, nested."""
    facts: dict[str, str] = field(default_factory=dict)
    """What was measured, where and how: checkpoint, data, time, command."""
    trimap: NDArray[np.int64] | None = None
    """The network's counts near boundaries by `metrics.trimap_counts` with its widths, int64 W×3×C; None: no plot."""
    trimap_crf: NDArray[np.int64] | None = None
    """The same after the CRF; None if it did not run."""
    gains: Sequence[ImageGain] = ()
    """What each image gained by the CRF; thousands will do."""
    losses: Sequence[GalleryRow] = ()
    """The images that lost most, in any order, to be shown like the gallery; those that did not lose are left out."""
    errors: Sequence[tuple[str, str, str]] = ()
    """(id, stage, reason) of each image that could not be measured."""
    figure5: Sequence[BeliefMaps] = ()
    """Score and belief maps over the iterations of the CRF."""

    def __post_init__(self) -> None:
        count = len(self.classes)
        for name, counts, shape in (
            ("confusion matrix is", self.confusion, (count, count)),
            ("confusion matrix is", self.confusion_crf, (count, count)),
            ("trimap counts are", self.trimap, (len(WIDTHS), 3, count)),
            ("trimap counts are", self.trimap_crf, (len(WIDTHS), 3, count)),
        ):
            if counts is not None and counts.shape != shape:
                raise ValueError(f"{name} {counts.shape}, {count} classes need {shape}")


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
    return TEMPLATES.get_template("report.html.j2").render(
        report=report,
        classes=report.classes.names,
        colours=["rgb({} {} {})".format(*colour) for colour in report.classes.colours],
        scores=scores,
        absent=any(score is not None and np.isnan(score) for each in scores for score in (each.network, each.crf)),
        measures={measure.name: measure for measure in measures(report.confusion, report.confusion_crf)},
        loss=loss_by_crf(report.confusion, report.confusion_crf),
        present=int((report.confusion.sum(axis=1) > 0).sum()),
        pixels=int(report.confusion.sum()),
        trimap=trimap_plot(report.trimap, report.trimap_crf),
        gains=summarise_gains(report.gains),
        losses=[_pictures(row, report.classes) for row in largest_loss_first(report.losses)],
        figure5=[_maps(each) for each in report.figure5],
        scale=SCALE,
        depth=f"{-FLOOR:g}",
        errors=report.errors[:ERRORS],
        curves=charts.curves(report.history),
        speed=float(np.median(speeds)) if speeds else None,
        gallery=[_pictures(row, report.classes) for row in worst_first(report.gallery)],
        rates=_row_shares(final).tolist(),
        confusions=_largest_confusions(final, report.classes.names),
    )


def _pictures(row: GalleryRow, classes: ClassTable) -> dict[str, Any]:
    image: tuple[Image.Image, float | None] = (photograph(row.image, PICTURE_WIDTH), None)
    labels = [(label_picture(ids, classes, PICTURE_WIDTH), miou) for ids, miou in row.labels]
    return {
        "id": row.id,
        "gain": row.gain,
        "panels": [
            {"name": name, "uri": data_uri(picture), "size": picture.size, "miou": miou}
            for name, (picture, miou) in zip(PANELS, [image, *labels], strict=False)
        ],
    }


def _maps(maps: BeliefMaps) -> dict[str, Any]:
    image = photograph(maps.image, PICTURE_WIDTH // 2)
    panels = [{"name": "image", "uri": data_uri(image), "size": image.size}]
    for caption, data in maps.maps:
        with Image.open(io.BytesIO(data)) as picture:
            panels.append({"name": caption, "uri": file_uri(data, "png"), "size": picture.size})
    return {"id": maps.id, "class": maps.class_name, "panels": panels}


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
