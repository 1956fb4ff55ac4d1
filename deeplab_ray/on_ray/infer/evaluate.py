"""Measure a checkpoint on a prepared split: mean IoU before and after the CRF, and the report."""

import heapq
import io
import sys
import time
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deeplab_ray.config.recipe import CRFParams, InferenceConfig, TestConfig, to_json
from deeplab_ray.datasets.base import Dataset, decode_image
from deeplab_ray.errors import UserError
from deeplab_ray.metrics import mean_iou
from deeplab_ray.models import checkpoint
from deeplab_ray.models.checkpoint import CheckpointMeta
from deeplab_ray.on_ray.infer import pipeline as inference
from deeplab_ray.on_ray.resources import plan_pools
from deeplab_ray.report import EvaluationReport, GalleryRow, write_report
from deeplab_ray.shards import Split, open_split
from deeplab_ray.storage.access import check_access
from deeplab_ray.storage.location import Location, locate

GALLERY = 12
_CONFIG, _PAGE = "config.json", "report.html"


@dataclass(frozen=True)
class Evaluation:
    """What was measured; confusion matrices are int64 C×C, rows the truth."""

    dataset: Dataset
    images: int
    confusion: NDArray[np.int64]
    confusion_crf: NDArray[np.int64] | None
    worst: list[GalleryRow]
    checkpoint: str
    data: str
    """URI of the split's folder."""
    meta: CheckpointMeta
    crf: CRFParams | None
    seconds: float

    @property
    def miou(self) -> float:
        return mean_iou(self.confusion)

    @property
    def miou_crf(self) -> float | None:
        return None if self.confusion_crf is None else mean_iou(self.confusion_crf)


def open_checked(checkpoint_uri: str, data: str, split_name: str) -> tuple[Split, Location, CheckpointMeta]:
    """The split, the checkpoint's place and its meta data; UserError where they do not go together, or where the
    network cannot be loaded, which an actor would try again and again."""
    check_access(read=[locate(checkpoint_uri), locate(data)])
    split = open_split(data, split_name)
    place = checkpoint.find(checkpoint_uri)
    meta = checkpoint.read_meta(place)
    if len(meta.classes) != len(split.dataset.classes):
        raise UserError(
            f"the checkpoint {place} predicts {len(meta.classes)} classes ({meta.config.model.dataset}), but "
            f"{data} has {len(split.dataset.classes)} ({split.dataset.name}): evaluate on data of the same dataset"
        )
    if meta.classes != split.dataset.classes:
        raise UserError(
            f"the checkpoint {place} predicts other classes ({meta.config.model.dataset}) than {data} has "
            f"({split.dataset.name}): evaluate on data of the same dataset"
        )
    checkpoint.load_model(place)
    return split, place, meta


def evaluate(
    checkpoint_uri: str,
    data: str,
    split_name: str,
    crf: CRFParams | str | None = "checkpoint",
    precision: Literal["", "float32", "bfloat16"] = "",
    test: TestConfig | None = None,
    resources: InferenceConfig | None = None,
) -> Evaluation:
    """Score, refine and count every image of the split exactly once. Ray must be initialised.

    crf: parameters, None to leave the CRF out, or "checkpoint" for those of the checkpoint's config. precision:
    "float32" or "bfloat16"; empty: as the checkpoint was trained. test: scales, mirroring and tiles; None for those
    of the checkpoint's config. resources: None for all that the cluster has. Raises UserError for a checkpoint of other
    classes than the data's, and for a cluster too small.
    """
    started = time.monotonic()
    split, place, meta = open_checked(checkpoint_uri, data, split_name)
    test, precision = test or meta.config.test, precision or meta.config.runtime.precision
    runtime = replace(meta.config.runtime, precision=precision)
    meta = replace(meta, config=replace(meta.config, test=test, runtime=runtime))
    params = meta.config.crf if isinstance(crf, str) else crf
    pools = plan_pools(inference.blocks(len(split)), resources or InferenceConfig())
    rows = inference.score(inference.read(split, range(len(split))), place, precision, pools, test)
    rows = inference.measure(rows, split.dataset, params, pools)

    classes = len(split.dataset.classes)
    total = np.zeros((2, classes, classes), np.int64)
    worst: list[tuple[float, str, inference.Row]] = []
    for row in inference.iterate_once(rows, len(split), _say):
        matrices = [_matrix(row[name], classes) for name in ("confusion", "confusion_crf") if name in row]
        total[: len(matrices)] += matrices
        entry = (-float(np.nan_to_num(mean_iou(matrices[0]), nan=1.0)), row["id"], row)
        if len(worst) < GALLERY:
            heapq.heappush(worst, entry)
        else:
            heapq.heappushpop(worst, entry)
    return Evaluation(
        dataset=split.dataset,
        images=len(split),
        confusion=total[0],
        confusion_crf=total[1] if params else None,
        worst=[_example(row, split.dataset) for _, _, row in sorted(worst, reverse=True)],
        checkpoint=place.uri,
        data=split.folder.uri,
        meta=meta,
        crf=params,
        seconds=time.monotonic() - started,
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _matrix(data: bytes, classes: int) -> NDArray[np.int64]:
    return np.frombuffer(data, np.int64).reshape(classes, classes)


def _example(row: inference.Row, dataset: Dataset) -> GalleryRow:
    classes = len(dataset.classes)
    crf = row.get("network_crf")
    return GalleryRow(
        id=row["id"],
        image=decode_image(row["image"]),
        truth=dataset.decode_label(row["label"]),
        network=_label(row["network"]),
        crf=None if crf is None else _label(crf),
        miou=mean_iou(_matrix(row["confusion"], classes)),
        miou_crf=None if crf is None else mean_iou(_matrix(row["confusion_crf"], classes)),
    )


def _label(png: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(png)))


