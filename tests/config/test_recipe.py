"""Recipes: nonsense is refused with a way out."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from deeplab_ray.config.network import NetworkConfig
from deeplab_ray.config.recipe import AugmentConfig, Recipe, SolverConfig
from deeplab_ray.config.scoring import ScoringConfig
from deeplab_ray.crf.params import CRFParams
from deeplab_ray.errors import UserError
from deeplab_ray.models.configs import DeepLabV2Config, FCNConfig

DEEPLAB, FCN = DeepLabV2Config(), FCNConfig()

NONSENSE: list[tuple[Callable[[], Any], str]] = [
    (lambda: SolverConfig(learning_rate=-1e-3), r"learning rate -0\.001 must be a number above 0"),
    (lambda: SolverConfig(learning_rate=0), "learning rate 0 must be a number above 0"),
    (lambda: SolverConfig(learning_rate=float("nan")), "learning rate nan must be a number above 0"),
    (lambda: SolverConfig(learning_rate="1e-3"), "learning_rate '1e-3' is not of type float"),
    (lambda: SolverConfig(policy="cosine"), "policy 'cosine' is not of type .*poly.*step.*fixed"),
    (lambda: SolverConfig(weight_decay=float("inf")), "weight_decay inf must be finite"),
    (lambda: Recipe(DEEPLAB, precision="fp16"), "precision 'fp16' is not of type"),
    (lambda: Recipe(DEEPLAB, seed=-1), "seed -1 must lie in"),
    (lambda: Recipe("deeplab_v2"), "network 'deeplab_v2' is not of type NetworkConfig"),
    (lambda: SolverConfig(classifier_factor=0), "classifier_factor 0 must be above 0"),
    (lambda: AugmentConfig(small_scale=0.0), r"small_scale 0\.0 must lie in \(0, 1\]"),
    (lambda: AugmentConfig(small_share=1.5), r"small_share 1\.5 must lie in \[0, 1\]"),
    (lambda: SolverConfig(class_balance=-1.0), r"class_balance -1\.0 must lie in \[0, 1\]"),
    (lambda: SolverConfig(power=-0.9), r"power -0\.9 must not be negative"),
    (lambda: SolverConfig(step_every=0), "step_every 0 must be at least 1"),
    (lambda: SolverConfig(step_factor=1.5), r"step_factor 1\.5 must lie in \(0, 1\]"),
    (lambda: SolverConfig(iterations=0), "iterations 0 must be at least 1"),
    (lambda: SolverConfig(batch=0), "batch 0 must be at least 1"),
    (lambda: SolverConfig(momentum=1.0), r"momentum 1\.0 must lie in \[0, 1\)"),
    (lambda: SolverConfig(weight_decay=-5e-4), "weight decay -0.0005 must not be negative"),
    (lambda: SolverConfig(warmup=-1), "warmup -1 must not be negative"),
    (lambda: SolverConfig(nesterov=True, momentum=0), "nesterov needs a momentum above 0"),
    (lambda: AugmentConfig(scale_min=0), "need 0 < scale_min <= scale_max"),
    (lambda: AugmentConfig(scale_min=2, scale_max=1), "need 0 < scale_min <= scale_max"),
    (lambda: Recipe(DEEPLAB, AugmentConfig(crop=320)), r"crop 320 .*≡ 1 \(mod 8\), such as 313 or 321"),
    (lambda: Recipe(DEEPLAB, AugmentConfig(crop=9)), "such as 17 or 25"),
    (lambda: Recipe(DEEPLAB, AugmentConfig(crop=-7)), "such as 17 or 25"),
    (
        lambda: Recipe(FCN, AugmentConfig(crop=16)),
        "crop 16 does not fit the network: .* at least 17 pixels, such as 17",
    ),
    (lambda: Recipe(DEEPLAB, scoring=ScoringConfig(tile=512)), r"tile 512 .*≡ 1 \(mod 8\), such as 505 or 513"),
    (lambda: CRFParams(w1=-1), "must not be negative"),
    (lambda: CRFParams(sigma_beta=0), "sigma_beta=0 must be above 0"),
    (lambda: CRFParams(iterations=0), "CRF iterations 0 must be at least 1"),
]


@pytest.mark.parametrize(("make", "sentence"), NONSENSE, ids=[sentence[:30] for _, sentence in NONSENSE])
def test_nonsense_is_refused_in_one_line(make: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as refusal:
        make()
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("crop", range(17, 60))
def test_sizes_that_a_refused_crop_is_offered_are_taken(crop: int) -> None:
    try:
        Recipe(DEEPLAB, AugmentConfig(crop=crop))
    except UserError as error:
        lower, upper = (int(word) for word in str(error).split("such as ")[1].split(" or "))
        assert lower < crop < upper
        Recipe(DEEPLAB, AugmentConfig(crop=lower))
        Recipe(DEEPLAB, AugmentConfig(crop=upper))
    else:
        assert crop % 8 == 1


def test_a_network_without_a_grid_takes_crops_and_tiles_of_any_size() -> None:
    recipe = Recipe(FCN, AugmentConfig(crop=320), scoring=ScoringConfig(tile=512))
    assert (recipe.augment.crop, recipe.scoring.tile) == (320, 512)


@pytest.mark.parametrize(
    ("network", "crop", "small"),
    [(DEEPLAB, 17, 17), (DEEPLAB, 33, 25), (DEEPLAB, 97, 65), (DEEPLAB, 321, 217), (FCN, 17, 17), (FCN, 101, 68)],
)
def test_the_first_iterations_see_smaller_crops_of_smaller_images(
    network: NetworkConfig, crop: int, small: int
) -> None:
    recipe = Recipe(network, AugmentConfig(crop, 0.5, 1.5, small_share=0.3), SolverConfig(iterations=10))
    seen = [recipe.augmentation(iteration) for iteration in range(10)]
    assert recipe.small_iterations == 3
    assert [augment.crop for augment in seen] == 3 * [small] + 7 * [crop]
    for augment in seen:
        assert augment.scale_max / augment.crop == pytest.approx(1.5 / crop)
        assert augment.scale_min / augment.crop == pytest.approx(0.5 / crop)


def test_recipes_are_frozen() -> None:
    for config, name in ((SolverConfig(), "batch"), (Recipe(DEEPLAB), "seed"), (DEEPLAB, "head")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(config, name, 1)


def test_the_defaults_are_the_papers() -> None:
    recipe = Recipe(DEEPLAB)
    assert (recipe.augment.crop, recipe.solver.batch, recipe.solver.iterations) == (321, 10, 20_000)
    assert (recipe.solver.policy, recipe.solver.power, recipe.solver.learning_rate) == ("poly", 0.9, 2.5e-4)
    assert (recipe.network.backbone, recipe.network.head, recipe.network.batch_norm) == (
        "resnet101",
        "aspp-l",
        "frozen",
    )
