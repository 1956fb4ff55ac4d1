"""What an evaluation found, and its report."""

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab_ray import runs
from deeplab_ray.config.io import as_dict, to_json
from deeplab_ray.config.recipe import Recipe
from deeplab_ray.crf.params import CRFParams
from deeplab_ray.errors import UserError
from deeplab_ray.labels import ClassTable
from deeplab_ray.metrics import (
    frequency_weighted_iou,
    iou,
    mean_class_accuracy,
    mean_iou,
    pixel_accuracy,
    trimap_iou,
)
from deeplab_ray.outputs import record
from deeplab_ray.outputs.journal import PROGRESS, Done
from deeplab_ray.report import BeliefMaps, EvaluationReport, GalleryRow, ImageGain, write_report
from deeplab_ray.runs import CheckpointMeta
from deeplab_ray.storage.access import check_access
from deeplab_ray.storage.location import locate

_RECIPE, _PAGE = "recipe.json", "report.html"


@dataclass(frozen=True)
class Evaluation:
    """What was measured; confusion matrices are int64 C×C, rows the truth."""

    classes: ClassTable
    reader: str
    """Name of the dataset that the split was prepared from."""
    images: int
    """Number of images measured: all that have a label, but for the failed ones."""
    confusion: NDArray[np.int64]
    confusion_crf: NDArray[np.int64] | None
    trimap: NDArray[np.int64]
    """Counts near boundaries, see `metrics.trimap_counts`."""
    trimap_crf: NDArray[np.int64] | None
    gains: list[ImageGain]
    """What each image gained by the CRF; empty without it."""
    worst: list[GalleryRow]
    losses: list[GalleryRow]
    maps: list[BeliefMaps]
    errors: list[Done]
    """Images that failed, with their reasons."""
    checkpoint: str
    data: str
    """URI of the split's folder."""
    meta: CheckpointMeta
    recipe: Recipe
    """The checkpoint's, with the scoring, the precision and the CRF that were measured."""
    crf: CRFParams | None
    seconds: float
    figures: dict[str, Any] = field(default_factory=dict)
    """Of this run's stages, see `progress.Summary`."""

    @property
    def miou(self) -> float:
        return mean_iou(self.confusion)

    @property
    def miou_crf(self) -> float | None:
        return None if self.confusion_crf is None else mean_iou(self.confusion_crf)


def paper_measures(evaluation: Evaluation) -> dict[str, Any]:
    """For RESULT: the measures of the paper before and after the CRF ("…_crf"), each in 0..1; IoU by class; mean IoU in
    bands of 1..40 pixels along boundaries (Fig. 10)."""
    found: dict[str, Any] = {}
    sides = [("", evaluation.confusion, evaluation.trimap)]
    if evaluation.confusion_crf is not None and evaluation.trimap_crf is not None:
        sides.append(("_crf", evaluation.confusion_crf, evaluation.trimap_crf))
    for ending, confusion, trimap in sides:
        found[f"pixel_accuracy{ending}"] = pixel_accuracy(confusion)
        found[f"mean_class_accuracy{ending}"] = mean_class_accuracy(confusion)
        found[f"frequency_weighted_iou{ending}"] = frequency_weighted_iou(confusion)
        found[f"iou{ending}"] = dict(zip(evaluation.classes.names, iou(confusion).tolist(), strict=True))
        found[f"trimap{ending}"] = [round(score, 6) for score in trimap_iou(trimap).tolist()]
    return found


def default_output(checkpoint_uri: str, split_name: str) -> str:
    """URI of the folder for a report: in the training run that the checkpoint is of, or in the checkpoint itself."""
    place = runs.find(checkpoint_uri)
    run = place.parent
    return f"{run if runs.is_run(run) else place}/evaluation-{split_name}"


def check_output(output: str) -> None:
    """Raise UserError for a folder in which a report cannot be, or which holds a training run."""
    place = locate(output)
    check_access(write=[place])
    record.refuse_others(place)
    if runs.is_run(place):
        raise UserError(f"{place} holds a training run: give another --output, such as {place}/evaluation")


def publish_report(evaluation: Evaluation, output: str) -> str:
    """Write report.html and the recipe as it was measured into the folder `output`; returns the page's URI.

    The journal of the evaluation is no longer needed then, and goes.
    """
    page = write_report(
        EvaluationReport(
            title=f"DeepLab on {evaluation.reader}",
            classes=evaluation.classes,
            images=evaluation.images,
            confusion=evaluation.confusion,
            confusion_crf=evaluation.confusion_crf,
            gallery=evaluation.worst,
            history=evaluation.meta.history,
            settings=as_dict(evaluation.recipe),
            facts={
                "checkpoint": evaluation.checkpoint,
                "data": evaluation.data,
                "iterations": str(evaluation.meta.iteration),
                "evaluated": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
                "time": f"{evaluation.seconds:.0f} s",
                "CRF": "as in the settings" if evaluation.crf else "left out",
            },
            trimap=evaluation.trimap,
            trimap_crf=evaluation.trimap_crf,
            gains=evaluation.gains,
            losses=evaluation.losses,
            errors=[(each.id or each.key, str(each.stage), str(each.reason)) for each in evaluation.errors],
            figure5=evaluation.maps,
        )
    )
    place = locate(output)
    (place / _RECIPE).write_bytes(to_json(evaluation.recipe).encode())
    (place / _PAGE).write_bytes(page.encode())
    (place / PROGRESS).delete_tree()
    return (place / _PAGE).uri
