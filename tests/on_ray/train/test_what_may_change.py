"""What a run that goes on may change: compared without Ray."""

from dataclasses import replace

import pytest

from deeplab_ray.config.recipe import AugmentConfig, Recipe, SolverConfig
from deeplab_ray.config.resources import TrainingResources
from deeplab_ray.crf.params import CRFParams
from deeplab_ray.errors import UserError
from deeplab_ray.models.configs import DeepLabV2Config, FCNConfig
from deeplab_ray.on_ray.train.resume import check_same_run
from deeplab_ray.runs import DataRecord, Provenance

DATA = DataRecord("s3://b/set/train", "train", "scenes", 12, "a" * 64)
RECIPE = Recipe(DeepLabV2Config("resnet18", "largefov", weights="random", strides="caffe", input="torchvision"))
STARTED = Provenance(RECIPE, TrainingResources(), DATA, replace(DATA, split="val", digest="b" * 64))


def differences(asked: Provenance) -> list[str]:
    with pytest.raises(UserError, match=r"^the run at OUTPUT has .*: go on with that, or start another") as refusal:
        check_same_run(asked, STARTED, "OUTPUT")
    text = str(refusal.value)
    return text.removeprefix("the run at OUTPUT has ").split(": go on with that")[0].split("; ")


def test_nothing_changed_is_nothing_said() -> None:
    assert check_same_run(STARTED, STARTED, "OUTPUT") == []


def test_what_is_left_open_is_as_the_run_has_it() -> None:
    network = DeepLabV2Config("resnet18", "largefov", weights="elsewhere.pth")  # strides and input are "auto"
    assert check_same_run(replace(STARTED, recipe=replace(RECIPE, network=network)), STARTED, "OUTPUT") == []
    other = replace(network, strides="torchvision")
    assert differences(replace(STARTED, recipe=replace(RECIPE, network=other))) == [
        "network.strides caffe, not torchvision"
    ]


def test_resources_the_crf_and_where_data_lie_may_change() -> None:
    asked = replace(
        STARTED,
        recipe=replace(RECIPE, crf=CRFParams(w1=7)),
        resources=TrainingResources(workers=8, accumulation=2, log_every=3, validate_every=7, keep_checkpoints=9),
        train=replace(DATA, uri="/elsewhere/train"),
        validation=None,
    )
    assert check_same_run(asked, STARTED, "OUTPUT") == []


def test_the_schedule_may_change_and_is_told() -> None:
    solver = SolverConfig(learning_rate=1e-3, iterations=30_000, policy="step", warmup=5)
    told = check_same_run(replace(STARTED, recipe=replace(RECIPE, solver=solver)), STARTED, "OUTPUT")
    assert told == [
        "solver.iterations 20000, not 30000",
        "solver.learning_rate 0.00025, not 0.001",
        "solver.policy poly, not step",
        "solver.warmup 0, not 5",
    ]


def test_every_difference_that_changes_the_result_is_named() -> None:
    recipe = replace(
        RECIPE,
        augment=AugmentConfig(crop=329, scale_max=2.0, mirror=False),
        solver=SolverConfig(batch=12, momentum=0.8),
        train_split="trainval",
        seed=3,
    )
    asked = replace(STARTED, recipe=recipe, train=replace(DATA, digest="c" * 64, images=13))
    assert differences(asked) == [
        "augment.crop 321, not 329",
        "augment.mirror True, not False",
        "augment.scale_max 1.5, not 2.0",
        "seed 0, not 3",
        "solver.batch 10, not 12",
        "solver.momentum 0.9, not 0.8",
        "train_split train, not trainval",
        "train data of digest aaaaaaaaaaaa (s3://b/set/train, 12 images), "
        "not cccccccccccc (s3://b/set/train, 13 images)",
    ]


def test_another_network_is_another_run() -> None:
    named = differences(replace(STARTED, recipe=replace(RECIPE, network=FCNConfig("8s"))))
    assert "network.name deeplab_v2, not fcn" in named
