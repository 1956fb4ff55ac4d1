"""Ray Train around the training step: workers, data, validation, checkpoints, progress.

`run` is what a job calls on the driver; `_train_worker` is the loop of every DDP worker.
"""

import dataclasses
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import ray
import ray.train
import ray.train.torch
import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from deeplab_ray.capacity import check_workers_fit, gpus_per_worker
from deeplab_ray.config import NAMED_WEIGHTS, Config, TestConfig, to_json
from deeplab_ray.datasets.base import decode_image
from deeplab_ray.errors import UserError
from deeplab_ray.ingest import FetchCrops, training_samples
from deeplab_ray.metrics import confusion_matrix, iou, mean_iou
from deeplab_ray.models import DeepLab, build, calibrate_frozen_norms, upsample_scores
from deeplab_ray.models.deeplab import resolve
from deeplab_ray.models.testtime import score_images
from deeplab_ray.shards import Split, open_split
from deeplab_ray.storage import Location, check_access, locate
from deeplab_ray.training import checkpoint
from deeplab_ray.training.optimizer import build_optimizer, set_rate
from deeplab_ray.training.schedule import learning_rate
from deeplab_ray.training.step import autocast, sum_over_workers, train_step

_CONFIG = "config.json"
_CALIBRATION_CROPS = 16
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


@dataclass(frozen=True)
class _Job:
    """What every worker is told; small and picklable."""

    config: Config
    train: Split
    validation: Split | None
    output: Location


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
    if place.is_s3 and "/" not in place.path:
        raise UserError(f"output {output!r} is a whole bucket: name a folder in it, such as {output}/run-1")
    train = open_split(data, train_split)
    validation = open_split(data, validation_split) if config.runtime.validate_every else None
    if train.manifest.dataset != config.model.dataset:
        raise UserError(
            f"{data} was prepared from {train.manifest.dataset!r}, but the preset is for {config.model.dataset!r}: "
            f"take a preset of {train.manifest.dataset}, or pass --dataset {train.manifest.dataset}"
        )
    exists = (place / checkpoint.SNAPSHOT).exists()
    if exists and not resume:
        raise UserError(f"{output} already holds a training run: pass --resume to go on, or another --output")
    if resume and not exists:
        raise UserError(f"there is no run to resume at {output}: leave --resume out to start one")
    check_workers_fit(config.runtime)
    config = checked_weights(config, train)
    (place / _CONFIG).write_bytes(to_json(config).encode())

    job = _Job(config, train, validation, place)
    runtime = config.runtime
    gpus = gpus_per_worker(runtime)
    trainer = ray.train.torch.TorchTrainer(
        _train_worker,
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
    _fit(trainer)
    last = checkpoint.find(output)
    meta = checkpoint.read_meta(last)
    scores = [record["miou"] for record in meta.history if "miou" in record]
    return TrainingResult(
        checkpoint=last.uri,
        iterations=meta.iteration,
        loss=meta.history[-1]["loss"],
        miou=scores[-1] if scores else None,
    )


def _fit(trainer: ray.train.torch.TorchTrainer) -> None:
    """`trainer.fit()`, left at once by Ctrl-C with KeyboardInterrupt.

    On the main thread Ray Train puts a handler of its own in place, which ends the process with exit code 0 or 1.
    """
    if threading.current_thread() is not threading.main_thread():
        trainer.fit()
        return
    done: Future[object] = Future()

    def fit() -> None:
        try:
            done.set_result(trainer.fit())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=fit, daemon=True).start()
    done.result()


def checked_weights(config: Config, split: Split) -> Config:
    """The config with an absolute path of its weights and the conventions that go with them, once they have been
    loaded; UserError if they do not load."""
    if config.model.weights not in NAMED_WEIGHTS:
        # A worker's working directory is another.
        weights = locate(config.model.weights).uri
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, weights=weights))
    if config.model.weights == "random":
        return dataclasses.replace(config, model=resolve(config.model))
    return dataclasses.replace(config, model=build(config.model, len(split.dataset.classes)).config)


