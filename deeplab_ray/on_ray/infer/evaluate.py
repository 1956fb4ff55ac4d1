"""Measure a checkpoint on a prepared split, before and after the CRF, and write the report.

What is measured is kept in a journal beside the report until that is written: an evaluation that was interrupted
goes on from there when the same is asked for again.
"""

import hashlib
import heapq
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deeplab_ray import runs
from deeplab_ray.config.io import as_dict, to_json
from deeplab_ray.config.recipe import Precision, Recipe
from deeplab_ray.config.resources import InferenceResources
from deeplab_ray.config.scoring import ScoringConfig
from deeplab_ray.crf.params import CRFParams
from deeplab_ray.errors import JobError, UserError
from deeplab_ray.images import MAX_PIXELS, decode_image, decode_label
from deeplab_ray.inputs import SplitInputs
from deeplab_ray.labels import ClassTable
from deeplab_ray.metrics import (
    frequency_weighted_iou,
    iou,
    mean_class_accuracy,
    mean_iou,
    mean_iou_of_truth,
    pixel_accuracy,
    trimap_iou,
)
from deeplab_ray.on_ray.infer.stage import Row
from deeplab_ray.on_ray.infer.stages import Scorer, predict_stage, refine_stage, step
from deeplab_ray.on_ray.infer.work import Todo, Work, find_todo, say, unit_size
from deeplab_ray.on_ray.resources import plan_pools
from deeplab_ray.outputs import record
from deeplab_ray.outputs.journal import PROGRESS, Done, Journal
from deeplab_ray.report import BeliefMaps, EvaluationReport, GalleryRow, ImageGain, write_report
from deeplab_ray.runs import CheckpointMeta
from deeplab_ray.shards import Split, open_split, require_labels
from deeplab_ray.storage.access import check_access
from deeplab_ray.storage.location import Location, locate

_RECIPE, _PAGE = "recipe.json", "report.html"
_RECORD = f"{PROGRESS}/evaluate.json"
GALLERY = 12
"""Images that a report shows: those with the lowest mean IoU before the CRF."""
_LOSSES = 6
"""Images that a report shows since they lost most by the CRF."""
_MAPS = 3
"""Images whose belief maps a report shows, if a class is named."""


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


def open_checked(checkpoint_uri: str, data: str, split_name: str) -> tuple[Split, Location, CheckpointMeta]:
    """The split, the checkpoint's place and its meta data.

    Raises UserError if they do not go together, and if the split has no labelled pixel.
    """
    check_access(read=[locate(checkpoint_uri), locate(data)])
    place = runs.find(checkpoint_uri)
    split = open_split(data, split_name)
    require_labels(split)
    meta = runs.read_meta(place)
    trained_on = f" ({meta.run.train.reader})" if meta.run.train else ""
    reader = split.manifest.reader
    if len(meta.classes) != len(split.classes):
        raise UserError(
            f"the checkpoint {place} predicts {len(meta.classes)} classes{trained_on}, but "
            f"{data} has {len(split.classes)} ({reader}): evaluate on data of the same dataset"
        )
    if meta.classes.names != split.classes.names:
        raise UserError(
            f"the checkpoint {place} predicts other classes{trained_on} than {data} has "
            f"({reader}): evaluate on data of the same dataset"
        )
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
    figure5: int | None
    """Train id of the class whose belief maps are to be shown."""


def check_request(
    checkpoint_uri: str,
    data: str,
    split_name: str,
    crf: CRFParams | Literal["checkpoint"] | None = "checkpoint",
    precision: Precision | None = None,
    scoring: ScoringConfig | None = None,
    figure5: str = "",
) -> Request:
    """Find out all that can be told before Ray starts; what it returns is for `run`.

    crf: parameters, None to leave the CRF out, or "checkpoint" for those of the checkpoint's recipe. precision and
    scoring (scales, mirroring and tiles): None for those of the checkpoint's recipe. figure5: name of the class whose
    belief maps are to be shown.
    Raises UserError as `open_checked` does, for tiles that do not fit the network, and for a class that there is not.
    """
    split, place, meta = open_checked(checkpoint_uri, data, split_name)
    params = meta.recipe.crf if isinstance(crf, str) else crf
    recipe = replace(
        meta.recipe,
        crf=params or meta.recipe.crf,
        precision=precision or meta.recipe.precision,
        scoring=scoring or meta.recipe.scoring,
    )
    if figure5 and figure5 not in split.classes.names:
        raise UserError(f"--figure5 {figure5!r} is no class: take one of {', '.join(split.classes.names)}")
    if figure5 and params is None:
        raise UserError("--figure5 shows the CRF at work: leave out --crf none")
    return Request(split, place, meta, recipe, params, split.classes.names.index(figure5) if figure5 else None)


