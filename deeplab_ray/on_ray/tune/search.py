"""Search for the learning rate, the batch size and the power of the poly policy: Ray Train nested in Ray Tune.

Each trial is a driver that takes a tenth of a CPU and runs its own DDP training (`on_ray.train.driver.train`). The
number of trials at once is computed from what the cluster has, because trials that wait for each other's CPUs would
wait for ever.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.basic_variant import BasicVariantGenerator

from deeplab_ray.cli import origin
from deeplab_ray.config.io import json_text, to_json
from deeplab_ray.config.resources import TrainingResources
from deeplab_ray.config.search import SearchConfig
from deeplab_ray.errors import JobError, UserError
from deeplab_ray.on_ray.resources import CPUS_FOR_DATA, check_workers_fit, gpus_per_worker, workers_that_fit
from deeplab_ray.on_ray.train import driver as trainer
from deeplab_ray.on_ray.tune.space import BEST, Request, at_point

_DRIVER_CPUS = 0.1
_TABLE = "trials.json"


@dataclass(frozen=True)
class Trial:
    """One configuration that was tried."""

    name: str
    learning_rate: float
    batch: int
    power: float
    iterations: int
    """Number of iterations done when it ended or was stopped."""
    miou: float
    """Mean IoU of its last validation, in 0..1."""


def concurrent_trials(resources: TrainingResources, search: SearchConfig) -> int:
    """Return how many trials may run at once. Raises UserError, with the arithmetic, if the cluster is too small.

    On a cluster that grows by itself (`autoscaling`) it is the number asked for.
    """
    check_workers_fit(resources)
    wanted = min(search.concurrent or search.trials, search.trials)
    if resources.autoscaling:
        return wanted
    fits = 0
    for number in range(1, wanted + 1):
        if workers_that_fit(resources, number) >= number * resources.workers:
            fits = number
    # The drivers' CPUs come on top of the workers'.
    each = resources.workers * resources.cpus_per_worker + CPUS_FOR_DATA + _DRIVER_CPUS
    total = ray.cluster_resources().get("CPU", 0.0)
    fits = min(fits, int(total / each + 1e-6))
    if fits < (wanted if search.concurrent else 1):
        gpus = gpus_per_worker(resources)
        on_gpus = f" and {resources.workers} × {gpus:g} GPU" if gpus else ""
        held = f" CPU and {ray.cluster_resources().get('GPU', 0):g} GPU" if gpus else ""
        raise UserError(
            f"the cluster cannot hold {wanted if search.concurrent else 1} trial(s) at once: each needs "
            f"{resources.workers} × {resources.cpus_per_worker:g} CPU for workers + {CPUS_FOR_DATA:g} for "
            f"data + {_DRIVER_CPUS:g} for its driver = {each:g} CPU{on_gpus}, and the cluster has {total:g}{held}: "
            "lower --workers, --cpus-per-worker or --concurrent, or add nodes"
        )
    return fits


def run(request: Request) -> tuple[list[Trial], str]:
    """Run the search; return the trials, best first, and the URI of best.json (a whole Recipe).

    Every trial trains on the recipe's training split and is measured on its validation split; ASHA stops the worse
    trials early. Ray must be initialised. Raises UserError if the cluster cannot hold the search or weights do not
    load, and JobError if no trial reports a score.
    """
    recipe, resources, search, place = request.recipe, request.resources, request.search, request.output
    at_once = concurrent_trials(resources, search)
    network, _ = trainer.checked_weights(recipe.network, request.train)
    recipe = dataclasses.replace(recipe, network=network)
    print(f"{search.trials} trials of {resources.workers} workers, {at_once} at a time", flush=True)
    every = max(1, recipe.solver.iterations // search.reports)
    resources = dataclasses.replace(resources, validate_every=every, checkpoint_every=every)
    source = request.data.uri

    def driver(point: dict[str, Any]) -> None:
        name = tune.get_context().get_trial_id()
        result = trainer.train(
            at_point(recipe, point), resources, source, f"{place.uri}/trials/{name}", callbacks=(TuneReportCallback(),)
        )
        # A training that was already finished has reported nothing to this driver.
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
            search_alg=BasicVariantGenerator(max_concurrent=at_once, random_state=recipe.seed),
            scheduler=ASHAScheduler(
                time_attr="iteration", grace_period=every, max_t=recipe.solver.iterations, reduction_factor=2
            ),
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
    )
    results = trainer.until_interrupted(tuner.fit)
    tried = (_trial(results[i].config or {}, results[i].metrics or {}) for i in range(len(results)))
    trials = sorted((trial for trial in tried if trial), key=lambda trial: -trial.miou)
    if not trials:
        first = next(iter(results.errors), None)
        reason = f" ({origin(first)})" if first else ""
        raise JobError(f"no trial reported a score{reason}: try one training with jobs/train.py") from first
    best = at_point(recipe, dataclasses.asdict(trials[0]))
    (place / _TABLE).write_bytes(json_text([dataclasses.asdict(trial) for trial in trials], indent=2).encode())
    (place / BEST).write_bytes(to_json(best).encode())
    return trials, (place / BEST).uri


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
    """Format the trials as a table, in their order."""
    lines = [f"{'trial':<14}{'learning rate':>14}{'batch':>7}{'power':>8}{'iterations':>12}{'mIoU %':>9}"]
    for trial in trials:
        lines.append(
            f"{trial.name:<14}{trial.learning_rate:>14.3g}{trial.batch:>7}{trial.power:>8.2f}"
            f"{trial.iterations:>12}{100 * trial.miou:>9.2f}"
        )
    return "\n".join(lines)
