"""Measure a checkpoint on a prepared split: mean IoU before and after the CRF, and the report."""

import heapq
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deeplab_ray import runs
from deeplab_ray.config.io import as_dict, to_json
from deeplab_ray.config.recipe import Precision, Recipe
from deeplab_ray.config.resources import InferenceResources
from deeplab_ray.config.scoring import ScoringConfig
from deeplab_ray.crf.params import CRFParams
from deeplab_ray.errors import UserError
from deeplab_ray.images import decode_image, decode_label
from deeplab_ray.labels import ClassTable
from deeplab_ray.metrics import mean_iou
from deeplab_ray.models import checkpoint
from deeplab_ray.models.checkpoint import CheckpointMeta
from deeplab_ray.on_ray.infer import pipeline
from deeplab_ray.on_ray.resources import plan_pools
from deeplab_ray.report import EvaluationReport, GalleryRow, write_report
from deeplab_ray.shards import Split, open_split, require_labels
from deeplab_ray.storage.access import check_access
from deeplab_ray.storage.location import Location, locate

_RECIPE, _PAGE = "recipe.json", "report.html"
GALLERY = 12
"""Images that a report shows: those with the lowest mean IoU before the CRF."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured; confusion matrices are int64 C×C, rows the truth."""

    classes: ClassTable
    reader: str
    """Name of the dataset that the split was prepared from."""
    images: int
    """Number of images measured: all that have a label."""
    confusion: NDArray[np.int64]
    confusion_crf: NDArray[np.int64] | None
    worst: list[GalleryRow]
    checkpoint: str
    data: str
    """URI of the split's folder."""
    meta: CheckpointMeta
    recipe: Recipe
    """The checkpoint's, with the scoring, the precision and the CRF that were measured."""
    crf: CRFParams | None
    seconds: float

    @property
    def miou(self) -> float:
        return mean_iou(self.confusion)

    @property
    def miou_crf(self) -> float | None:
        return None if self.confusion_crf is None else mean_iou(self.confusion_crf)


def open_checked(checkpoint_uri: str, data: str, split_name: str) -> tuple[Split, Location, CheckpointMeta]:
    """The split, the checkpoint's place and its meta data.

    Raises UserError if they do not go together, if the split has no labelled pixel, and if the network cannot be
    loaded, which an actor would try again and again.
    """
    check_access(read=[locate(checkpoint_uri), locate(data)])
    split = open_split(data, split_name)
    require_labels(split)
    place = runs.find(checkpoint_uri)
    meta = checkpoint.read_meta(place)
    trained_on = f" ({meta.run.train.reader})" if meta.run.train else ""
    reader = split.manifest.reader
    if len(meta.classes) != len(split.classes):
        raise UserError(
            f"the checkpoint {place} predicts {len(meta.classes)} classes{trained_on}, but "
            f"{data} has {len(split.classes)} ({reader}): evaluate on data of the same dataset"
        )
    if meta.classes != split.classes.names:
        raise UserError(
            f"the checkpoint {place} predicts other classes{trained_on} than {data} has "
            f"({reader}): evaluate on data of the same dataset"
        )
    checkpoint.load_model(place, meta.recipe.network, len(meta.classes))
    return split, place, meta


@dataclass(frozen=True)
class Request:
    """What is to be measured, and what was found out about it without Ray."""

    split: Split
    checkpoint: Location
    meta: CheckpointMeta
    recipe: Recipe
    """The checkpoint's, with the scoring, the precision and the CRF that are to be measured."""
    crf: CRFParams | None


def check_request(
    checkpoint_uri: str,
    data: str,
    split_name: str,
    crf: CRFParams | Literal["checkpoint"] | None = "checkpoint",
    precision: Precision | None = None,
    scoring: ScoringConfig | None = None,
) -> Request:
    """Find out all that can be told before Ray starts; what it returns is for `run`.

    crf: parameters, None to leave the CRF out, or "checkpoint" for those of the checkpoint's recipe. precision and
    scoring (scales, mirroring and tiles): None for those of the checkpoint's recipe.
    Raises UserError as `open_checked` does, and for tiles that do not fit the network.
    """
    split, place, meta = open_checked(checkpoint_uri, data, split_name)
    params = meta.recipe.crf if isinstance(crf, str) else crf
    recipe = replace(
        meta.recipe,
        crf=params or meta.recipe.crf,
        precision=precision or meta.recipe.precision,
        scoring=scoring or meta.recipe.scoring,
    )
    return Request(split, place, meta, recipe, params)


