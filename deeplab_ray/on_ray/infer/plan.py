"""Plan a batch prediction: measure a few of its images on this cluster, and tell what all of them will take.

What is measured are the seconds of a worker for an image, when all workers are busy; `costs` makes hours, nodes and
money of them. Nothing is claimed and nothing stays: files go into OUTPUT/.progress/plan, which is removed.
"""

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import ray

from deeplab_ray.config.resources import InferenceResources
from deeplab_ray.errors import JobError, UserError
from deeplab_ray.machine import usable_cpus
from deeplab_ray.on_ray.infer.chain import IN_FLIGHT, Chain, Stage, StageState
from deeplab_ray.on_ray.infer.costs import Job, StageCost
from deeplab_ray.on_ray.infer.delivery import Begun
from deeplab_ray.on_ray.infer.predict import Request
from deeplab_ray.on_ray.infer.stage import Row
from deeplab_ray.on_ray.infer.work import Todo, find_todo, say
from deeplab_ray.on_ray.resources import gpus_for_one
from deeplab_ray.outputs.journal import PROGRESS, Done, Journal

_UNITS_EACH = 2
"""Units for each worker of the first stage, at least, so that one is read while another is computed."""


@dataclass(frozen=True)
class Measured:
    """What a few images took."""

    images: int
    seconds: float
    """From the first to the last of them, with workers that were ready."""
    stages: tuple[StageCost, ...]
    workers: tuple[int, ...]
    """Of each stage, then."""
    unit: int
    driver_s: float
    """Seconds of the driver for a unit at a stage."""
    failed: list[Done]

    def job(self, images: int, unit: int) -> Job:
        """So many images at these costs, in units of so many."""
        return Job(images, self.stages, unit, self.driver_s)


@dataclass(frozen=True)
class Node:
    """What one of the cluster's nodes has, or one that could be rented."""

    cpus: float
    gpus: float = 0.0
    price_per_hour: float | None = None

    @classmethod
    def parse(cls, text: str, flag: str, gpus: bool) -> "Node":
        """ "GPUS,CPUS,PRICE", or "CPUS,PRICE" of a node without GPUs. Raises UserError, which names the flag."""
        shape = "GPUS,CPUS,PRICE" if gpus else "CPUS,PRICE"
        try:
            numbers = [float(part) for part in text.split(",")]
            if len(numbers) != shape.count(",") + 1 or not all(0 <= each < math.inf for each in numbers):
                raise ValueError
            if not all(each > 0 for each in numbers[:-1]):
                raise ValueError
        except ValueError:
            raise UserError(f"{flag} {text} is not {shape}, such as {'1,8,1.2' if gpus else '16,0.7'}") from None
        return cls(numbers[-2], numbers[0] if gpus else 0.0, numbers[-1])

    def __str__(self) -> str:
        return (f"{self.gpus:g} GPU and " if self.gpus else "") + f"{self.cpus:g} CPU"

    def resources(self) -> dict[str, float]:
        """As Ray names them."""
        return {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})


def count(request: Request) -> tuple[int, int]:
    """How many images the input has, and how many of them an earlier run into the output has done."""
    order = request.order
    claimed = (order.output / order.record_name).exists()
    todo = find_todo(order.inputs, Journal(order.output) if claimed else None, ids_by_reading=order.ids_by_reading)
    if not todo.total:
        raise UserError(f"there is no image in {order.inputs.uri}")
    return todo.total, todo.total - len(todo)


def measure_request(request: Request, resources: InferenceResources, images: int) -> Measured:
    """Predict at least so many images of the request, spread evenly over its input, and throw the results away.

    Ray must be initialised. The workers are those that a job of many images would get. Raises UserError for a cluster
    too small, and JobError if no image can be predicted.
    """
    output = request.order.output
    scratch = output / PROGRESS / "plan"
    order = replace(request.order, target=replace(request.order.target, output=scratch))
    todo = find_todo(order.inputs, ids_by_reading=order.ids_by_reading)
    stages, unit = replace(request, order=order).stages(Begun(order, Journal(output), False, todo), resources)
    first = stages[0].pool
    at_work = 1 if first.growing else first.size
    wanted = max(images, _UNITS_EACH * at_work * unit)
    try:
        return measure(stages, *_spread(todo, unit, math.ceil(wanted / unit)))
    finally:
        scratch.delete_tree()
        if not output.is_s3:
            with contextlib.suppress(OSError):  # somebody's journal is in it
                Path((output / PROGRESS).path).rmdir()


