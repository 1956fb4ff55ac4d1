"""Shards → the batches of the training workers, through Ray Data.

The order of samples and their augmentation are functions of (seed, epoch, sample id) alone, and iteration i
takes samples i·B … i·B + B − 1 of the epochs' permutations, one after another, whatever the number of workers.
So a run that goes on from iteration i sees exactly what it would have seen, and two workers at B/2 see what
one sees at B.

Only the plan enters the dataset, row by row as it is needed (see `plan`); each task fetches the encoded bytes of its
samples straight from the Parquet shards (one row a row group: one range read), decodes, augments and crops. Of a small
split, the processes that run the tasks keep the bytes: fetching them in every epoch would take as long as all the rest.
"""

import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import ray.data
from numpy.typing import NDArray

from deeplab_ray.augment import augment, epoch_order, sample_rng
from deeplab_ray.config.recipe import AugmentConfig, Config
from deeplab_ray.datasets.base import decode_image
from deeplab_ray.on_ray.plan import Portion, read_plan
from deeplab_ray.shards import Sample, Split
from deeplab_ray.storage.location import Location

_FETCH_THREADS = 4
# Encoded bytes of a split that a process keeps.
_KEPT_BYTES = 256 * 2**20


def training_samples(split: Split, config: Config, start: int) -> ray.data.Dataset:
    """The augmented crops of iterations `start` … end, in order, as a dataset to be split over the workers.

    A row is what one task fetches for one worker, k successive iterations with n samples each. Columns: iteration
    int64, the first of them; image uint8 k×n×crop×crop×3; label uint8 k×n×crop×crop (train ids, 255 = ignore), the
    crop being the iterations'. Every row is a block of its own, and rows go round the workers in turn, so that
    `streaming_split(workers, equal=True)` with `preserve_order` gives each worker its share of every global batch, in
    the order of the iterations.
    """
    return read_plan(config, start).map_batches(FetchCrops(split, config), batch_size=None, batch_format="numpy")


class FetchCrops:
    """A row of the plan → its crops, on whichever node the task runs."""

    def __init__(self, split: Split, config: Config) -> None:
        self.split, self.config, self.seed = split, config, config.runtime.seed

    def __reduce__(self) -> tuple[Any, ...]:
        # Ray Data unpickles it for every task, and the manifest of millions of samples takes long.
        return _unpickled, (pickle.dumps((self.split, self.config)),)

    def __call__(self, rows: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        portion = Portion(**{name: int(column.item()) for name, column in rows.items()})
        batch, size = self.config.solver.batch, len(self.split)
        positions = portion.positions(batch, batch // self.config.runtime.workers)
        orders = {int(e): kept_order(self.seed, int(e), size) for e in np.unique(positions // size)}
        augmentation = self.config.augmentation(portion.first)

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
        image, label = decode_image(sample.image), self.split.dataset.decode_label(sample.label)
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
    shards = split.manifest.shards
    if sum(shard.bytes for shard in shards) > _KEPT_BYTES:
        return split.read(index)
    # The path of a shard names the run that wrote it: prepared again, it is another.
    kept = _kept(split.folder / shards[0].path)
    if index not in kept:
        kept[index] = split.read(index)
    return kept[index]


@lru_cache(maxsize=2)
def _kept(first_shard: Location) -> dict[int, Sample]:
    """Samples of one split by number, as far as they were read."""
    return {}
