"""The loop of every DDP worker: its batches, training steps, validation, checkpoints."""

import logging
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import ray.train
import ray.train.torch
import torch
from torch import nn

from deeplab_ray.config.recipe import Config, TestConfig
from deeplab_ray.datasets.base import decode_image
from deeplab_ray.machine import usable_cpus
from deeplab_ray.metrics import confusion_matrix, mean_iou
from deeplab_ray.models import DeepLab, build, calibrate_frozen_norms, checkpoint, upsample_scores
from deeplab_ray.models.atrous import lay_out_by_taps
from deeplab_ray.models.scoring import score_images
from deeplab_ray.on_ray.ingest import FetchCrops
from deeplab_ray.on_ray.train.plan import Job
from deeplab_ray.on_ray.train.progress import Progress
from deeplab_ray.shards import Split
from deeplab_ray.training.optimizer import build_optimizer, set_rate
from deeplab_ray.training.schedule import learning_rate
from deeplab_ray.training.step import autocast, class_weights, sum_over_workers, train_step

_CALIBRATION_CROPS = 16


def train_worker(loop_config: dict[str, Any]) -> None:
    # Ray Train tells of each report, on a logger that its own log level does not reach.
    logging.getLogger().setLevel(logging.WARNING)
    job: Job = loop_config["job"]
    config, runtime, solver = job.config, job.config.runtime, job.config.solver
    context = ray.train.get_context()
    rank = context.get_world_rank()
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(max(1, usable_cpus() // context.get_local_world_size()))
    batches = _batches(config, device)
    # The pipeline starts while the network is made.
    first = ThreadPoolExecutor(1).submit(next, batches)
    torch.manual_seed(runtime.seed)
    model = build(config.model, len(job.train.dataset.classes))
    if config.model.weights == "random":
        _calibrate(model, job)
    model.on(device)
    if device.type == "cpu":
        lay_out_by_taps(model)
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
        # Buffers are constants here: nothing to tell the others.
        parallel_strategy_kwargs={"gradient_as_bucket_view": True, "broadcast_buffers": False},
    )
    ddp.train()
    # Validation, with its many sizes, goes on uncompiled.
    network = cast(nn.Module, torch.compile(ddp)) if runtime.compile else ddp
    weights = class_weights(job.train.manifest.pixels, solver.class_balance).to(device)
    progress = Progress(job, start, history) if rank == 0 else None
    for iteration in range(start, solver.iterations):
        of, micro_batches = first.result() if iteration == start else next(batches)
        if of != iteration:
            raise RuntimeError(f"expected the samples of iteration {iteration}, got those of {of}")
        rate = learning_rate(solver, iteration)
        set_rate(optimizer, rate)
        loss = train_step(network, optimizer, micro_batches, runtime, solver.normalise, weights)
        done = iteration + 1
        if progress:
            progress.add(done, loss, rate)
        last = done == solver.iterations
        validate = job.validation is not None and (last or done % runtime.validate_every == 0)
        reports = last or validate or done % runtime.checkpoint_every == 0
        # The same on all workers. The driver sees that the run is short.
        if (reports or done % runtime.log_every == 0) and not torch.isfinite(loss):
            break
        if not reports:
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


def _calibrate(model: DeepLab, job: Job) -> None:
    """Give a random trunk batch-norm statistics, from the same training crops on every worker."""
    fetch = FetchCrops(job.train, job.config)
    indices = range(min(_CALIBRATION_CROPS, len(job.train)))
    images = np.stack([fetch.crop(index, -1, job.config.augment)[0] for index in indices])
    calibrate_frozen_norms(model.trunk, model.prepare(torch.from_numpy(images)))


def _batches(config: Config, device: torch.device) -> Iterator[tuple[int, list[tuple[torch.Tensor, torch.Tensor]]]]:
    """Iterations in their order from where the run is, each with this worker's micro-batches."""
    shard = ray.train.get_dataset_shard("train")
    size = config.micro_batch
    for row in shard.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=2):
        shares = zip(row["image"][0], row["label"][0], strict=True)
        for iteration, share in enumerate(shares, int(row["iteration"][0])):
            images, labels = (torch.from_numpy(np.array(part)).to(device) for part in share)
            yield iteration, list(zip(images.split(size), labels.split(size), strict=True))


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
