"""Tiny data sets, made on the spot, and a training that takes seconds."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from deeplab_ray.config.recipe import AugmentConfig, Recipe, SolverConfig
from deeplab_ray.config.resources import TrainingResources
from deeplab_ray.crf.params import CRFParams
from deeplab_ray.labels import ClassTable
from deeplab_ray.models import checkpoint as checkpoints
from deeplab_ray.models.configs import DeepLabV2Config
from deeplab_ray.models.networks import create
from deeplab_ray.runs import CheckpointMeta, Provenance
from deeplab_ray.training.optimizer import build_optimizer

HEIGHT, WIDTH = 12, 20


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(pixels))


def camvid(folder: Path, height: int = HEIGHT, width: int = WIDTH, **counts: int) -> Path:
    """A CamVid folder with `counts[split]` noise images a split, named 0000, 0001, …; labels 0..11."""
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        for number in range(count):
            image = rng.integers(0, 256, (height, width, 3), np.uint8)
            write_png(folder / split / f"{number:04d}.png", image)
            label = rng.integers(0, 12, (height, width), np.uint8)
            write_png(folder / f"{split}annot" / f"{number:04d}.png", label)
    return folder


def classes(count: int) -> ClassTable:
    """So many classes: c0, c1, …, whose values are their train ids."""
    return ClassTable(
        names=tuple(f"c{i}" for i in range(count)),
        colours=tuple((i, i, 200) for i in range(count)),
        values=tuple(range(count)),
    )


def recipe(iterations: int = 6) -> Recipe:
    """A small network for `scenes`, in float32, from random weights."""
    return Recipe(
        DeepLabV2Config("resnet18", "largefov", weights="random"),
        AugmentConfig(crop=33),
        SolverConfig(learning_rate=1e-3, iterations=iterations, batch=4),
        CRFParams(iterations=2),
    )


def resources(**options: Any) -> TrainingResources:
    """One worker, no validation, a checkpoint every second iteration, unless the options say otherwise."""
    return TrainingResources(**{"log_every": 2, "validate_every": 0, "checkpoint_every": 2, **options})


def checkpoint(folder: Path, recipe: Recipe, classes: ClassTable) -> Path:
    """A checkpoint in the existing `folder`, as if trained: from random weights, with scores far enough apart."""
    torch.manual_seed(0)
    network = create(recipe.network, len(classes))
    network.calibrate(torch.randint(0, 256, (4, 33, 33, recipe.network.channels), dtype=torch.uint8))
    with torch.no_grad():
        for classifier in network.classifiers():
            classifier.get_parameter("weight").mul_(4)
    meta = CheckpointMeta(Provenance(recipe), 6, classes, [{"iteration": 6, "loss": 1.0}])
    checkpoints.save(folder, network, build_optimizer(network, recipe.solver), meta)
    return folder
