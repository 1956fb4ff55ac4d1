"""One stage of inference: an actor that takes units of a few images through its steps, one bad image aside.

A step is made inside the actor, since networks and compiled code do not travel. What goes from one stage to the next
are rows without the columns that begin with "_": full-size arrays never enter the object store.
"""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import ray

from deeplab_ray.errors import JobError, UserError, first_sentence
from deeplab_ray.outputs.journal import Done

Row = dict[str, Any]
"""An image on its way: at least key, id; each step adds columns."""


class Step(ABC):
    """What is done with each image."""

    name: str
    """What the user calls it, as in "read"."""
    exclusive = True
    """Whether it computes, so that a worker does one at a time; others, which wait for storage, overlap with it."""

    @abstractmethod
    def one(self, row: Row) -> Row:
        """Return the row with what the step adds. Whatever it raises makes the image a failed one, but for JobError,
        which is not about one image and ends the job."""

    def many(self, rows: list[Row], aside: "Aside") -> list[Row]:
        """Take all rows of a unit through the step; return those that go on."""
        results = ((row, aside.attempt(self.name, row, self.one)) for row in rows)
        return [result for _, result in results if result is not None]


@dataclass
class Aside:
    """Images of a unit that do not go on."""

    failed: list[Done] = field(default_factory=list)
    finished: list[Row] = field(default_factory=list)
    """Those for which nothing is left to do."""

    def attempt(self, step: str, row: Row, action: Callable[[Row], Row]) -> Row | None:
        """Return what the action makes of the row; None, and the row among the failed ones, if it raises."""
        try:
            return action(row)
        except JobError:
            raise
        except Exception as error:
            self.failed.append(Done(row["key"], row["id"], step, reason(error)))
            return None


def reason(error: Exception) -> str:
    """Why an image failed, in one line: our own sentences as they are, others with the kind of the error."""
    text = first_sentence(str(error))
    if isinstance(error, MemoryError):
        return "out of memory"
    if isinstance(error, UserError):
        return str(error)
    return (
        text
        if isinstance(error, ValueError | FileNotFoundError) and text
        else f"{type(error).__name__}: {text}".rstrip(": ")
    )


@dataclass(frozen=True)
class Report:
    """What a stage says of a unit. Small: it goes to the driver."""

    images: int
    """How many came."""
    failed: list[Done]
    rows: list[Row] = field(default_factory=list)
    """Of those for which nothing is left to do: all others, after the last stage."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By step, added up over its images."""
    busy: float = 0.0
    """Seconds for which the worker could do nothing else."""
    bytes: int = 0
    """Of what goes to the next stage."""


@dataclass(frozen=True)
class Started:
    """What a worker says of itself when it is ready."""

    node: str
    pid: int
    seconds: float
    """How long it took to make its steps."""


class StageActor:
    """An actor with the steps of one stage."""

    def __init__(self, steps: Sequence[Callable[[], Step]], last: bool) -> None:
        import os

        started = time.monotonic()
        self.steps, self.last = [make() for make in steps], last
        self._turn = threading.Lock()
        self._started = Started(ray.get_runtime_context().get_node_id(), os.getpid(), time.monotonic() - started)

    def ready(self) -> Started:
        """Answer once the steps are made."""
        return self._started

    def run(self, rows: list[Row]) -> tuple[Report, list[Row]]:
        """Take a unit through the steps; several units may be under way, of which one computes."""
        images, aside, seconds, busy = len(rows), Aside(), dict[str, float](), 0.0
        for step in self.steps:
            with self._turn if step.exclusive else nullcontext():
                started = time.monotonic()
                rows = step.many(rows, aside)
                seconds[step.name] = time.monotonic() - started
            busy += seconds[step.name] if step.exclusive else 0.0
        rows, finished = _without_private(rows), _without_private(aside.finished)
        if self.last:
            return Report(images, aside.failed, finished + rows, seconds, busy), []
        size = sum(len(value) for row in rows for value in row.values() if isinstance(value, bytes))
        return Report(images, aside.failed, finished, seconds, busy, size), rows


def _without_private(rows: list[Row]) -> list[Row]:
    return [{name: value for name, value in row.items() if not name.startswith("_")} for row in rows]
