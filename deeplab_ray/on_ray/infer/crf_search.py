"""Choose the CRF's parameters: one run of the network, and every point of a grid on its scores."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deeplab_ray.config.resources import InferenceResources
from deeplab_ray.crf.params import CRFParams
from deeplab_ray.errors import JobError
from deeplab_ray.images import MAX_PIXELS
from deeplab_ray.inputs import SplitInputs
from deeplab_ray.metrics import mean_iou_of_truth
from deeplab_ray.on_ray.infer.chain import Stage
from deeplab_ray.on_ray.infer.checks import check_search_size
from deeplab_ray.on_ray.infer.evaluate import open_checked
from deeplab_ray.on_ray.infer.stages import Scorer, predict_stage, reread, step
from deeplab_ray.on_ray.infer.work import Todo, Work, find_todo, say
from deeplab_ray.on_ray.resources import plan_pools, plan_refiners
from deeplab_ray.outputs.journal import Done
from deeplab_ray.outputs.stored import open_scores


@dataclass(frozen=True)
class CRFTrial:
    """One point of a CRF search."""

    params: CRFParams
    miou: float
    """Mean IoU with the CRF over the classes of the truth, in 0..1."""


@dataclass(frozen=True)
class CRFSearch:
    """What a search of CRF parameters found."""

    images: int
    before: float
    """The same without the CRF."""
    trials: list[CRFTrial]
    """Best first."""


def search_crf(
    checkpoint_uri: str, data: str, split_name: str, images: int, resources: InferenceResources | None = None
) -> CRFSearch:
    """Mean IoU without the CRF, and with each point of `coarse_grid`, best first, over `images` images of the split.

    Both the network and the upsampling run once an image (section 4.1 of the paper searches on 100 images like
    this). Take a split that you do not report on. Images without a label are passed over.

    Raises UserError for fewer than one image, and as `evaluate.open_checked` does. Ray must be initialised.
    """
    check_search_size(images)
    resources = resources or InferenceResources()
    split, place, meta = open_checked(checkpoint_uri, data, split_name)
    inputs, classes = SplitInputs(split, labelled_only=True), len(split.classes)
    scorer = Scorer.of(place, meta.recipe, classes, resources.batch)
    todo = some(find_todo(inputs), images)
    pools = plan_pools(len(todo), resources)
    grid = coarse_grid(meta.recipe.crf)
    stages = [
        predict_stage(inputs, scorer, pools.predict, MAX_PIXELS),
        Stage("try CRFs", (reread(inputs, MAX_PIXELS), step("TryCRFs", classes, grid)), pools.refine),
    ]
    return _search(stages, todo, grid)


def search_stored(
    scores_uri: str, params: CRFParams, images: int, resources: InferenceResources | None = None
) -> CRFSearch:
    """The same on scores that jobs/predict.py stored (format "scores") with their labels: no network runs.

    params: the centre of the grid. Images without a label are failed ones. Raises UserError for fewer than one image,
    and if there are no scores. Ray must be initialised.
    """
    check_search_size(images)
    inputs = open_scores(scores_uri)
    todo = some(find_todo(inputs), images)
    grid = coarse_grid(params)
    pool = plan_refiners(len(todo), resources or InferenceResources())
    stages = [Stage("try CRFs", (step("ReadScores", inputs), step("TryCRFs", None, grid)), pool)]
    return _search(stages, todo, grid)


def _search(stages: list[Stage], todo: Todo, grid: list[CRFParams]) -> CRFSearch:
    total: NDArray[np.int64] | None = None
    errors: list[Done] = []
    with Work(stages) as work:
        for done, _ in work.run(todo, 1):
            if done.stage is not None:
                errors.append(done)
                continue
            confusions: NDArray[Any] = done.measured["confusions"]
            if total is not None and total.shape != confusions.shape:
                raise JobError(f"{done.id} has scores of another number of classes: store those of one network apart")
            total = confusions.copy() if total is None else total + confusions
    if total is None:
        raise JobError(f"all {len(todo)} images failed, the first: {errors[0].id}: {errors[0].reason}")
    for done in errors:
        say(f"left out: {done.id}: {done.reason}")
    trials = [CRFTrial(params, mean_iou_of_truth(matrix)) for params, matrix in zip(grid, total[1:], strict=True)]
    ranked = sorted(trials, key=lambda trial: -trial.miou)
    return CRFSearch(len(todo) - len(errors), mean_iou_of_truth(total[0]), ranked)


def some(todo: Todo, count: int) -> Todo:
    """So many of the images, at even distances."""
    return replace(todo, keys=todo.keys.take(pa.array(spread(range(len(todo)), count), pa.int64())), ids=None)


def spread(indices: Sequence[int], count: int) -> list[int]:
    """`count` of the indices (all, if there are no more), at even distances."""
    count = min(len(indices), count)
    return [indices[number * len(indices) // count] for number in range(count)]


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
