"""Training with Ray Train, seen from the driver: what a job calls.

Every DDP worker runs `worker.train_worker`.
"""

import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

import ray
import ray.train
import ray.train.torch

from deeplab_ray import runs
from deeplab_ray.cli import origin
from deeplab_ray.config.io import load as load_config
from deeplab_ray.config.io import to_json
from deeplab_ray.config.network import NetworkConfig
from deeplab_ray.config.recipe import Recipe
from deeplab_ray.config.resources import TrainingResources
from deeplab_ray.errors import JobError, UserError
from deeplab_ray.models.weights.load import load
from deeplab_ray.models.weights.start import is_file
from deeplab_ray.on_ray.ingest import training_samples
from deeplab_ray.on_ray.resources import check_workers_fit, gpus_per_worker
from deeplab_ray.on_ray.train.plan import RunPlan
from deeplab_ray.on_ray.train.request import Request, check_request
from deeplab_ray.on_ray.train.resume import check_same_run
from deeplab_ray.on_ray.train.worker import train_worker
from deeplab_ray.runs import DataRecord, Provenance, Software
from deeplab_ray.shards import Split
from deeplab_ray.storage.access import check_access
from deeplab_ray.storage.location import Location, locate

T = TypeVar("T")

# For training on CPUs: by default glibc returns the memory of each large activation to the kernel, and the next one is
# faulted in page by page.
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(2**31)}


@dataclass(frozen=True)
class TrainingResult:
    """The outcome of a finished run."""

    checkpoint: str
    """URI of the last checkpoint."""
    iterations: int
    loss: float
    """Mean loss of the iterations that the last log line covers."""
    miou: float | None
    """Mean IoU of the last validation, in 0..1; None if validation is off."""


def run(request: Request, callbacks: tuple[ray.train.UserCallback, ...] = ()) -> TrainingResult:
    """Train, and write checkpoints to the output. Ray must be initialised.

    Raises UserError if a resumed run would learn something else, the cluster cannot hold the workers, weights do not
    load, or the training diverges; JobError if workers fail more often than `max_failures` allows.
    """
    recipe, resources, place = request.recipe, request.resources, request.output
    provenance, changes = goes_on_as(request)
    for change in changes:
        print(f"going on with another schedule: it had {change}", flush=True)
    newest = runs.latest(place) if request.resume else None
    if newest and runs.read_meta(newest).iteration >= recipe.solver.iterations:
        return _result(place, recipe)
    check_workers_fit(resources)
    if not newest:
        network, digest = checked_weights(provenance.recipe.network, request.train)
        settled = dataclasses.replace(provenance.recipe, network=network)
        provenance = dataclasses.replace(provenance, recipe=settled, weights_sha256=digest)
    (place / runs.RUN).write_bytes(to_json(provenance).encode())

    plan = RunPlan(provenance, request.train, request.validation, place)
    gpus = gpus_per_worker(resources)
    trainer = ray.train.torch.TorchTrainer(
        train_worker,
        train_loop_config={"plan": plan},
        scaling_config=ray.train.ScalingConfig(
            num_workers=resources.workers,
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": resources.cpus_per_worker, **({"GPU": gpus} if gpus else {})},
        ),
        run_config=ray.train.RunConfig(
            name=place.name,
            storage_path=place.parent.path,
            storage_filesystem=place.filesystem if place.is_s3 else None,
            failure_config=ray.train.FailureConfig(max_failures=resources.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=resources.keep_checkpoints),
            callbacks=list(callbacks),  # type: ignore[arg-type]
            worker_runtime_env={"env_vars": {} if gpus else _ALLOCATOR},
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),  # type: ignore[call-arg]
        ),
        datasets={"train": _dataset_factory(plan)},
        dataset_config=ray.train.DataConfig(
            execution_options=ray.data.ExecutionOptions(preserve_order=True), enable_shard_locality=False
        ),
    )
    try:
        until_interrupted(trainer.fit)
    except ray.train.TrainingFailedError as error:
        raise JobError(f"the training stopped ({origin(error)}): fix the cause, then go on with --resume") from error
    return _result(place, recipe)