def _dataset_factory(job: _Job) -> Callable[[], ray.data.Dataset]:
    """Called by the Train controller at every start of the worker group, the first and those after a failure."""

    def make() -> ray.data.Dataset:
        newest = checkpoint.latest(job.output)
        start = checkpoint.read_meta(newest).iteration if newest else 0
        return training_samples(job.train, job.config, start)

    return make


def _train_worker(loop_config: dict[str, Any]) -> None:
    job: _Job = loop_config["job"]
    config, runtime, solver = job.config, job.config.runtime, job.config.solver
    context = ray.train.get_context()
    rank = context.get_world_rank()
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // context.get_local_world_size()))
    batches = _batches(config, device)
    # The pipeline starts while the network is made.
    first = ThreadPoolExecutor(1).submit(next, batches)
    torch.manual_seed(runtime.seed)
    model = build(config.model, len(job.train.dataset.classes))
    if config.model.weights == "random":
        _calibrate(model, job)
    model.on(device)
    optimizer = build_optimizer(model, solver, runtime.fused)

    start, history = 0, []
    reported = ray.train.get_checkpoint()
    if reported is not None:
        # Not by `reported.as_directory()`: workers of a node share that folder, and one that comes late downloads into
        # it again while the others read.
        meta = checkpoint.restore(job.output / Path(reported.path).name, model, optimizer)
        start, history = meta.iteration, meta.history
    # Dropout differs between workers, and between a start and a restart.
    torch.manual_seed(hash((runtime.seed, rank, start)) % 2**63)
    ddp = ray.train.torch.prepare_model(
        model,
        move_to_device=False,
        parallel_strategy_kwargs={"gradient_as_bucket_view": True},
    )
    ddp.train()
    # Validation, with its many sizes, goes on uncompiled.
    network = cast(nn.Module, torch.compile(ddp)) if runtime.compile else ddp
    progress = _Progress(job, start, history) if rank == 0 else None
    for iteration in range(start, solver.iterations):
        of, micro_batches = first.result() if iteration == start else next(batches)
        if of != iteration:
            raise RuntimeError(f"expected the samples of iteration {iteration}, got those of {of}")
        rate = learning_rate(solver, iteration)
        set_rate(optimizer, rate)
        loss = train_step(network, optimizer, micro_batches, runtime, solver.normalise)
        done = iteration + 1
        if progress:
            progress.add(done, loss, rate)
        last = done == solver.iterations
        validate = job.validation is not None and (last or done % runtime.validate_every == 0)
        if not (last or validate or done % runtime.checkpoint_every == 0):
            continue
        confusion = None
        if job.validation and validate:
            confusion = _validate(model, job.validation, device, runtime.precision, config.test)
        metrics: dict[str, Any] = {"iteration": done}
        if confusion is not None:
            metrics["miou"] = mean_iou(confusion)
        if not progress:
            ray.train.report(metrics)
            continue
        metrics |= progress.checkpoint(done, confusion)
        with tempfile.TemporaryDirectory() as folder:
            meta = checkpoint.CheckpointMeta(config, done, job.train.dataset.classes, progress.history)
            checkpoint.save(Path(folder), model, optimizer, meta)
            ray.train.report(
                metrics,
                checkpoint=ray.train.Checkpoint.from_directory(folder),
                checkpoint_dir_name=checkpoint.NAME.format(done),
            )
    if progress:
        progress.close()


def _calibrate(model: DeepLab, job: _Job) -> None:
    """Give a random trunk batch-norm statistics, from the same training crops on every worker."""
    fetch = FetchCrops(job.train, job.config.augment, job.config.runtime.seed, job.config.solver.batch)
    indices = range(min(_CALIBRATION_CROPS, len(job.train)))
    images = np.stack([fetch.crop(index, epoch=-1)[0] for index in indices])
    calibrate_frozen_norms(model.trunk, model.prepare(torch.from_numpy(images)))


