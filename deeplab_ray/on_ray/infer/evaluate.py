"""Measure a checkpoint on a prepared split, before and after the CRF, and write the report.

What is measured is kept in a journal beside the report until that is written: an evaluation that was interrupted
goes on from there when the same is asked for again.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from deeplab_ray import runs
from deeplab_ray.config.io import as_dict
from deeplab_ray.config.recipe import Precision, Recipe
from deeplab_ray.config.resources import InferenceResources
from deeplab_ray.config.scoring import ScoringConfig
from deeplab_ray.crf.params import CRFParams
from deeplab_ray.errors import JobError, UserError
from deeplab_ray.images import MAX_PIXELS, decode_image, decode_label
from deeplab_ray.inputs import SplitInputs
from deeplab_ray.metrics import (
    mean_iou_of_truth,
)
from deeplab_ray.models.meta import read_meta
from deeplab_ray.on_ray.infer.evaluation import Evaluation
from deeplab_ray.on_ray.infer.stage import Row
from deeplab_ray.on_ray.infer.stages import Scorer, predict_stage, refine_stage, reread, step
from deeplab_ray.on_ray.infer.tally import Tally
from deeplab_ray.on_ray.infer.work import Todo, Work, find_todo, say, unit_size
from deeplab_ray.on_ray.resources import plan_pools
from deeplab_ray.outputs import record
from deeplab_ray.outputs.journal import PROGRESS, Journal
from deeplab_ray.report import BeliefMaps, GalleryRow
from deeplab_ray.runs import CheckpointMeta
from deeplab_ray.shards import Split, open_split, require_labels
from deeplab_ray.storage.access import check_access
from deeplab_ray.storage.location import Location, locate

_RECORD = f"{PROGRESS}/evaluate.json"
GALLERY = 12
"""Images that a report shows: those with the lowest mean IoU before the CRF."""
_MAPS = 3
"""Images whose belief maps a report shows, if a class is named."""


def open_checked(checkpoint_uri: str, data: str, split_name: str) -> tuple[Split, Location, CheckpointMeta]:
    """The split, the checkpoint's place and its meta data.

    Raises UserError if they do not go together, and if the split has no labelled pixel.
    """
    check_access(read=[locate(checkpoint_uri), locate(data)])
    place = runs.find(checkpoint_uri)
    split = open_split(data, split_name)
    require_labels(split)
    meta = read_meta(place)
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
    tally = Tally(classes, gallery, request.crf is not None)
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
        refine_stage(reread(inputs, MAX_PIXELS), classes, request.crf, pools.refine, *sinks),
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
