"""Shards → the batches of the training workers, through Ray Data.

The order of samples and their augmentation are functions of (seed, epoch, sample id) alone, and iteration i
takes samples i·B … i·B + B − 1 of the epochs' permutations, one after another, whatever the number of workers.
So a run that goes on from iteration i sees exactly what it would have seen, and two workers at B/2 see what
one sees at B.

Only the plan enters the dataset, row by row as it is needed (see `ingest_plan`); each task fetches the encoded bytes of
its samples straight from the Parquet shards (one row a row group: one range read), decodes, augments and crops. Of a
small split, the processes that run the tasks keep the bytes: fetching them in every epoch would take as long as all the
rest.
"""

import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
import ray.data
from numpy.typing import NDArray
from ray import cloudpickle

from deeplab_ray.augment import augment, epoch_order, sample_rng
from deeplab_ray.config.recipe import AugmentConfig, Recipe
from deeplab_ray.images import decode_image, decode_label
from deeplab_ray.labels import IGNORE
from deeplab_ray.on_ray.ingest_plan import Portion, read_plan
from deeplab_ray.shards import Sample, Split, read_shard
from deeplab_ray.storage.location import Location

_FETCH_THREADS = 4
# Encoded bytes of a split that a process keeps.
_KEPT_BYTES = 256 * 2**20


def training_samples(split: Split, recipe: Recipe, workers: int, start: int) -> ray.data.Dataset:
    """The augmented crops of iterations `start` … end, in order, as a dataset to be split over the workers.

    A row is what one task fetches for one worker, k successive iterations with n samples each. Columns: iteration
    int64, the first of them; image uint8 k×n×crop×crop×3; label uint8 k×n×crop×crop (train ids, 255 = ignore), the
    crop being the iterations'. Every row is a block of its own, and rows go round the workers in turn, so that
    `streaming_split(workers, equal=True)` with `preserve_order` gives each worker its share of every global batch, in
    the order of the iterations.
    """
    fetch = FetchCrops(split, recipe, workers)
    return read_plan(recipe, workers, start).map_batches(fetch, batch_size=None, batch_format="numpy")


class FetchCrops:
    """A row of the plan → its crops, on whichever node the task runs."""

    def __init__(self, split: Split, recipe: Recipe, workers: int = 1) -> None:
        self.split, self.recipe, self.workers, self.seed = split, recipe, workers, recipe.seed

    def __reduce__(self) -> tuple[Any, ...]:
        # Ray Data unpickles it for every task, and the manifest of millions of samples takes long.
        return _unpickled, (cloudpickle.dumps((self.split, self.recipe, self.workers)),)

    def __call__(self, rows: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        portion = Portion(**{name: int(column.item()) for name, column in rows.items()})
        batch, size = self.recipe.solver.batch, len(self.split)
        positions = portion.positions(batch, batch // self.workers)
        orders = {int(e): kept_order(self.seed, int(e), size) for e in np.unique(positions // size)}
        augmentation = self.recipe.augmentation(portion.first)

        def crop(position: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
            epoch, index = divmod(position, size)
            return self.crop(int(orders[epoch][index]), epoch, augmentation)

        with ThreadPoolExecutor(_FETCH_THREADS) as pool:
            images, labels = zip(*pool.map(crop, positions.ravel().tolist()), strict=True)
        image, label = np.stack(images), np.stack(labels)
        return {
            "iteration": np.array([portion.first]),
            "image": image.reshape(1, *positions.shape, *image.shape[1:]),
            "label": label.reshape(1, *positions.shape, *label.shape[1:]),
        }

    def crop(self, index: int, epoch: int, augmentation: AugmentConfig) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The crop that sample `index` of the split gives in this epoch."""
        sample = _read(self.split, index)
        rng = sample_rng(self.seed, epoch, sample.id)
        image = decode_image(sample.image)
        # What has no label, in a split of both kinds, teaches nothing.
        label = decode_label(sample.label) if sample.label else np.full(image.shape[:2], IGNORE, np.uint8)
        return augment(image, label, augmentation, rng)


@lru_cache(maxsize=2)
def _unpickled(arguments: bytes) -> FetchCrops:
    """The process's FetchCrops for these pickled arguments."""
    return FetchCrops(*pickle.loads(arguments))


@lru_cache(maxsize=2)
def kept_order(seed: int, epoch: int, size: int) -> NDArray[np.int32]:
    """`epoch_order`, kept for the process's next tasks: of millions of samples, it would cost each of them more than
    its crops do. Two, as a task may reach into the next epoch."""
    return epoch_order(seed, epoch, size).astype(np.int32)


def _read(split: Split, index: int) -> Sample:
    """Sample `index`: of a small split out of its shards, each read whole and verified once; of a large one by itself.

    Raises UserError naming the shard if it is damaged or missing.
    """
    if sum(shard.bytes for shard in split.manifest.shards) > _KEPT_BYTES:
        return split.read(index)
    shard, row = split.place(index)
    kept = _kept(split.folder, split.manifest.digest)
    # By one thread at a time: two would fetch one shard twice.
    with kept.lock:
        if shard.path not in kept.shards:
            kept.shards[shard.path] = read_shard(split.folder, shard)
    return kept.shards[shard.path][row]


class _Kept:
    """The samples of one split, by shard, as far as they were read."""

    def __init__(self) -> None:
        self.shards: dict[str, list[Sample]] = {}
        self.lock = Lock()


@lru_cache(maxsize=2)
def _kept(folder: Location, digest: str) -> _Kept:
    """What this process keeps of the split in `folder`, as long as it holds the samples that it has now."""
    return _Kept()