def measure(stages: Sequence[Stage], units: Sequence[list[Row]], warm: Sequence[list[Row]]) -> Measured:
    """Take the units through the stages and time them, once all workers are ready and warm.

    warm: units that go first, again and again until all workers are ready; their results do not count. A pool that
    grows with the cluster is measured with the workers that it has by then.
    """
    started = time.monotonic()
    ready: list[list[float]] = [[] for _ in stages]
    failed: list[Done] = []
    with Chain(stages, say) as chain:

        def note_starts() -> None:
            for times, state in zip(ready, chain.states, strict=True):
                times += [time.monotonic() - started] * (state.workers - len(times))

        def until_ready() -> Iterator[list[Row]]:
            number = 0
            while number < len(warm) or not all(_all_there(*each) for each in zip(stages, chain.states, strict=True)):
                yield warm[number % len(warm)]
                number += 1

        for _ in chain.run(until_ready(), note_starts, keep=True):
            pass
        before = [replace(state, seconds=dict(state.seconds)) for state in chain.states]
        began, driver = time.monotonic(), time.thread_time()
        for report in chain.run(units, keep=True):
            failed += report.failed
        driver, seconds = time.thread_time() - driver, time.monotonic() - began
        costs = tuple(_cost(then, now, times) for then, now, times in zip(before, chain.states, ready, strict=True))
        workers = tuple(state.workers for state in chain.states)
    images = sum(map(len, units))
    if len(failed) == images:
        raise JobError(f"none of {images} images that were tried could be predicted; the first: {failed[0].reason}")
    unit = max(map(len, units))
    return Measured(images, seconds, costs, workers, unit, driver / len(units) / len(stages), failed)


def nodes_here() -> list[Node]:
    """The nodes of this cluster."""
    held = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in held]


def hardware() -> str:
    """What this cluster is made of: "2 nodes of 8 CPU and 1 GPU (H100)"."""
    nodes, kinds = nodes_here(), ray.cluster_resources()
    gpus = sorted(name.partition(":")[2] for name in kinds if name.startswith("accelerator_type:"))
    shapes = sorted({str(node) for node in nodes})
    text = f"{len(nodes)} node{'s' * (len(nodes) != 1)} of {' or '.join(shapes)}" + f" ({', '.join(gpus)})" * bool(gpus)
    cores = usable_cpus()
    if len(nodes) == 1 and nodes[0].cpus > cores:
        text += f", on a machine of {cores} cores: workers share them, and a node with a core for each is faster"
    return text


def gpus_of_predictor(resources: InferenceResources) -> float:
    """GPUs that a predictor takes on this cluster; raises UserError as `gpus_for_one` does."""
    return gpus_for_one(resources.gpus_per_predictor, resources.autoscaling, "--gpus-per-predictor")


def _spread(todo: Todo, unit: int, count: int) -> tuple[list[list[Row]], list[list[Row]]]:
    """So many units of neighbouring images, as a job makes them, evenly over the input; and as many between these."""
    all_units = math.ceil(len(todo) / unit)
    count = min(count, all_units)

    def at(place: float) -> list[Row]:
        number = min(int(place * all_units / count), all_units - 1)
        part = replace(
            todo,
            keys=todo.keys.slice(number * unit, unit),
            ids=None if todo.ids is None else todo.ids.slice(number * unit, unit),
        )
        return next(part.units(unit))

    return [at(number) for number in range(count)], [at(number + 0.5) for number in range(count)]


def _all_there(stage: Stage, state: StageState) -> bool:
    return state.workers >= (1 if stage.pool.growing else stage.pool.size)


def _cost(before: StageState, after: StageState, ready: Sequence[float]) -> StageCost:
    images = max(1, after.images - before.images)
    busy = after.busy - before.busy
    steps = sum(after.seconds.values()) - sum(before.seconds.values())
    start = sum(ready) / len(ready) if ready else 0.0
    return StageCost(after.name, busy / images, max(0.0, steps - busy) / images, start, IN_FLIGHT)
