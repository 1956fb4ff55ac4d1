"""The loop of every DDP worker: batches, training steps, validation, checkpoints."""

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
from numpy.typing import NDArray
from torch import distributed as dist
from torch import nn

from deeplab_ray.images import decode_image, decode_label
from deeplab_ray.machine import usable_cpus
from deeplab_ray.metrics import confusion_matrix, mean_iou
from deeplab_ray.models import checkpoint
from deeplab_ray.models.network import Network
from deeplab_ray.models.networks import create
from deeplab_ray.models.scoring import predict_labels, score_image
from deeplab_ray.models.weights.load import load
from deeplab_ray.on_ray.ingest import FetchCrops
from deeplab_ray.on_ray.train.plan import RunPlan
from deeplab_ray.on_ray.train.progress import Progress
from deeplab_ray.runs import CheckpointMeta, checkpoint_name
from deeplab_ray.training.optimizer import build_optimizer, set_rate
from deeplab_ray.training.schedule import learning_rate
from deeplab_ray.training.step import class_weights, sum_over_workers, train_step

_CALIBRATION_CROPS = 16


def train_worker(loop_config: dict[str, Any]) -> None:
    """Run the training loop of one DDP worker; `loop_config["plan"]` is the `RunPlan`."""
    # Ray Train logs a line for each report, on a logger that its own log level does not reach.
    logging.getLogger().setLevel(logging.WARNING)
    plan: RunPlan = loop_config["plan"]
    recipe, resources, solver = plan.recipe, plan.resources, plan.recipe.solver
    context = ray.train.get_context()
    rank = context.get_world_rank()
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(max(1, usable_cpus() // context.get_local_world_size()))
    batches = _batches(plan, device)
    # Let the data pipeline start while the network is made.
    first = ThreadPoolExecutor(1).submit(next, batches)
    torch.manual_seed(recipe.seed)
    reported = ray.train.get_checkpoint()
    network = _start(plan, goes_on=reported is not None)
    network.on(device, training=True)
    optimizer = build_optimizer(network, solver, resources.fused)

    start, history = 0, []
    if reported is not None:
        # Not by `reported.as_directory()`: workers of a node share that folder, and a late one downloads into it again
        # while the others read it.
        meta = checkpoint.restore(plan.output / Path(reported.path).name, network, optimizer)
        start, history = meta.iteration, meta.history
    # Let dropout differ between workers, and between a start and a restart.
    torch.manual_seed(hash((recipe.seed, rank, start)) % 2**63)
    ddp = ray.train.torch.prepare_model(
        network,
        move_to_device=False,
        # Buffers that are constant are equal everywhere; statistics that train are taken from rank 0.
        parallel_strategy_kwargs={"gradient_as_bucket_view": True, "broadcast_buffers": network.buffers_train},
    )
    ddp.train()
    # Validation is not compiled, because its images have many sizes.
    forward = cast(nn.Module, torch.compile(ddp)) if resources.compile else ddp
    weights = class_weights(plan.train.manifest.pixels, solver.class_balance).to(device)
    progress = Progress(plan, start, history) if rank == 0 else None
    for iteration in range(start, solver.iterations):
        of, micro_batches = first.result() if iteration == start else next(batches)
        if of != iteration:
            raise RuntimeError(f"expected the samples of iteration {iteration}, got those of {of}")
        rate = learning_rate(solver, iteration)
        set_rate(optimizer, rate)
        loss = train_step(network, optimizer, micro_batches, recipe.precision, solver.normalise, weights, forward)
        done = iteration + 1
        if progress:
            progress.add(done, loss, rate)
        last = done == solver.iterations
        validate = plan.validation is not None and (last or done % resources.validate_every == 0)
        reports = last or validate or done % resources.checkpoint_every == 0
        # All workers stop here alike, as the loss is the same. The driver notices that the run ended early.
        if (reports or done % resources.log_every == 0) and not torch.isfinite(loss):
            break
        if not reports:
            continue
        confusion = _validate(network, plan, device) if validate else None
        metrics: dict[str, Any] = {"iteration": done}
        if confusion is not None:
            metrics["miou"] = mean_iou(confusion)
        if not progress:
            ray.train.report(metrics)
            continue
        metrics |= progress.checkpoint(done, confusion)
        with tempfile.TemporaryDirectory() as folder:
            meta = CheckpointMeta(plan.run, done, plan.train.classes, progress.history)
            checkpoint.save(Path(folder), network, optimizer, meta)
            ray.train.report(
                metrics,
                checkpoint=ray.train.Checkpoint.from_directory(folder),
                checkpoint_dir_name=checkpoint_name(done),
            )
    if progress:
        progress.close()


def _start(plan: RunPlan, goes_on: bool) -> Network:
    """Make the network as it starts; if the run resumes, without weights, which come from its checkpoint."""
    config, classes = plan.recipe.network, plan.train.classes
    if goes_on:
        return create(config, len(classes))
    network = load(config, len(classes), classes.names).network
    if config.weights == "random":
        # Every worker takes the same training crops.
        fetch = FetchCrops(plan.train, plan.recipe)
        indices = range(min(_CALIBRATION_CROPS, len(plan.train)))
        images = np.stack([fetch.crop(index, -1, plan.recipe.augment)[0] for index in indices])
        network.calibrate(torch.from_numpy(images))
    return network


def _batches(plan: RunPlan, device: torch.device) -> Iterator[tuple[int, list[tuple[torch.Tensor, torch.Tensor]]]]:
    """Yield the iterations in order from where the run is, each with this worker's micro-batches.

    A micro-batch is (images uint8 N×H×W×channels, labels uint8 N×H×W), on the device.
    """
    shard = ray.train.get_dataset_shard("train")
    size = plan.micro_batch
    for row in shard.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=2):
        shares = zip(row["image"][0], row["label"][0], strict=True)
        for iteration, share in enumerate(shares, int(row["iteration"][0])):
            images, labels = (torch.from_numpy(np.array(part)).to(device) for part in share)
            yield iteration, list(zip(images.split(size), labels.split(size), strict=True))


def _validate(network: Network, plan: RunPlan, device: torch.device) -> NDArray[np.int64]:
    """Return the confusion matrix (int64 C×C) of the split: each labelled image at full size, on exactly one worker."""
    split = plan.validation
    assert split is not None
    context = ray.train.get_context()
    total = np.zeros((len(split.classes), len(split.classes)), np.int64)
    if network.buffers_train and dist.is_initialized():
        # After the last step every worker has its own statistics; those of rank 0 are kept.
        for buffer in network.buffers():
            dist.broadcast(buffer, 0)
    network.eval()
    for index in split.labelled()[context.get_world_rank() :: context.get_world_size()]:
        sample = split.read(index)
        assert sample.label is not None
        label = decode_label(sample.label)
        scores, grid = score_image(
            network, decode_image(sample.image), device, plan.recipe.precision, plan.recipe.scoring
        )
        total += confusion_matrix(label, predict_labels(scores, grid, *label.shape), len(split.classes))
    network.train()
    return sum_over_workers(torch.from_numpy(total).to(device)).cpu().numpy()
