"""A search over training settings: trials nested in Tune on a real cluster, and what is refused beforehand."""

import dataclasses
import json
import time
from pathlib import Path

import pytest
import tiny

from deeplab_ray import runs
from deeplab_ray.config.recipe import Recipe
from deeplab_ray.config.resources import TrainingResources
from deeplab_ray.config.search import SearchConfig
from deeplab_ray.errors import UserError
from deeplab_ray.models.networks.deeplab_v2 import resolve
from deeplab_ray.on_ray.train import driver as trainer
from deeplab_ray.on_ray.tune import search as tuning
from deeplab_ray.on_ray.tune.space import check_request
from deeplab_ray.presets import lookup as presets
from deeplab_ray.storage.location import locate

RECIPE, RESOURCES = tiny.recipe(iterations=4), tiny.resources(workers=2)
SEARCH = SearchConfig(trials=2, batches=(2, 4), learning_rate_min=1e-4, learning_rate_max=1e-2, reports=2, concurrent=2)


@pytest.mark.slow
def test_a_search_ends_and_its_best_configuration_trains(
    prepared_scenes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Trials run in other working directories, where a relative path would lead astray.
    locate(prepared_scenes).download(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    output = "s3://tests/searches/1"
    trials, best = search(RECIPE, RESOURCES, SEARCH, "data", output)
    assert best == f"{output}/best.json"
    assert len(trials) == len({(trial.name, trial.learning_rate, trial.power) for trial in trials}) == 2
    assert [trial.miou for trial in trials] == sorted((trial.miou for trial in trials), reverse=True)
    # Reports come after 2 and 4 iterations; the successive halving lets at least one trial go on to the end.
    assert {trial.iterations for trial in trials} <= {2, 4}
    assert max(trial.iterations for trial in trials) == 4
    for trial in trials:
        assert 1e-4 <= trial.learning_rate <= 1e-2
        assert trial.batch in (2, 4)
        meta = runs.read_meta(runs.find(f"{output}/trials/{trial.name}"))
        solver = meta.recipe.solver
        assert (solver.learning_rate, solver.batch, solver.power) == (trial.learning_rate, trial.batch, trial.power)
        assert trial.miou in [record.get("miou") for record in meta.history]
    table = json.loads(locate(f"{output}/trials.json").read_bytes())
    assert table == [dataclasses.asdict(trial) for trial in trials]
    assert all(trial.name in tuning.format_trials(trials) for trial in trials)

    with pytest.raises(UserError, match=f"{output} already holds a search: give another --output"):
        search(RECIPE, RESOURCES, SEARCH, prepared_scenes, output)

    recipe = presets.start(["scenes-resnet18-largefov", "--config", best]).recipe
    expected = dataclasses.replace(
        RECIPE.solver, learning_rate=trials[0].learning_rate, batch=trials[0].batch, power=trials[0].power
    )
    assert recipe.solver == expected
    assert recipe == dataclasses.replace(RECIPE, network=resolve(RECIPE.network), solver=expected)
    result = trainer.train(recipe, tiny.resources(), prepared_scenes, f"{output}/retrained")
    assert result.iterations == 4
    assert presets.load_recipe(f"{output}/retrained/run.json") == recipe


def search(
    recipe: Recipe, resources: TrainingResources, config: SearchConfig, data: str, output: str
) -> tuple[list[tuning.Trial], str]:
    return tuning.run(check_request(recipe, resources, config, data, output))


def test_a_search_that_the_cluster_cannot_hold_is_refused_at_once_with_the_arithmetic(prepared_scenes: str) -> None:
    output = "s3://tests/searches/2"
    big = dataclasses.replace(RECIPE, solver=dataclasses.replace(RECIPE.solver, batch=64))
    many = dataclasses.replace(RESOURCES, workers=64)
    started = time.monotonic()
    with pytest.raises(UserError, match=r"64 × 0\.5 CPU, and 1 CPU must be left to feed them; it has 8 CPU"):
        search(big, many, dataclasses.replace(SEARCH, batches=(64,)), prepared_scenes, output)
    # Each of three trials alone would fit, three together do not.
    three, wide = (
        dataclasses.replace(SEARCH, trials=3, concurrent=3),
        dataclasses.replace(RESOURCES, cpus_per_worker=1.0),
    )
    with pytest.raises(UserError, match=r"3 trial\(s\) at once: each needs 2 × 1 CPU .* = 3\.1 CPU, .* has 8: lower"):
        search(RECIPE, wide, three, prepared_scenes, output)
    growing = dataclasses.replace(RESOURCES, autoscaling=True)
    with pytest.raises(UserError, match="no GPU yet, but with --autoscaling it may get some: pass --gpus-per-worker 1"):
        search(RECIPE, growing, SEARCH, prepared_scenes, output)
    beyond, gpus = (
        dataclasses.replace(SEARCH, concurrent=9, trials=1),
        dataclasses.replace(RESOURCES, gpus_per_worker=1),
    )
    with pytest.raises(UserError, match=r"2 × 0\.5 CPU and 2 × 1 GPU, .* it has 8 CPU and 0 GPU"):
        search(RECIPE, gpus, beyond, prepared_scenes, output)
    assert time.monotonic() - started < 10
    assert locate(output).files(recursive=True) == []


def test_what_can_be_told_without_ray_is_told_at_once(prepared_scenes: str) -> None:
    output = "s3://tests/searches/2"
    with pytest.raises(UserError, match=r"batch 3 is not divisible by workers × accumulation = 2 × 1: take a batch of"):
        check_request(RECIPE, RESOURCES, dataclasses.replace(SEARCH, batches=(4, 3)), prepared_scenes, output)
    lost = dataclasses.replace(RECIPE, network=dataclasses.replace(RECIPE.network, weights="lost.pth"))
    with pytest.raises(UserError, match=r"no weights at lost\.pth"):
        check_request(lost, RESOURCES, SEARCH, prepared_scenes, output)
    elsewhere = dataclasses.replace(RECIPE, validation_split="test")
    with pytest.raises(UserError, match="no prepared split 'test'"):
        check_request(elsewhere, RESOURCES, SEARCH, prepared_scenes, output)
    assert locate(output).files(recursive=True) == []