def run(
    request: Request,
    resources: InferenceResources | None = None,
    gallery: int = GALLERY,
    output: str | None = None,
) -> Evaluation:
    """Score, refine and count every labelled image of the split exactly once. Ray must be initialised.

    resources: None for all that the cluster has. gallery: how many of the worst images to keep for the report; of a
    larger split these are predicted a second time, so that no label of the others ever comes to the driver. output:
    folder for the journal by which an interrupted evaluation goes on; None keeps none.
    Raises UserError for a cluster too small, JobError if no image could be measured.
    """
    started = time.monotonic()
    resources = resources or InferenceResources()
    classes = len(request.split.classes)
    inputs = SplitInputs(request.split, labelled_only=True)
    journal = _journal(request, locate(output)) if output else None
    todo = find_todo(inputs, journal)
    tally = _Tally(classes, gallery, request.crf is not None)
    if journal:
        for done in journal.read():
            tally.add(done)
        if len(todo) < todo.total:
            say(f"{todo.total - len(todo)} of {todo.total} images were measured before the interruption")
    pools = plan_pools(max(1, len(todo)), resources)
    scorer = Scorer.of(request.checkpoint, request.recipe, classes, resources.batch)
    sinks = [step("Measure", classes)]
    if request.figure5 is not None and request.crf:
        sinks.insert(0, step("DrawBeliefs", request.crf))
    stages = [
        predict_stage(inputs, scorer, pools.predict, MAX_PIXELS),
        refine_stage(classes, request.crf, pools.refine, *sinks),
    ]
    few = todo.total <= gallery
    rows: dict[str, Row] = {}
    figures: dict[str, Any] = {}
    with Work(stages) as work:
        unit = unit_size(len(todo), resources.batch, pools.predictor_gpus)
        first = replace(todo, also=_wishes(request) if few else {})
        for done, row in work.run(first, unit, journal, keep=True):
            tally.add(done)
            if row and few:
                rows[done.key] = row
        figures = work.summary.as_result() if work.summary and len(todo) else {}
        shown = [key for key in tally.shown() if key not in rows]
        if shown:
            say(f"{len(shown)} images once more, for the report")
            again = Todo(_strings(shown), None, len(shown), also=_wishes(request))
            rows |= {done.key: row for done, row in work.run(again, 1) if row}
    if not tally.images:
        why = tally.errors[0]
        raise JobError(f"none of {len(tally.errors)} images could be measured, the first: {why.id}: {why.reason}")
    matrices = tally.totals
    return Evaluation(
        classes=request.split.classes,
        reader=request.split.manifest.reader,
        images=tally.images,
        confusion=matrices["confusion"],
        confusion_crf=matrices.get("confusion_crf"),
        trimap=matrices["trimap"],
        trimap_crf=matrices.get("trimap_crf"),
        gains=tally.gains,
        worst=list(_examples(request.split, rows, tally.worst())),
        losses=list(_examples(request.split, rows, tally.losses())),
        maps=list(_maps(request, rows, tally.worst())),
        errors=tally.errors,
        checkpoint=request.checkpoint.uri,
        data=request.split.folder.uri,
        meta=request.meta,
        recipe=request.recipe,
        crf=request.crf,
        seconds=time.monotonic() - started,
        figures=figures,
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
    """`check_request` and `run` in one, without a journal."""
    return run(check_request(checkpoint_uri, data, split_name, crf, precision, scoring), resources, gallery)


class _Tally:
    """Adds up what was measured, and remembers which images to show."""

    def __init__(self, classes: int, gallery: int, with_crf: bool) -> None:
        self.classes, self.gallery, self.with_crf = classes, gallery, with_crf
        self.images = 0
        self.totals: dict[str, NDArray[np.int64]] = {}
        self.gains: list[ImageGain] = []
        self.errors: list[Done] = []
        self._worst: list[tuple[float, str, str]] = []
        self._lost: list[tuple[float, str, str]] = []

    def add(self, done: Done) -> None:
        """Count an image; one that failed is listed."""
        if done.stage is not None:
            self.errors.append(done)
            return
        self.images += 1
        for name, counts in done.measured.items():
            self.totals[name] = counts.astype(np.int64) + self.totals.get(name, 0)
        before = done.measured["confusion"]
        self._keep(self._worst, -float(np.nan_to_num(mean_iou_of_truth(before), nan=1.0)), done, self.gallery)
        if self.with_crf:
            gain = ImageGain(done.id, mean_iou_of_truth(before), mean_iou_of_truth(done.measured["confusion_crf"]))
            self.gains.append(gain)
            if gain.gain < 0 and self.gallery:
                self._keep(self._lost, -gain.gain, done, _LOSSES)

    def worst(self) -> list[str]:
        """Keys of the images with the lowest mean IoU before the CRF, the lowest first."""
        return [key for _, _, key in sorted(self._worst, reverse=True)]

    def losses(self) -> list[str]:
        """Keys of the images that lost most by the CRF, the largest loss first."""
        return [key for _, _, key in sorted(self._lost, reverse=True)]

    def shown(self) -> list[str]:
        """Keys of the images that the report shows, each once."""
        return list(dict.fromkeys([*self.worst(), *self.losses()]))

    @staticmethod
    def _keep(heap: list[tuple[float, str, str]], value: float, done: Done, count: int) -> None:
        heapq.heappush(heap, (value, done.id, done.key))
        if len(heap) > count:
            heapq.heappop(heap)


def _journal(request: Request, output: Location) -> Journal:
    """The journal of the evaluation that was interrupted in this folder if it measured the same; else an empty one."""
    asked = {
        "checkpoint": request.checkpoint.uri,
        "checkpoint_sha256": hashlib.sha256((request.checkpoint / runs.META).read_bytes()).hexdigest(),
        "data": request.split.folder.uri,
        "data_digest": request.split.manifest.digest,
        "crf": asdict(request.crf) if request.crf else None,
        "precision": request.recipe.precision,
        "scoring": as_dict(request.recipe.scoring),
    }
    journal, file = Journal(output), output / _RECORD
    try:
        earlier = record.read(file)
    except UserError:
        earlier = None
    if earlier is None or record.differences(asked, earlier):
        journal.clear()
        file.write_bytes(json.dumps(asked).encode())
    return journal


def _wishes(request: Request) -> Row:
    """What the steps are to keep of an image that is shown."""
    return {"labels": True, "beliefs": request.figure5}


def _strings(keys: Sequence[str]) -> Any:
    import pyarrow as pa

    return pa.array(keys, pa.large_string())


def _examples(split: Split, rows: dict[str, Row], keys: Sequence[str]) -> Iterator[GalleryRow]:
    """Measured rows with their labels, beside the image and the truth as they lie in the shards."""
    for key in keys:
        if key not in rows:
            continue  # it failed when it was predicted once more
        row, sample = rows[key], split.read(int(key))
        assert sample.label is not None
        crf = row.get("network_crf")
        yield GalleryRow(
            id=sample.id,
            image=decode_image(sample.image, max_pixels=None),
            truth=decode_label(sample.label),
            network=decode_label(row["network"]),
            crf=None if crf is None else decode_label(crf),
            miou=mean_iou_of_truth(row["measured"]["confusion"]),
            miou_crf=None if crf is None else mean_iou_of_truth(row["measured"]["confusion_crf"]),
        )


def _maps(request: Request, rows: dict[str, Row], keys: Sequence[str]) -> Iterator[BeliefMaps]:
    """Belief maps of the class that was asked for, of the images in which it has most pixels among those shown."""
    if request.figure5 is None:
        return
    drawn = [rows[key] for key in keys if key in rows and rows[key].get("belief_maps")]
    pixels = {row["key"]: row["measured"]["confusion"][request.figure5].sum() for row in drawn}
    for row in sorted(drawn, key=lambda row: -pixels[row["key"]])[:_MAPS]:
        image = decode_image(request.split.read(int(row["key"])).image, max_pixels=None)
        name = request.split.classes.names[request.figure5]
        yield BeliefMaps(row["id"], name, image, row["belief_maps"])


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
