"""Choose the CRF's parameters: one run of the network, and every point of a grid on its scores."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from deeplab_ray.config.resources import InferenceResources
from deeplab_ray.crf.params import CRFParams
from deeplab_ray.metrics import mean_iou
from deeplab_ray.on_ray.infer import pipeline
from deeplab_ray.on_ray.infer.checks import check_search_size
from deeplab_ray.on_ray.infer.evaluate import open_checked, say
from deeplab_ray.on_ray.resources import plan_pools


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
    checkpoint_uri: str, data: str, split_name: str, images: int, resources: InferenceResources | None = None
) -> CRFSearch:
    """Mean IoU without the CRF, and with each point of `coarse_grid`, best first, over `images` images of the split.

    Both the network and the upsampling run once an image (section 4.1 of the paper searches on 100 images like
    this). Take a split that you do not report on. Images without a label are passed over.

    Raises UserError for fewer than one image, and as `evaluate.open_checked` does. Ray must be initialised.
    """
    check_search_size(images)
    split, place, meta = open_checked(checkpoint_uri, data, split_name)
    grid = coarse_grid(meta.recipe.crf)
    indices = spread(split.labelled(), images)
    pools = plan_pools(pipeline.blocks(len(indices)), resources or InferenceResources())
    recipe = meta.recipe
    scorer = pipeline.Scorer(place, recipe.network, len(split.classes), recipe.precision, recipe.scoring)
    rows = pipeline.score(pipeline.read(split, indices), scorer, pools)
    rows = pipeline.try_crfs(rows, len(split.classes), grid, pools)
    classes = len(split.classes)
    total = np.zeros((1 + len(grid), classes, classes), np.int64)
    for row in pipeline.iterate_once(rows, len(indices), say):
        total += np.frombuffer(row["confusions"], np.int64).reshape(total.shape)
    trials = [CRFTrial(params, mean_iou(matrix)) for params, matrix in zip(grid, total[1:], strict=True)]
    return CRFSearch(len(indices), mean_iou(total[0]), sorted(trials, key=lambda trial: -trial.miou))


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
