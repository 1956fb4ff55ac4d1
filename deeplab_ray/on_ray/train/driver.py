"""Ray Train around the training step, on the driver: what a job calls.

`worker.train_worker` is what it runs in every DDP worker.
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

from deeplab_ray.config.recipe import NAMED_WEIGHTS, Config, to_json
from deeplab_ray.errors import UserError
from deeplab_ray.models import build, checkpoint
from deeplab_ray.models.networks.deeplab_v2 import resolve
from deeplab_ray.on_ray.ingest import training_samples
from deeplab_ray.on_ray.resources import check_workers_fit, gpus_per_worker
from deeplab_ray.on_ray.train.plan import Job
from deeplab_ray.on_ray.train.worker import train_worker
from deeplab_ray.shards import Split, open_split
from deeplab_ray.storage.location import check_access, check_folder, locate

T = TypeVar("T")

_CONFIG = "config.json"
# On CPUs: by default glibc gives each large activation back to the kernel, and faults the next one in page by page.
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(2**31)}


@dataclass(frozen=True)
class TrainingResult:
    """What a finished run leaves behind."""

    checkpoint: str
    """URI of the last checkpoint."""
    iterations: int
    loss: float
    """Mean loss over the last logged iterations."""
    miou: float | None
    """Last validation mean IoU, in 0..1; None where validation is off."""


def run(
    config: Config,
    data: str,
    output: str,
    resume: bool = False,
    train_split: str = "train",
    validation_split: str = "val",
    callbacks: tuple[ray.train.UserCallback, ...] = (),
) -> TrainingResult:
    """Train on the prepared data at URI `data`, leave checkpoints under URI `output`.

    Ray must be initialised. Raises UserError for data that does not fit the config, an output that already
    holds a run (unless `resume`), a cluster that cannot hold the workers, and weights that do not load.
    """
    place = locate(output)
    check_access(locate(data), place)
    check_folder(place)
    if place.is_root:
        raise UserError(f"output {output!r} is a whole bucket or disk: name a folder in it, such as {output}/run-1")
    train = open_fitting(data, train_split, config)
    validation = open_fitting(data, validation_split, config) if config.runtime.validate_every else None
    if checkpoint.is_one(place):
        raise UserError(f"{output} is a checkpoint: give another --output, and --weights {output} to start from it")
    exists = (place / checkpoint.SNAPSHOT).exists()
    if exists and not resume:
        raise UserError(f"{output} already holds a training run: pass --resume to go on, or another --output")
    # A run that was stopped before its first checkpoint has left its config alone.
    if resume and not (exists or (place / _CONFIG).exists()):
        raise UserError(f"there is no run to resume at {output}: leave --resume out to start one")
    newest = checkpoint.latest(place) if resume else None
    if newest:
        meta = checkpoint.read_meta(newest)
        check_same_run(config, meta.config, output)
        if meta.iteration >= config.solver.iterations:
            return _result(output, config)
    check_workers_fit(config.runtime)
    config = checked_weights(config, train)
    (place / _CONFIG).write_bytes(to_json(config).encode())

    job = Job(config, train, validation, place)
    runtime = config.runtime
    gpus = gpus_per_worker(runtime)
    trainer = ray.train.torch.TorchTrainer(
        train_worker,
        train_loop_config={"job": job},
        scaling_config=ray.train.ScalingConfig(
            num_workers=runtime.workers,
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": runtime.cpus_per_worker, **({"GPU": gpus} if gpus else {})},
        ),
        run_config=ray.train.RunConfig(
            name=place.name,
            storage_path=place.parent.path,
            storage_filesystem=place.filesystem if place.is_s3 else None,
            failure_config=ray.train.FailureConfig(max_failures=runtime.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=runtime.keep_checkpoints),
            callbacks=list(callbacks),  # type: ignore[arg-type]
            worker_runtime_env={"env_vars": {} if gpus else _ALLOCATOR},
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),  # type: ignore[call-arg]
        ),
        datasets={"train": _dataset_factory(job)},
        dataset_config=ray.train.DataConfig(
            execution_options=ray.data.ExecutionOptions(preserve_order=True), enable_shard_locality=False
        ),
    )
    until_interrupted(trainer.fit)
    return _result(output, config)


def open_fitting(data: str, split_name: str, config: Config) -> Split:
    """The prepared split; UserError where there is none, or of another dataset than the config's."""
    split = open_split(data, split_name)
    found = split.manifest.reader
    if found != config.model.dataset:
        raise UserError(
            f"{split.folder} was prepared from {found!r}, but the preset is for {config.model.dataset!r}: "
            f"take a preset of {found}, or pass --dataset {found}"
        )
    return split


def check_same_run(config: Config, started: Config, output: str) -> None:
    """Raise UserError where a run that goes on would be given another network, other samples or another optimiser.

    Its rate, number of iterations, workers and reports may change.
    """
    pairs = [
        (name, getattr(config.model, name), getattr(started.model, name))
        for name in (field.name for field in dataclasses.fields(config.model))
        # Its own weights are what it goes on with.
        if name != "weights" and getattr(config.model, name) != "auto"
    ]
    fixed = ("batch", "momentum", "nesterov", "weight_decay", "classifier_factor", "normalise", "class_balance")
    pairs += [(name, getattr(config.solver, name), getattr(started.solver, name)) for name in fixed]
    pairs.append(("seed", config.runtime.seed, started.runtime.seed))
    for name, asked, has in pairs:
        if asked != has:
            raise UserError(f"the run at {output} has {name} {has}, not {asked}: go on with that, or start another one")


def _result(output: str, config: Config) -> TrainingResult:
    """What the run at `output` has left; UserError where it ended early, as its loss was no number any more."""
    last = checkpoint.latest(locate(output))
    meta = checkpoint.read_meta(last) if last else None
    if last is None or meta is None or meta.iteration < config.solver.iterations:
        kept = f"; the last good checkpoint is {last}" if last else ""
        raise UserError(
            f"the training diverged: its loss is not finite any more{kept}: lower --learning-rate, start with --warmup"
        )
    scores = [record["miou"] for record in meta.history if "miou" in record]
    return TrainingResult(
        checkpoint=last.uri,
        iterations=meta.iteration,
        loss=meta.history[-1]["loss"],
        miou=scores[-1] if scores else None,
    )


def until_interrupted(fit: Callable[[], T]) -> T:
    """`fit()` of a Ray trainer or tuner, left at once by Ctrl-C with KeyboardInterrupt.

    On the main thread Ray puts handlers of its own in place: Train's ends the process with exit code 0 or 1, Tune's
    lets the search end as if it were done.
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


def checked_weights(config: Config, split: Split) -> Config:
    """The config with an absolute path of its weights and the conventions that go with them, once they have been
    loaded; UserError if they do not load."""
    if config.model.weights not in NAMED_WEIGHTS:
        # A worker's working directory is another.
        weights = locate(config.model.weights)
        check_access(weights)
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, weights=weights.uri))
    if config.model.weights == "random":
        return dataclasses.replace(config, model=resolve(config.model))
    return dataclasses.replace(config, model=build(config.model, len(split.classes)).config)


def _dataset_factory(job: Job) -> Callable[[], ray.data.Dataset]:
    """Called by the Train controller at every start of the worker group, the first and those after a failure."""

    def make() -> ray.data.Dataset:
        newest = checkpoint.latest(job.output)
        start = checkpoint.read_meta(newest).iteration if newest else 0
        return training_samples(job.train, job.config, start)

    return make
