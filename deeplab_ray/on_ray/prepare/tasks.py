"""Work on many things by Ray tasks, in their order, with a bounded number on the way; and how it is going."""

import contextlib
import pickle
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

import ray
from ray import cloudpickle
from ray.exceptions import NodeDiedError, OutOfMemoryError, WorkerCrashedError

from deeplab_ray.cli import check_interrupted, origin, say
from deeplab_ray.errors import JobError
from deeplab_ray.on_ray.infer.progress import duration

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 2
"""Tasks on the way for each CPU: one that runs, one that waits."""
_TICK_S, _END_S = 1.0, 600.0
_SAY_EVERY_S, _SAY_WAITING_EVERY_S = 5.0, 60.0


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], by_value: object, tick: Callable[[], None]
) -> Generator[Result, None, None]:
    """Yield work(item) of each item, in the items' order. Ray must run; a task takes one CPU.

    `items` is read only as fast as tasks come back, so that what is on the way does not grow with their number. A task
    whose node was lost is done again. by_value: an object whose class workers may not know, see `_pickled`. tick:
    called every second, or more often. What `work` raises is raised here; JobError if its process dies again and again.
    Unless it is interrupted, no task goes on when this ends.
    """
    packed = ray.put(_pickled(work, by_value))
    task: Any = ray.remote(_run).options(num_cpus=1)
    source, pending = iter(items), deque[Any]()
    more, said = True, time.monotonic()
    try:
        while True:
            while more and len(pending) < _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1))):
                try:
                    pending.append(task.remote(packed, next(source)))
                except StopIteration:
                    more = False
            if not pending:
                return
            if ray.wait([pending[0]], timeout=_TICK_S)[0]:
                yield ray.get(pending.popleft())
                said = time.monotonic()
            elif time.monotonic() - said > _SAY_WAITING_EVERY_S:
                said = time.monotonic()
                free, cpus = (each.get("CPU", 0) for each in (ray.available_resources(), ray.cluster_resources()))
                say(f"waiting for a task: {free:g} of {cpus:g} CPUs are free")
            tick()
    except (WorkerCrashedError, NodeDiedError, OutOfMemoryError) as error:
        raise JobError(
            f"a worker died several times ({origin(error)}): see whether its node has memory enough, or give a smaller "
            "--shard-mb, and run the same command again"
        ) from error
    except KeyboardInterrupt:
        pending.clear()
        raise
    finally:
        _let_end(list(pending))


def _run(packed: bytes, item: Item) -> Any:
    return pickle.loads(packed)(item)


def _pickled(work: object, by_value: object) -> bytes:
    """`work` as bytes. The module of the class of `by_value` goes with it, unless it belongs to this package.

    Otherwise a module beside somebody's script would have to lie on every node.
    """
    module = sys.modules[type(by_value).__module__]
    if module.__name__.split(".")[0] == __name__.split(".")[0]:
        return cloudpickle.dumps(work)
    cloudpickle.register_pickle_by_value(module)
    try:
        return cloudpickle.dumps(work)
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def _let_end(pending: list[Any]) -> None:
    """Wait until tasks have ended, so that none writes any more. To cancel them may end the driver, too (Ray 2.60)."""
    with contextlib.suppress(KeyboardInterrupt):
        # They end with the driver.
        check_interrupted()
        if pending:
            ray.wait(pending, num_returns=len(pending), timeout=_END_S)


class Progress:
    """Says how many images of each split are through: every five seconds, and at the end of a split."""

    def __init__(self, verb: str, totals: dict[str, int]) -> None:
        """verb: such as "checked". totals: images by split, in the order in which they come."""
        self._verb, self._totals = verb, totals
        self._done = dict.fromkeys(totals, 0)
        # Images that say nothing about the rate: those of earlier runs, and the first, which wait for workers to start.
        self._uncounted = 0
        self._begun: float | None = None
        self._said = time.monotonic()

    def add(self, split: str, images: int, before: bool = False) -> None:
        """Note images that are through, or were so before."""
        self._done[split] += images
        now, done, total = time.monotonic(), self._done[split], self._totals[split]
        if before or self._begun is None:
            self._uncounted += images
            self._begun = None if before else now
        through, left = sum(self._done.values()), sum(self._totals.values()) - sum(self._done.values())
        if done == total:
            print(f"{split}: {done}/{total} images {self._verb}", flush=True)
        elif now - self._said >= _SAY_EVERY_S and self._begun is not None and through > self._uncounted:
            rate = (through - self._uncounted) / (now - self._begun)
            print(
                f"{split}: {done}/{total} images {self._verb}, {rate:.1f} images/s, {duration(left / rate)} left",
                flush=True,
            )
        else:
            return
        self._said = now
