"""A search over training settings: trials nested in Tune on a real cluster, and what is refused beforehand."""

import dataclasses
import json
import time
from pathlib import Path

import pytest
import tiny

from deeplab_ray.config.recipe import Config, SearchConfig, from_json
from deeplab_ray.errors import UserError
from deeplab_ray.models import checkpoint
from deeplab_ray.models.networks.deeplab_v2 import resolve
from deeplab_ray.on_ray.train import driver as trainer
from deeplab_ray.on_ray.tune import search as tuning
from deeplab_ray.presets import paper as presets
from deeplab_ray.storage.location import locate

CONFIG = tiny.config(iterations=4, workers=2)
SEARCH = SearchConfig(trials=4, batches=(2, 4), learning_rate_min=1e-4, learning_rate_max=1e-2, reports=2, concurrent=2)


@pytest.mark.slow
def test_a_search_ends_and_its_best_configuration_trains(
    prepared_scenes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Trials run in other working directories, where a relative path would lead astray.
    locate(prepared_scenes).download(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    output = "s3://tests/searches/1"
    trials, best = tuning.run(CONFIG, SEARCH, "data", output)
    assert best == f"{output}/best.json"
    assert len(trials) == len({(trial.name, trial.learning_rate, trial.power) for trial in trials}) == 4
    assert [trial.miou for trial in trials] == sorted((trial.miou for trial in trials), reverse=True)
    # Reports come after 2 and 4 iterations; the successive halving lets at least one trial go on to the end.
    assert {trial.iterations for trial in trials} <= {2, 4}
    assert max(trial.iterations for trial in trials) == 4
    for trial in trials:
        assert 1e-4 <= trial.learning_rate <= 1e-2
        assert trial.batch in (2, 4)
        meta = checkpoint.read_meta(checkpoint.find(f"{output}/trials/{trial.name}"))
        solver = meta.config.solver
        assert (solver.learning_rate, solver.batch, solver.power) == (trial.learning_rate, trial.batch, trial.power)
        assert trial.miou in [record.get("miou") for record in meta.history]
    table = json.loads(locate(f"{output}/trials.json").read_bytes())
    assert table == [dataclasses.asdict(trial) for trial in trials]
    assert all(trial.name in tuning.format_trials(trials) for trial in trials)

    with pytest.raises(UserError, match=f"{output} already holds a search: give another --output"):
        tuning.run(CONFIG, SEARCH, prepared_scenes, output)

    _, config, argv = presets.from_arguments(["scenes-resnet18-largefov", "--config", best])
    assert argv[0] == "scenes-resnet18-largefov"
    expected = dataclasses.replace(
        CONFIG.solver, learning_rate=trials[0].learning_rate, batch=trials[0].batch, power=trials[0].power
    )
    assert config.solver == expected
    assert (config.model, config.augment, config.crf) == (resolve(CONFIG.model), CONFIG.augment, CONFIG.crf)
    result = trainer.run(config, prepared_scenes, f"{output}/retrained")
    assert result.iterations == 4
    assert from_json(locate(f"{output}/retrained/config.json").read_bytes().decode(), Config) == config


def test_a_search_that_the_cluster_cannot_hold_is_refused_at_once_with_the_arithmetic(prepared_scenes: str) -> None:
    many = dataclasses.replace(
        CONFIG,
        solver=dataclasses.replace(CONFIG.solver, batch=64),
        runtime=dataclasses.replace(CONFIG.runtime, workers=64),
    )
    started = time.monotonic()
    with pytest.raises(UserError, match=r"64 × 0\.5 CPU, and 1 CPU must be left to feed them; it has 8 CPU"):
        tuning.run(many, dataclasses.replace(SEARCH, batches=(64,)), prepared_scenes, "s3://tests/searches/2")
    # Each of three trials alone would fit, three together do not.
    three = dataclasses.replace(SEARCH, concurrent=3)
    wide = dataclasses.replace(CONFIG, runtime=dataclasses.replace(CONFIG.runtime, cpus_per_worker=1.0))
    with pytest.raises(UserError, match=r"3 trial\(s\) at once: each needs 2 × 1 CPU .* = 3\.1 CPU, .* has 8: lower"):
        tuning.run(wide, three, prepared_scenes, "s3://tests/searches/2")
    with pytest.raises(UserError, match=r"batch 3 is not divisible by workers × accumulation = 2 × 1: take a batch of"):
        tuning.run(CONFIG, dataclasses.replace(SEARCH, batches=(4, 3)), prepared_scenes, "s3://tests/searches/2")
    growing = dataclasses.replace(CONFIG, runtime=dataclasses.replace(CONFIG.runtime, autoscaling=True))
    with pytest.raises(UserError, match="no GPU yet, and with --autoscaling some may come: pass --gpus-per-worker 1"):
        tuning.run(growing, SEARCH, prepared_scenes, "s3://tests/searches/2")
    beyond = dataclasses.replace(SEARCH, concurrent=9, trials=1)
    gpus = dataclasses.replace(CONFIG, runtime=dataclasses.replace(CONFIG.runtime, gpus_per_worker=1))
    with pytest.raises(UserError, match=r"2 × 0\.5 CPU and 2 × 1 GPU, .* it has 8 CPU and 0 GPU"):
        tuning.run(gpus, beyond, prepared_scenes, "s3://tests/searches/2")
    camvid = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, dataset="camvid"))
    with pytest.raises(UserError, match="was prepared from 'scenes', but the preset is for 'camvid'"):
        tuning.run(camvid, SEARCH, prepared_scenes, "s3://tests/searches/2")
    lost = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, weights="lost.pth"))
    with pytest.raises(UserError, match=r"lost\.pth"):
        tuning.run(lost, SEARCH, prepared_scenes, "s3://tests/searches/2")
    assert time.monotonic() - started < 10
    assert locate("s3://tests/searches/2").files(recursive=True) == []