def default_output(checkpoint_uri: str, split_name: str) -> str:
    """URI of the folder for a report: in the training run that the checkpoint is of, or in the checkpoint itself."""
    place = checkpoint.find(checkpoint_uri)
    run = place.parent
    return f"{run if (run / checkpoint.SNAPSHOT).exists() else place}/evaluation-{split_name}"


def check_output(output: str) -> None:
    """Raise UserError for a folder in which a report cannot be, or would replace a training run's config."""
    place = locate(output)
    check_access(write_files=[place / _CONFIG, place / _PAGE])
    if (place / checkpoint.SNAPSHOT).exists():
        raise UserError(f"{place} holds a training run: give another --output, such as {place}/evaluation")


def publish_report(evaluation: Evaluation, output: str) -> str:
    """Write report.html and the CRF's and the run's config into the folder `output`; returns the page's URI."""
    config = replace(evaluation.meta.config, crf=evaluation.crf or evaluation.meta.config.crf)
    page = write_report(
        EvaluationReport(
            title=f"DeepLab on {evaluation.dataset.name}",
            dataset=evaluation.dataset,
            images=evaluation.images,
            confusion=evaluation.confusion,
            confusion_crf=evaluation.confusion_crf,
            gallery=evaluation.worst,
            history=evaluation.meta.history,
            settings=asdict(config),
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
    (place / _CONFIG).write_bytes(to_json(config).encode())
    (place / _PAGE).write_bytes(page.encode())
    return (place / _PAGE).uri


@dataclass(frozen=True)
class CRFTrial:
    """One point of a CRF search."""

    params: CRFParams
    miou: float
    """Mean IoU with the CRF, in 0..1."""


@dataclass(frozen=True)
class CRFSearch:
    """What a search of CRF parameters found."""

    images: int
    before: float
    """Mean IoU without the CRF, in 0..1."""
    trials: list[CRFTrial]
    """Best first."""


def search_crf(
    checkpoint_uri: str, data: str, split_name: str, images: int, resources: InferenceConfig | None = None
) -> CRFSearch:
    """Mean IoU without the CRF, and with each point of `coarse_grid`, best first, over `images` images of the split.

    Both the network and the upsampling run once an image (section 4.1 of the paper searches on 100 images like
    this). Take a split that you do not report on.
    """
    if images < 1:
        raise UserError(f"--images {images} leaves nothing to search on: take at least 1, such as 100")
    split, place, meta = open_checked(checkpoint_uri, data, split_name)
    grid = coarse_grid(meta.config.crf)
    indices = spread(len(split), images)
    pools = plan_pools(inference.blocks(len(indices)), resources or InferenceConfig())
    rows = inference.score(inference.read(split, indices), place, meta.config.runtime.precision, pools)
    rows = inference.try_crfs(rows, split.dataset, grid, pools)
    classes = len(split.dataset.classes)
    total = np.zeros((1 + len(grid), classes, classes), np.int64)
    for row in inference.iterate_once(rows, len(indices), _say):
        total += np.frombuffer(row["confusions"], np.int64).reshape(total.shape)
    trials = [CRFTrial(params, mean_iou(matrix)) for params, matrix in zip(grid, total[1:], strict=True)]
    return CRFSearch(len(indices), mean_iou(total[0]), sorted(trials, key=lambda trial: -trial.miou))


def spread(size: int, count: int) -> list[int]:
    """`count` indices (all, where there are no more) at even distances over range(size)."""
    count = min(size, count)
    return [index * size // count for index in range(count)]


def format_crf_search(search: CRFSearch) -> str:
    """The search as a table, best first, under the network alone."""
    lines = [f"{'w1':>4}{'σα':>6}{'σβ':>5}{'mIoU %':>9}{'gain':>7}", f"{'network':<15}{100 * search.before:>9.2f}"]
    for trial in search.trials:
        point = f"{trial.params.w1:>4g}{trial.params.sigma_alpha:>6g}{trial.params.sigma_beta:>5g}"
        lines.append(f"{point}{100 * trial.miou:>9.2f}{100 * (trial.miou - search.before):>+7.2f}")
    return "\n".join(lines)


def coarse_grid(params: CRFParams) -> list[CRFParams]:
    """A coarse version of the paper's search around `params`: w1, σα and σβ, at fixed w2 and σγ.

    The paper searches w1 in 3..6, σα in 30..100, σβ in 3..6; weaker networks want less of it.
    """
    return [
        replace(params, w1=w1, sigma_alpha=alpha, sigma_beta=beta)
        for w1 in (1.0, 2.0, 4.0)
        for alpha in (10.0, 20.0, 40.0, 80.0)
        for beta in (3.0, 6.0)
    ]