def _batches(config: Config, device: torch.device) -> Iterator[tuple[int, list[tuple[torch.Tensor, torch.Tensor]]]]:
    """Iterations in their order from where the run is, each with this worker's micro-batches."""
    shard = ray.train.get_dataset_shard("train")
    size = config.micro_batch
    share = size * config.solver.accumulation
    for batch in shard.iter_batches(batch_size=share, batch_format="numpy", prefetch_batches=2):
        (iteration,) = set(batch["iteration"].tolist())
        images, labels = (torch.from_numpy(np.array(batch[name])).to(device) for name in ("image", "label"))
        yield iteration, [(images[i : i + size], labels[i : i + size]) for i in range(0, share, size)]


def _validate(model: DeepLab, split: Split, device: torch.device, precision: str, test: TestConfig) -> np.ndarray:
    """The confusion matrix (int64 C×C) of the whole split: every image on exactly one worker, at full size."""
    context = ray.train.get_context()
    classes = len(split.dataset.classes)
    total = np.zeros((classes, classes), np.int64)
    model.eval()
    for index in range(context.get_world_rank(), len(split), context.get_world_size()):
        sample = split.read(index)
        image, label = decode_image(sample.image), split.dataset.decode_label(sample.label)
        with torch.inference_mode(), autocast(device, precision):
            scores, alignment = score_images(model, torch.from_numpy(image.copy())[None].to(device), test)
        height, width = label.shape
        prediction = upsample_scores(scores.float(), height, width, alignment)[0].argmax(0).to(torch.uint8)
        total += confusion_matrix(label, prediction.cpu().numpy(), classes)
    model.train()
    return sum_over_workers(torch.from_numpy(total).to(device)).cpu().numpy()


class _Progress:
    """Rank 0's diary: lines on stdout, TensorBoard events (kept under the output), the history."""

    def __init__(self, job: _Job, start: int, history: list[dict[str, float]]) -> None:
        self.job, self.history = job, list(history)
        self.folder = Path(tempfile.mkdtemp(prefix="deeplab-ray-tensorboard-"))
        self.writer = SummaryWriter(str(self.folder))
        self.losses: list[torch.Tensor] = []
        self.marked = (start, time.monotonic())
        self.paused = 0.0

    def add(self, done: int, loss: torch.Tensor, rate: float) -> None:
        self.losses.append(loss)
        solver, runtime = self.job.config.solver, self.job.config.runtime
        if done % runtime.log_every and done != solver.iterations:
            return
        now = time.monotonic()
        seconds_each = (now - self.marked[1]) / (done - self.marked[0])
        record = {
            "iteration": done,
            "loss": float(torch.stack(self.losses).mean()),
            "learning_rate": rate,
            "images_per_s": solver.batch / seconds_each,
        }
        self.history.append(record)
        for name in ("loss", "learning_rate", "images_per_s"):
            self.writer.add_scalar(name, record[name], done)
        left = (solver.iterations - done) * seconds_each
        print(
            f"iteration {done}/{solver.iterations}  loss {record['loss']:.4f}  rate {rate:.3g}  "
            f"{record['images_per_s']:.1f} images/s  {int(left // 60)} min {int(left % 60):02d} s left",
            flush=True,
        )
        self.losses, self.marked = [], (done, now)

    def checkpoint(self, done: int, confusion: np.ndarray | None) -> dict[str, float]:
        """Note a validation, upload the events; returns the newest figures for Ray Train's report."""
        if not self.history or self.history[-1]["iteration"] != done:
            self.history.append({"iteration": done, "loss": self._mean_loss()})
        if confusion is not None:
            self.history[-1]["miou"] = mean_iou(confusion)
            self.writer.add_scalar("validation/miou", mean_iou(confusion), done)
            for name, value in zip(self.job.train.dataset.classes, iou(confusion), strict=True):
                self.writer.add_scalar(f"validation/iou {name}", float(value), done)
            print(f"iteration {done}: validation mIoU {100 * mean_iou(confusion):.2f} %", flush=True)
        self.writer.flush()
        for file in self.folder.iterdir():
            (self.job.output / "tensorboard" / file.name).write_bytes(file.read_bytes())
        self.marked = (done, time.monotonic())
        return self.history[-1]

    def _mean_loss(self) -> float:
        if self.losses:
            return float(torch.stack(self.losses).mean())
        return self.history[-1]["loss"] if self.history else float("nan")

    def close(self) -> None:
        self.writer.close()
