"""What the plan of a training costs: the driver before the first batch, every task, and whoever waits for that batch.

Ray must run. The long training's split has a manifest as `prepare` writes it, and no shards: nothing is fetched from
it. First batches are those of a split of a few tiny images, so that what is timed is the plan's way through Ray Data.
"""

import io
import tempfile
import time
import tracemalloc
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray.data
from numpy.typing import NDArray
from PIL import Image
from ray import cloudpickle

from deeplab_ray.config.recipe import AugmentConfig, Recipe, SolverConfig
from deeplab_ray.labels import ClassTable
from deeplab_ray.models.configs import DeepLabV2Config
from deeplab_ray.on_ray.ingest import kept_order, training_samples
from deeplab_ray.on_ray.ingest_plan import read_plan
from deeplab_ray.shards import Manifest, Shard, Split, write_shard
from deeplab_ray.storage.location import locate

SHORT = 100
"""Iterations of the training that the long one is compared with."""
_CLASSES = ClassTable(("background", "object"), ((0, 0, 0), (255, 255, 255)), (0, 1))
_SHARE = 10
_ROWS_PER_SHARD = 64
_TINY_IMAGES = 16
_READING_S = 5.0


@dataclass(frozen=True)
class Costs:
    """All seconds are wall-clock time."""

    seconds: float
    """To make the dataset of the long training and to pickle it for Ray Data's coordinator."""
    mib: float
    """Peak of what Python allocates on the driver meanwhile."""
    short_seconds: float
    short_mib: float
    """The same for a training of SHORT iterations."""
    order_seconds: float
    """The permutation of an epoch: once a process and epoch."""
    order_cached_seconds: float
    """The same for every other task of that process and epoch."""
    rows_per_second: float
    """Rows of the plan that come out of Ray Data, each of which makes a task."""
    first_batch_seconds: float
    """From nothing to the first batch of two workers, in a training of so many iterations."""
    short_first_batch_seconds: float


def measure(iterations: int, workers: int, ids: int) -> Costs:
    """Costs of a training of `iterations` on `workers`, with 10 crops each, over a split of `ids` samples."""
    split, long = _split_of(ids), _recipe(iterations, workers, _SHARE)
    # Ray Data imports half of itself at the first dataset.
    read_plan(long, workers, 0)
    seconds, mib = _driver(split, long, workers)
    short_seconds, short_mib = _driver(split, _recipe(SHORT, workers, _SHARE), workers)
    order, cached = _order(ids)
    rows = _rows_per_second(long, workers)
    with tempfile.TemporaryDirectory(prefix="deeplab-ray-plan-") as folder:
        tiny = _tiny_split(folder)
        # Ray starts the processes that run tasks.
        _first_batch(tiny, SHORT)
        short_first = _first_batch(tiny, SHORT)
        first = _first_batch(tiny, iterations)
    return Costs(seconds, mib, short_seconds, short_mib, order, cached, rows, first, short_first)


def table(costs: Costs) -> str:
    """The costs for a terminal."""
    short = f"{SHORT} iterations"
    rows = [
        ("", "the training", short),
        ("dataset on the driver, s", f"{costs.seconds:.3f}", f"{costs.short_seconds:.3f}"),
        ("dataset on the driver, MiB", f"{costs.mib:.1f}", f"{costs.short_mib:.1f}"),
        ("first batch after, s", f"{costs.first_batch_seconds:.1f}", f"{costs.short_first_batch_seconds:.1f}"),
        ("rows (tasks) planned a second", f"{costs.rows_per_second:.0f}", ""),
        ("epoch's permutation, once a process, ms", f"{1e3 * costs.order_seconds:.1f}", ""),
        ("epoch's permutation, later tasks, ms", f"{1e3 * costs.order_cached_seconds:.3f}", ""),
    ]
    return "\n".join(f"{name:<40} {long:>14} {other:>16}".rstrip() for name, long, other in rows)


def _recipe(iterations: int, workers: int, share: int) -> Recipe:
    solver = SolverConfig(batch=workers * share, iterations=iterations)
    return Recipe(DeepLabV2Config(), AugmentConfig(crop=33), solver)


def _split_of(ids: int) -> Split:
    """A split without shards, whose manifest is as long as that of `ids` samples."""
    shards = [
        Shard(f"shards-20260101-000000/{number:05d}.parquet", min(_ROWS_PER_SHARD, ids - first), "0" * 64, 10**7, ())
        for number, first in enumerate(range(0, ids, _ROWS_PER_SHARD))
    ]
    return Split(locate("/nowhere/train"), _manifest(ids, shards))


def _tiny_split(folder: str) -> Split:
    rng = np.random.default_rng(0)

    def png(shape: tuple[int, ...], values: int) -> bytes:
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, values, shape, np.uint8)).save(file, "PNG")
        return file.getvalue()

    rows = [
        {"id": str(n), "image": png((40, 56, 3), 256), "label": png((40, 56), 2), "height": 40, "width": 56}
        for n in range(_TINY_IMAGES)
    ]
    place = locate(folder) / "train"
    shard = write_shard(place / "shards-1", "00000.parquet", rows)
    assert shard
    return Split(place, _manifest(_TINY_IMAGES, [shard]))


def _manifest(images: int, shards: list[Shard]) -> Manifest:
    return Manifest("benchmark", "train", _CLASSES, [images, images], shards, [])


def _driver(split: Split, recipe: Recipe, workers: int) -> tuple[float, float]:
    """Seconds and peak MiB of what the training's controller does before Ray Data takes over."""
    start = time.perf_counter()
    cloudpickle.dumps(training_samples(split, recipe, workers, 0))
    seconds = time.perf_counter() - start
    tracemalloc.start()
    cloudpickle.dumps(training_samples(split, recipe, workers, 0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return seconds, peak / 2**20


def _order(ids: int) -> tuple[float, float]:
    """Seconds of an epoch's permutation in a process's first task of that epoch, and in the next."""

    def seconds() -> float:
        start = time.perf_counter()
        kept_order(0, 0, ids)
        return time.perf_counter() - start

    kept_order.cache_clear()
    return seconds(), seconds()


def _rows_per_second(recipe: Recipe, workers: int) -> float:
    rows = iter(_blocks(_in_order(read_plan(recipe, workers, 0))))
    # The generator's process starts.
    next(rows)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < _READING_S and next(rows, None):
        count += 1
    return count / (time.perf_counter() - start)


def _first_batch(split: Split, iterations: int) -> float:
    """Seconds from nothing until both of two workers have their share of the first batch."""
    start = time.perf_counter()
    samples = training_samples(split, _recipe(iterations, 2, _SHARE), 2, 0)
    shards = _in_order(samples).streaming_split(2, equal=True)

    def first(shard: ray.data.DataIterator) -> float:
        batches = iter(_blocks(shard))
        next(batches)
        seconds = time.perf_counter() - start
        if iterations == SHORT:
            # Left before its end, a pipeline takes its processes with it, and the next one would wait for new ones.
            deque(batches, maxlen=0)
        return seconds

    with ThreadPoolExecutor(len(shards)) as pool:
        return max(pool.map(first, shards))


def _in_order(samples: ray.data.Dataset) -> ray.data.Dataset:
    samples.context.execution_options.preserve_order = True
    return samples


def _blocks(samples: ray.data.Dataset | ray.data.DataIterator) -> Iterable[dict[str, NDArray[Any]]]:
    return samples.iter_batches(batch_size=None, batch_format="numpy")  # type: ignore[arg-type]
