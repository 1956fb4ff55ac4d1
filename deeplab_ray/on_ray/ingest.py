"""Shards → the batches of the training workers, through Ray Data.

The order of samples and their augmentation are functions of (seed, epoch, sample id) alone, and iteration i
takes samples i·B … i·B + B − 1 of the epochs' permutations, one after another, whatever the number of workers.
So a run that goes on from iteration i sees exactly what it would have seen, and two workers at B/2 see what
one sees at B.

Only positions enter the dataset; each task fetches the encoded bytes of its samples straight from the Parquet
shards (one row a row group: one range read), decodes, augments and crops. Of a small split, the processes that run the
tasks keep the bytes: fetching them in every epoch would take as long as all the rest.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data
from numpy.typing import NDArray

from deeplab_ray.augment import augment, epoch_order, sample_rng
from deeplab_ray.config.recipe import AugmentConfig, Recipe
from deeplab_ray.images import decode_image, decode_label
from deeplab_ray.labels import IGNORE
from deeplab_ray.shards import Sample, Split, read_shard
from deeplab_ray.storage.location import Location

_FETCH_THREADS = 4
# Samples in a block: large enough for the scheduler's cost of some ms a task, small enough to start soon.
_BLOCK_SAMPLES = 32
# Encoded bytes of a split that a process keeps.
_KEPT_BYTES = 256 * 2**20


def training_samples(split: Split, recipe: Recipe, workers: int, start: int) -> ray.data.Dataset:
    """The augmented crops of iterations `start` … end, in order, as a dataset to be split over the workers.

    Rows: iteration int64, image uint8 crop×crop×3, label uint8 crop×crop (train ids, 255 = ignore), the crop being
    the iteration's. Blocks go round the workers in turn, so that `streaming_split(workers, equal=True)` with
    `preserve_order` gives each worker its share of every global batch, in the order of the iterations.
    """
    solver = recipe.solver
    share = solver.batch // workers
    per_block = max(1, _BLOCK_SAMPLES // share)
    blocks = []
    first = start
    while first < solver.iterations:
        # All crops of a block have one size.
        phase_end = recipe.small_iterations if first < recipe.small_iterations else solver.iterations
        iterations = range(first, min(first + per_block, phase_end))
        first = iterations.stop
        for worker in range(workers):
            # Position: the number of the sample in the sequence of all epochs.
            positions = [i * solver.batch + worker * share + k for i in iterations for k in range(share)]
            blocks.append(pa.table({"position": positions}))
    return ray.data.from_arrow(blocks).map_batches(FetchCrops(split, recipe), batch_size=None, batch_format="numpy")


class FetchCrops:
    """Positions → crops, on whichever node the task runs."""

    def __init__(self, split: Split, recipe: Recipe) -> None:
        self.split, self.recipe, self.seed = split, recipe, recipe.seed

    def __call__(self, rows: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        positions, batch = rows["position"], self.recipe.solver.batch
        size = len(self.split)
        orders = {int(e): epoch_order(self.seed, int(e), size) for e in np.unique(positions // size)}

        def crop(position: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
            epoch, index = divmod(position, size)
            return self.crop(int(orders[epoch][index]), epoch, self.recipe.augmentation(position // batch))

        with ThreadPoolExecutor(_FETCH_THREADS) as pool:
            crops = list(pool.map(crop, positions.tolist()))
        return {
            "iteration": positions // batch,
            "image": np.stack([image for image, _ in crops]),
            "label": np.stack([label for _, label in crops]),
        }

    def crop(self, index: int, epoch: int, augmentation: AugmentConfig) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The crop that sample `index` of the split gives in this epoch."""
        sample = _read(self.split, index)
        rng = sample_rng(self.seed, epoch, sample.id)
        image = decode_image(sample.image)
        # What has no label, in a split of both kinds, teaches nothing.
        label = decode_label(sample.label) if sample.label else np.full(image.shape[:2], IGNORE, np.uint8)
        return augment(image, label, augmentation, rng)


def _read(split: Split, index: int) -> Sample:
    """Sample `index`: of a small split out of its shards, each read whole and verified once; of a large one by itself.

    Raises UserError naming the shard where it is damaged or missing.
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