def run(request: Request, resources: InferenceResources | None = None, gallery: int = GALLERY) -> Evaluation:
    """Score, refine and count every labelled image of the split exactly once. Ray must be initialised.

    resources: None for all that the cluster has. gallery: how many of the worst images to keep for the report; of a
    larger split these are predicted a second time, so that no label of the others ever comes to the driver.
    Raises UserError for a cluster too small.
    """
    started = time.monotonic()
    split, recipe, params = request.split, request.recipe, request.crf
    classes = len(split.classes)
    scorer = pipeline.Scorer(request.checkpoint, recipe.network, classes, recipe.precision, recipe.scoring)

    def measured(indices: Sequence[int], labels: bool) -> Iterator[pipeline.Row]:
        pools = plan_pools(pipeline.blocks(len(indices)), resources or InferenceResources())
        rows = pipeline.score(pipeline.read(split, indices), scorer, pools)
        return pipeline.iterate_once(pipeline.measure(rows, classes, params, pools, labels), len(indices), say)

    labelled = split.labelled()
    all_shown = len(labelled) <= gallery
    total = np.zeros((2, classes, classes), np.int64)
    worst: list[tuple[float, str, int]] = []
    examples: dict[int, pipeline.Row] = {}
    for row in measured(labelled, labels=all_shown):
        matrices = [_matrix(row[name], classes) for name in ("confusion", "confusion_crf") if name in row]
        total[: len(matrices)] += matrices
        heapq.heappush(worst, (-float(np.nan_to_num(mean_iou(matrices[0]), nan=1.0)), row["id"], row["index"]))
        if len(worst) > gallery:
            heapq.heappop(worst)
        if all_shown:
            examples[row["index"]] = row
    shown = [index for _, _, index in sorted(worst, reverse=True)]
    if shown and not all_shown:
        say(f"the {len(shown)} worst images once more, for the report")
        examples = {row["index"]: row for row in measured(shown, labels=True)}
    return Evaluation(
        classes=split.classes,
        reader=split.manifest.reader,
        images=split.manifest.labelled,
        confusion=total[0],
        confusion_crf=total[1] if params else None,
        worst=[_example(split, examples[index]) for index in shown],
        checkpoint=request.checkpoint.uri,
        data=split.folder.uri,
        meta=request.meta,
        recipe=recipe,
        crf=params,
        seconds=time.monotonic() - started,
    )


def evaluate(
    checkpoint_uri: str,
    data: str,
    split_name: str,
    crf: CRFParams | Literal["checkpoint"] | None = "checkpoint",
    precision: Precision | None = None,
    scoring: ScoringConfig | None = None,
    resources: InferenceResources | None = None,
    gallery: int = GALLERY,
) -> Evaluation:
    """`check_request` and `run` in one."""
    return run(check_request(checkpoint_uri, data, split_name, crf, precision, scoring), resources, gallery)


def say(line: str) -> None:
    """Print a line of progress."""
    print(line, file=sys.stderr, flush=True)


def _matrix(data: bytes, classes: int) -> NDArray[np.int64]:
    return np.frombuffer(data, np.int64).reshape(classes, classes)


def _example(split: Split, row: pipeline.Row) -> GalleryRow:
    """A measured row with its labels, beside the image and the truth as they lie in the shards."""
    classes = len(split.classes)
    sample = split.read(row["index"])
    assert sample.label is not None
    crf = row.get("network_crf")
    return GalleryRow(
        id=sample.id,
        image=decode_image(sample.image),
        truth=decode_label(sample.label),
        network=decode_label(row["network"]),
        crf=None if crf is None else decode_label(crf),
        miou=mean_iou(_matrix(row["confusion"], classes)),
        miou_crf=None if crf is None else mean_iou(_matrix(row["confusion_crf"], classes)),
    )


def default_output(checkpoint_uri: str, split_name: str) -> str:
    """URI of the folder for a report: in the training run that the checkpoint is of, or in the checkpoint itself."""
    place = runs.find(checkpoint_uri)
    run = place.parent
    return f"{run if runs.is_run(run) else place}/evaluation-{split_name}"


def check_output(output: str) -> None:
    """Raise UserError for a folder in which a report cannot be, or which holds a training run."""
    place = locate(output)
    check_access(write_files=[place / _RECIPE, place / _PAGE])
    if runs.is_run(place):
        raise UserError(f"{place} holds a training run: give another --output, such as {place}/evaluation")


def publish_report(evaluation: Evaluation, output: str) -> str:
    """Write report.html and the recipe as it was measured into the folder `output`; returns the page's URI."""
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
        )
    )
    place = locate(output)
    (place / _RECIPE).write_bytes(to_json(evaluation.recipe).encode())
    (place / _PAGE).write_bytes(page.encode())
    return (place / _PAGE).uri