def train(
    recipe: Recipe,
    resources: TrainingResources,
    data: str,
    output: str,
    resume: bool = False,
    callbacks: tuple[ray.train.UserCallback, ...] = (),
) -> TrainingResult:
    """Do `check_request` and `run`: train on the prepared data at URI `data`, write checkpoints to URI `output`."""
    return run(check_request(recipe, resources, data, output, resume), callbacks)


def goes_on_as(request: Request) -> tuple[Provenance, list[str]]:
    """Where the run that is asked for comes from, and what it changes of the schedule that it began with.

    A run that goes on keeps its network's options, of which "auto" has been replaced by values, and its start weights.
    Raises UserError, naming every difference, if it would learn something else than it began to.
    """
    asked = Provenance(
        request.recipe,
        request.resources,
        DataRecord.of(request.train),
        DataRecord.of(request.validation) if request.validation else None,
        software=Software.here(),
    )
    started = _started(request.output) if request.resume else None
    if started is None:
        return asked, []
    changes = check_same_run(asked, started, request.output.uri)
    recipe = dataclasses.replace(request.recipe, network=started.recipe.network)
    return dataclasses.replace(asked, recipe=recipe, weights_sha256=started.weights_sha256), changes


def _started(output: Location) -> Provenance | None:
    """How the run at `output` began: by its newest checkpoint, or before the first one by its record."""
    newest = runs.latest(output)
    if newest:
        return runs.read_meta(newest).run
    return load_config((output / runs.RUN).uri, Provenance) if (output / runs.RUN).exists() else None


def _result(output: Location, recipe: Recipe) -> TrainingResult:
    """Return the outcome of the run at `output`. Raises UserError if it ended early because its loss was not finite."""
    last = runs.latest(output)
    meta = runs.read_meta(last) if last else None
    if last is None or meta is None or meta.iteration < recipe.solver.iterations:
        kept = f"; the last good checkpoint is {last}" if last else ""
        raise UserError(
            f"the training diverged: its loss is no longer finite{kept}: lower --learning-rate, or add --warmup"
        )
    scores = [record["miou"] for record in meta.history if "miou" in record]
    return TrainingResult(
        checkpoint=last.uri,
        iterations=meta.iteration,
        loss=meta.history[-1]["loss"],
        miou=scores[-1] if scores else None,
    )


def until_interrupted(fit: Callable[[], T]) -> T:
    """Call `fit()` of a Ray trainer or tuner in a thread, so that Ctrl-C raises KeyboardInterrupt at once.

    On the main thread Ray would install its own signal handlers: Train's ends the process with exit code 0 or 1, Tune's
    ends the search as if it were done.
    """
    if threading.current_thread() is not threading.main_thread():
        return fit()
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(fit())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return done.result()


def checked_weights(config: NetworkConfig, split: Split) -> tuple[NetworkConfig, str | None]:
    """Load the network's weights; return its options, with their absolute path and conventions, and the file's digest.

    Raises UserError if the weights do not load.
    """
    if is_file(config.weights):
        # Workers have another working directory.
        weights = locate(config.weights)
        check_access(read=[weights])
        config = dataclasses.replace(config, weights=weights.uri)
    loaded = load(config, len(split.classes), tuple(split.classes.names))
    return loaded.network.config, loaded.sha256


def _dataset_factory(plan: RunPlan) -> Callable[[], ray.data.Dataset]:
    """Return the function that the Train controller calls at every start of the worker group, to make the dataset."""

    def make() -> ray.data.Dataset:
        newest = runs.latest(plan.output)
        start = runs.read_meta(newest).iteration if newest else 0
        return training_samples(plan.train, plan.recipe, plan.resources.workers, start)

    return make
