"""Search the learning rate, the batch size and the power of the poly policy: Ray Train nested under Ray Tune.

Each trial is a driver that takes a sliver of a CPU and runs a whole DDP training (`training.trainer.run`) of its
own beside it. How many run at once is computed from what the cluster holds, because trials that wait for each
other's CPUs would wait for ever.
"""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.basic_variant import BasicVariantGenerator

from deeplab_ray.config.recipe import Config, SearchConfig, to_json
from deeplab_ray.errors import UserError
from deeplab_ray.on_ray.resources import CPUS_FOR_DATA, check_workers_fit, gpus_per_worker, workers_that_fit
from deeplab_ray.on_ray.train import driver as trainer
from deeplab_ray.storage.access import check_access
from deeplab_ray.storage.location import locate

_DRIVER_CPUS = 0.1
_BEST = "best.json"
_TABLE = "trials.json"


@dataclass(frozen=True)
class Trial:
    """One configuration that was tried."""

    name: str
    learning_rate: float
    batch: int
    power: float
    iterations: int
    """Iterations done when it ended or was stopped."""
    miou: float
    """Its last validation mean IoU, in 0..1."""


def concurrent_trials(config: Config, search: SearchConfig) -> int:
    """How many trials may run at once; UserError, with the arithmetic, for a cluster too small.

    On a cluster that grows by itself (`autoscaling`), as many as asked for.
    """
    check_workers_fit(config.runtime)
    wanted = min(search.concurrent or search.trials, search.trials)
    if config.runtime.autoscaling:
        return wanted
    fits = 0
    for number in range(1, wanted + 1):
        if workers_that_fit(config.runtime, number) >= number * config.runtime.workers:
            fits = number
    # The drivers' slivers come on top of the workers' CPUs.
    each = config.runtime.workers * config.runtime.cpus_per_worker + CPUS_FOR_DATA + _DRIVER_CPUS
    total = ray.cluster_resources().get("CPU", 0.0)
    fits = min(fits, int(total / each + 1e-6))
    if fits < (wanted if search.concurrent else 1):
        gpus = gpus_per_worker(config.runtime)
        on_gpus = f" and {config.runtime.workers} × {gpus:g} GPU" if gpus else ""
        held = f" CPU and {ray.cluster_resources().get('GPU', 0):g} GPU" if gpus else ""
        raise UserError(
            f"the cluster cannot hold {wanted if search.concurrent else 1} trial(s) at once: each needs "
            f"{config.runtime.workers} × {config.runtime.cpus_per_worker:g} CPU for workers + {CPUS_FOR_DATA:g} for "
            f"data + {_DRIVER_CPUS:g} for its driver = {each:g} CPU{on_gpus}, and the cluster has {total:g}{held}: "
            "lower --workers, --cpus-per-worker or --concurrent, or add nodes"
        )
    return fits


def check_space(config: Config, search: SearchConfig) -> None:
    """Refuse, before anything runs, batches that the workers cannot share."""
    for batch in search.batches:
        _with(config, {"learning_rate": search.learning_rate_min, "batch": batch, "power": 1.0})


def run(config: Config, search: SearchConfig, data: str, output: str) -> tuple[list[Trial], str]:
    """Run the search; returns the trials, best first, and the URI of best.json (a whole Config).

    Every trial trains on the split "train" of `data` and is judged on "val"; ASHA stops the worse ones early.
    Ray must be initialised. Raises UserError for a search that the cluster cannot hold.
    """
    place = locate(output)
    check_access(read=[locate(data)], write=[place])
    check_space(config, search)
    train, _ = (trainer.open_fitting(data, split, config) for split in ("train", "val"))
    if (place / _BEST).exists():
        raise UserError(f"{output} already holds a search: give another --output")
    at_once = concurrent_trials(config, search)
    config = trainer.checked_weights(config, train)
    print(f"{search.trials} trials of {config.runtime.workers} workers, {at_once} at a time", flush=True)
    every = max(1, config.solver.iterations // search.reports)
    config = dataclasses.replace(
        config, runtime=dataclasses.replace(config.runtime, validate_every=every, checkpoint_every=every)
    )

    # A driver's working directory is another.
    source = locate(data).uri

    def driver(point: dict[str, Any]) -> None:
        name = tune.get_context().get_trial_id()
        result = trainer.run(
            _with(config, point), source, f"{place.uri}/trials/{name}", callbacks=(TuneReportCallback(),)
        )
        # An inner run that was already finished has reported nothing to this driver.
        tune.report({"iteration": result.iterations, "miou": result.miou})

    tuner = tune.Tuner(
        tune.with_resources(driver, {"cpu": _DRIVER_CPUS}),
        param_space={
            "learning_rate": tune.loguniform(search.learning_rate_min, search.learning_rate_max),
            "batch": tune.choice(list(search.batches)),
            "power": tune.uniform(search.power_min, search.power_max),
        },
        run_config=tune.RunConfig(
            name="tune",
            storage_path=place.path,
            storage_filesystem=place.filesystem if place.is_s3 else None,
            verbose=0,
        ),
        tune_config=tune.TuneConfig(
            metric="miou",
            mode="max",
            num_samples=search.trials,
            search_alg=BasicVariantGenerator(max_concurrent=at_once, random_state=config.runtime.seed),
            scheduler=ASHAScheduler(
                time_attr="iteration", grace_period=every, max_t=config.solver.iterations, reduction_factor=2
            ),
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
    )
    results = trainer.until_interrupted(tuner.fit)
    tried = (_trial(results[i].config or {}, results[i].metrics or {}) for i in range(len(results)))
    trials = sorted((trial for trial in tried if trial), key=lambda trial: -trial.miou)
    if not trials:
        raise RuntimeError("no trial reported a score") from next(iter(results.errors), None)
    best = _with(config, dataclasses.asdict(trials[0]))
    (place / _TABLE).write_bytes(json.dumps([dataclasses.asdict(trial) for trial in trials], indent=2).encode())
    (place / _BEST).write_bytes(to_json(best).encode())
    return trials, (place / _BEST).uri


def _with(config: Config, point: dict[str, Any]) -> Config:
    solver = dataclasses.replace(
        config.solver, learning_rate=point["learning_rate"], batch=point["batch"], power=point["power"]
    )
    return dataclasses.replace(config, solver=solver)


def _trial(point: dict[str, Any], metrics: dict[str, Any]) -> Trial | None:
    if "miou" not in metrics:
        return None
    return Trial(
        name=metrics["trial_id"],
        learning_rate=point["learning_rate"],
        batch=point["batch"],
        power=point["power"],
        iterations=metrics["iteration"],
        miou=metrics["miou"],
    )


def format_trials(trials: list[Trial]) -> str:
    """The trials as a table, best first."""
    lines = [f"{'trial':<14}{'learning rate':>14}{'batch':>7}{'power':>8}{'iterations':>12}{'mIoU %':>9}"]
    for trial in trials:
        lines.append(
            f"{trial.name:<14}{trial.learning_rate:>14.3g}{trial.batch:>7}{trial.power:>8.2f}"
            f"{trial.iterations:>12}{100 * trial.miou:>9.2f}"
        )
    return "\n".join(lines)
