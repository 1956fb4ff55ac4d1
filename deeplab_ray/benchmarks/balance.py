"""The chain of actor pools on stages that sleep: how near it comes to the ideal rate, on any machine."""

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from deeplab_ray.on_ray.infer.chain import Stage
from deeplab_ray.on_ray.infer.stage import Row, Step
from deeplab_ray.on_ray.infer.work import Todo, Work
from deeplab_ray.on_ray.resources import Pool

SECONDS = 2.0
"""What the dearer stage takes for an image; small against it is what the driver takes for a unit."""


class Sleep(Step):
    """Takes so many seconds for each image, and no CPU."""

    def __init__(self, seconds: float, name: str = "sleep", exclusive: bool = True, lives: float = math.inf) -> None:
        """exclusive: whether a worker does one unit at a time, as it computes; others overlap, as reading does.
        lives: seconds after which the worker dies, as that of a spot node."""
        self.seconds, self.name, self.exclusive = seconds, name, exclusive
        self._end = time.monotonic() + lives

    def one(self, row: Row) -> Row:
        time.sleep(self.seconds)
        if time.monotonic() > self._end:
            os._exit(1)
        return row


@dataclass(frozen=True)
class Balance:
    """Two stages whose costs are in this ratio, and the pools among which the CPUs were divided likewise."""

    costs: tuple[int, int]
    workers: tuple[int, int]
    ideal_images_per_s: float
    """Of the slower pool, if it never waited."""
    images_per_s: float
    """From the time that all workers were ready to the last image."""

    @property
    def share(self) -> float:
        return self.images_per_s / self.ideal_images_per_s


def measure(costs: tuple[int, int], cpus: int, rounds: int = 20) -> Balance:
    """Run so many images that every worker of the slower pool gets about `rounds`. Ray must run, with `cpus` CPUs."""
    seconds = [SECONDS * cost / max(costs) for cost in costs]
    first = min(cpus - 1, max(1, round(cpus * costs[0] / sum(costs))))
    workers = first, cpus - first
    ideal = min(count / each for count, each in zip(workers, seconds, strict=True))
    # Named otherwise, the pools' processes could not be told apart.
    stages = [
        Stage(name, (partial(Sleep, each),), Pool(count))
        for name, each, count in zip(("first", "second"), seconds, workers, strict=True)
    ]
    images = math.ceil(rounds * ideal * SECONDS)
    with Work(stages) as work:
        while any(state.workers < state.size for state in work.states):
            _run(work, 1)
        started = time.monotonic()
        _run(work, images)
        # The first image meets an empty chain.
        taken = time.monotonic() - started - min(seconds)
    return Balance(costs, workers, ideal, images / taken)


def table(rows: Sequence[Balance]) -> str:
    """A line for each ratio of costs."""
    lines = [f"{'costs':>6}{'workers':>10}{'ideal images/s':>16}{'images/s':>10}{'share':>7}"]
    for row in rows:
        costs, workers = (":".join(map(str, pair)) for pair in (row.costs, row.workers))
        rates = f"{row.ideal_images_per_s:>16.2f}{row.images_per_s:>10.2f}{row.share:>7.2f}"
        lines.append(f"{costs:>6}{workers:>10}{rates}")
    return "\n".join(lines)


def _run(work: Work, images: int) -> None:
    names = pa.array(map(str, range(images)))
    todo = Todo(names, names, images)
    assert sum(done.stage is None for done, _ in work.run(todo, 1, keep=True)) == images
