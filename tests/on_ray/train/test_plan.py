"""How a batch is divided over workers and accumulation steps."""

from typing import Any

import pytest

from deeplab_ray.config.recipe import Recipe, SolverConfig
from deeplab_ray.config.resources import TrainingResources
from deeplab_ray.errors import UserError
from deeplab_ray.models.configs import DeepLabV2Config
from deeplab_ray.on_ray.train.plan import RunPlan, check_division
from deeplab_ray.runs import Provenance
from deeplab_ray.storage.location import locate


def recipe(batch: int) -> Recipe:
    return Recipe(DeepLabV2Config(), solver=SolverConfig(batch=batch))


@pytest.mark.parametrize(
    ("batch", "resources", "sentence"),
    [
        (10, {"workers": 4}, "batch 10 is not divisible by workers × accumulation = 4 × 1: take a batch of 8 or 12"),
        (3, {"workers": 2, "accumulation": 2}, "= 2 × 2: take a batch of 4 or 8"),
        (3, {"workers": 2}, "take a batch of 2 or 4"),
    ],
)
def test_a_batch_that_cannot_be_divided_is_refused_with_two_that_can(
    batch: int, resources: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence) as refusal:
        check_division(recipe(batch), TrainingResources(**resources))
    assert "\n" not in str(refusal.value)
    for offered in str(refusal.value).split("batch of ")[1].split(",")[0].split(" or "):
        check_division(recipe(int(offered)), TrainingResources(**resources))


def test_batch_is_shared_out_over_workers_and_accumulation() -> None:
    run = Provenance(recipe(12), TrainingResources(workers=2, accumulation=3))
    check_division(run.recipe, run.resources)
    plan = RunPlan(run, None, None, locate("s3://bucket/run"))  # no data are needed to divide
    assert (plan.share, plan.micro_batch) == (6, 2)
