"""Stages of actor pools, one after another, through which units of a few images go: read, predict → refine, write.

Each pool has the size that its own cost asks for. The driver hands out units and keeps count; what they hold goes from
actor to actor through the object store. At most two units wait at each actor, and so many between the stages as the
pools are large: memory is bounded by the pools, never by the set.

Why not Ray Data's pools: with those, every unit is a task known from the start (250,000 of them for a million images),
the first image came 36 to 41 s after the start, and neither queues nor the cost of a stage could be seen. Here a unit
whose actor, node or input is lost is done again, a stage's actors are let go once its work is done, and what is slow is
measured.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import ActorDiedError, ObjectLostError, RayActorError, RayError, RayTaskError

from deeplab_ray.cli import origin
from deeplab_ray.errors import JobError
from deeplab_ray.on_ray.infer.stage import Report, Row, StageActor, Step
from deeplab_ray.on_ray.resources import Pool
from deeplab_ray.outputs.journal import Done

IN_FLIGHT = 2
"""Units at an actor: one that computes, one that waits or is being read."""
# A unit whose worker died while it computed it, so often: its images go on one by one; then each is given up.
_SPLIT_AFTER, _GIVE_UP_AFTER = 2, 5
# So many workers in a row for each place of a pool may die before they are ready.
_STILLBORN = 4
_WAIT_S = 1.0
_SAY_WAITING_EVERY_S = 30.0


@dataclass(frozen=True)
class Stage:
    """Steps that are done by one worker, and their pool."""

    name: str
    steps: Sequence[Callable[[], Step]]
    """Makers of the steps, picklable; they are called in the worker."""
    pool: Pool


@dataclass
class StageState:
    """What is known of a stage while the chain runs."""

    name: str
    size: int
    workers: int = 0
    """Ready ones, now."""
    waiting: int = 0
    """Units that wait for a worker."""
    running: int = 0
    """Units at workers."""
    images: int = 0
    """That came through."""
    computed: int = 0
    """That workers took up, those of units that were lost and done again included."""
    busy: float = 0.0
    """Seconds of workers, added up."""
    ready_seconds: float = 0.0
    """Seconds that workers were ready, added up."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By step."""
    bytes: int = 0
    deaths: int = 0
    start: float = 0.0
    """Seconds from the chain's start to its first ready worker."""

    @property
    def use(self) -> float:
        """Share of its workers' time that went into computing, 0..1."""
        return min(1.0, self.busy / self.ready_seconds) if self.ready_seconds else 0.0


@dataclass(eq=False)
class _Unit:
    origin: list[Row]
    """As it came in."""
    rows: Any
    """What the next stage takes: the rows themselves, or a reference to them."""
    stage: int = 0
    images: int = 0
    deaths: int = 0


@dataclass(eq=False)
class _Worker:
    stage: int
    actor: Any
    starting: Any
    """Reference to its `Started`; None once it is ready."""
    units: dict[Any, tuple[_Unit, Any]] = field(default_factory=dict)
    """By the reference to the report: the unit, and the reference to its rows."""
    since: float = 0.0
    """When it was found ready."""


class Chain:
    """Stages of actor pools. `with Chain(stages, say) as chain: for report in chain.run(units): …`

    say: takes lines of progress. Entering starts all workers at once and returns before they are ready; leaving ends
    them.
    """

    def __init__(self, stages: Sequence[Stage], say: Callable[[str], None]) -> None:
        self.stages, self._say = stages, say
        self.states = [StageState(stage.name, stage.pool.size) for stage in stages]
        self._queues: list[deque[_Unit]] = [deque() for _ in stages]
        self._workers: list[list[_Worker]] = [[] for _ in stages]
        self._actors = [_remote(stage) for stage in stages]
        self._worker_of: dict[Any, _Worker] = {}
        self._entered = self._last_seen = self._waiting_said = time.monotonic()
        self._over = False
        self._stillborn = [0] * len(stages)

    def __enter__(self) -> "Chain":
        self._entered = time.monotonic()
        # The last stage first: where resources are scarce, what is finished must be able to leave.
        for number in reversed(range(len(self.stages))):
            pool = self.stages[number].pool
            for _ in range(1 if pool.growing else pool.size):
                self._start(number)
        return self

    def __exit__(self, *_: object) -> None:
        for workers in self._workers:
            for worker in list(workers):
                self._end(worker)

    def run(
        self, units: Iterable[list[Row]], tick: Callable[[], None] = lambda: None, keep: bool = False
    ) -> Iterator[Report]:
        """Take the units through the stages; yield reports of those that left the last stage, and of images that left
        before.

        Every image of every unit is in exactly one report, among its rows or among its failures, in any order. `units`
        is read only as fast as the first stage takes them. tick: called about once a second. keep: do not end
        the workers of a stage once it has nothing left to do. Raises JobError if a worker cannot start, or if a step
        ends the job.
        """
        source = iter(units)
        self._over = False
        while True:
            while not self._over and len(self._queues[0]) <= len(self._workers[0]):
                rows = next(source, None)
                if rows is None:
                    self._over = True
                elif rows:
                    self._queues[0].append(_Unit(rows, rows, images=len(rows)))
            self._dispatch()
            if self._over and not keep:
                self._release()
            if self._over and not any(self._queues) and not any(w.units for each in self._workers for w in each):
                return
            pending = list(self._worker_of)
            ready, _ = ray.wait(pending, num_returns=1, timeout=_WAIT_S, fetch_local=False)
            if ready:
                ready, _ = ray.wait(pending, num_returns=len(pending), timeout=0, fetch_local=False)
            for ref in ready:
                yield from self._finish(ref)
            self._watch()
            tick()

    def _start(self, stage: int) -> None:
        actor = self._actors[stage].remote(list(self.stages[stage].steps), stage == len(self.stages) - 1)
        worker = _Worker(stage, actor, actor.ready.remote())
        self._workers[stage].append(worker)
        self._worker_of[worker.starting] = worker

    def _end(self, worker: _Worker) -> None:
        for ref in (worker.starting, *worker.units):
            self._worker_of.pop(ref, None)
        if worker.starting is None:
            self.states[worker.stage].ready_seconds += time.monotonic() - worker.since
        self._workers[worker.stage].remove(worker)
        with suppress(RayError, ValueError):
            ray.kill(worker.actor)

    def _dispatch(self) -> None:
        """Give waiting units to workers, the last stage first."""
        for stage in reversed(range(len(self.stages))):
            queue, workers, pool = self._queues[stage], self._workers[stage], self.stages[stage].pool
            if queue and (not workers or (pool.growing and self._short(stage))):
                self._start(stage)
            free = [worker for worker in workers if worker.starting is None and len(worker.units) < IN_FLIGHT]
            while queue and free and self._room_after(stage):
                worker = min(free, key=lambda worker: len(worker.units))
                self._send(queue.popleft(), worker)
                if len(worker.units) == IN_FLIGHT:
                    free.remove(worker)

    def _short(self, stage: int) -> bool:
        """Whether a growing pool should get one more worker: all are busy, and none is on its way."""
        workers = self._workers[stage]
        return len(workers) < self.stages[stage].pool.size and all(len(w.units) == IN_FLIGHT for w in workers)

    def _room_after(self, stage: int) -> bool:
        """Whether what the stage makes has a place to wait."""
        if stage == len(self.stages) - 1:
            return True
        running = sum(len(worker.units) for worker in self._workers[stage])
        room = IN_FLIGHT * len(self._workers[stage + 1]) + len(self._workers[stage])
        return len(self._queues[stage + 1]) + running < max(room, IN_FLIGHT)

    def _send(self, unit: _Unit, worker: _Worker) -> None:
        report, rows = worker.actor.run.options(num_returns=2).remote(unit.rows)
        worker.units[report] = unit, rows
        self._worker_of[report] = worker
        self.states[worker.stage].computed += unit.images

    def _release(self) -> None:
        """End the workers of a stage to which nothing will come any more: their GPUs are needed elsewhere."""
        for stage, workers in enumerate(self._workers):
            if self._queues[stage] or any(worker.units for worker in workers):
                return
            for worker in list(workers):
                self._end(worker)

    def _finish(self, ref: Any) -> Iterator[Report]:
        worker = self._worker_of.pop(ref, None)
        if worker is None:
            return
        if ref not in worker.units:
            self._began(worker)
            return
        at_work = next(iter(worker.units.values()))[0]
        unit, rows = worker.units.pop(ref)
        try:
            report: Report = ray.get(ref)
        except RayError as error:
            yield from self._lost(worker, unit, at_work, error)
            return
        state = self.states[worker.stage]
        state.images += report.images
        state.busy += report.busy
        state.bytes += report.bytes
        for step, seconds in report.seconds.items():
            state.seconds[step] = state.seconds.get(step, 0.0) + seconds
        over = {done.key for done in report.failed} | {row["key"] for row in report.rows}
        if over:
            yield report
            unit.origin = [row for row in unit.origin if row["key"] not in over]
        if unit.origin:
            unit.rows, unit.images, unit.stage = rows, len(unit.origin), worker.stage + 1
            self._queues[unit.stage].append(unit)

    def _began(self, worker: _Worker) -> None:
        try:
            ray.get(worker.starting)
        except RayError as error:
            self._end(worker)
            if not isinstance(error, RayActorError) or error.actor_init_failed:
                raise JobError(
                    f"a worker of stage {self.stages[worker.stage].name} cannot start ({origin(error)})"
                ) from error
            self._stillborn[worker.stage] += 1
            if self._stillborn[worker.stage] > _STILLBORN * self.stages[worker.stage].pool.size:
                raise JobError(
                    f"workers of stage {self.stages[worker.stage].name} die as they start ({origin(error)}): see "
                    "whether the nodes have memory enough for them"
                ) from error
            self._replace(worker.stage)
            return
        self._stillborn[worker.stage] = 0
        worker.starting, worker.since = None, time.monotonic()
        state = self.states[worker.stage]
        state.start = state.start or worker.since - self._entered

    def _lost(self, worker: _Worker, unit: _Unit, at_work: _Unit, error: RayError) -> Iterator[Report]:
        """A unit came to nothing: what to do depends on whether the worker, its input or a step is to blame.

        at_work: the unit that its worker was computing.
        """
        cause = error.cause if isinstance(error, RayTaskError) else error
        if not isinstance(cause, RayError) or isinstance(cause, RayTaskError):
            raise JobError(f"stage {self.stages[worker.stage].name} failed: {origin(error)}") from error
        if isinstance(cause, RayActorError) and worker in self._workers[worker.stage]:
            self.states[worker.stage].deaths += isinstance(cause, ActorDiedError)
            at_work.deaths += 1
            self._end(worker)
            # Nobody looks at their calls any more.
            for other, _ in worker.units.values():
                yield from self._again(other)
            worker.units.clear()
            self._replace(worker.stage)
        if isinstance(cause, ObjectLostError):
            # What an earlier stage had made is gone, with its node.
            unit.rows, unit.stage, unit.images = unit.origin, 0, len(unit.origin)
        yield from self._again(unit)

    def _again(self, unit: _Unit) -> Iterator[Report]:
        """Put a lost unit back, in front; one that kills its workers in pieces; give such an image up."""
        if unit.deaths >= _GIVE_UP_AFTER and len(unit.origin) == 1:
            row = unit.origin[0]
            why = f"its worker died {unit.deaths} times, as if out of memory: try it alone, or with --tile"
            yield Report(1, [Done(row["key"], row["id"], self.stages[unit.stage].name, why)])
        elif unit.deaths >= _SPLIT_AFTER and len(unit.origin) > 1:
            self._queues[0].extendleft(
                _Unit([row], [row], images=1, deaths=unit.deaths) for row in reversed(unit.origin)
            )
        else:
            self._queues[unit.stage].appendleft(unit)

    def _replace(self, stage: int) -> None:
        if len(self._workers[stage]) < self.stages[stage].pool.size:
            self._start(stage)

    def _watch(self) -> None:
        """Take stock, and say so if work waits for workers that cannot start."""
        now = time.monotonic()
        for stage, state in enumerate(self.states):
            workers = self._workers[stage]
            state.workers = sum(worker.starting is None for worker in workers)
            state.waiting = len(self._queues[stage])
            state.running = sum(len(worker.units) for worker in workers)
            for worker in workers:
                if worker.starting is None:
                    state.ready_seconds += now - worker.since
                    worker.since = now
        if all(state.workers for state, workers in zip(self.states, self._workers, strict=True) if workers):
            self._last_seen = now
        elif now - max(self._last_seen, self._waiting_said) > _SAY_WAITING_EVERY_S:
            self._waiting_said = now
            free = ray.available_resources()
            for each, state in zip(self.stages, self.states, strict=True):
                if not state.workers:
                    self._say(
                        f"waiting for {each.name}: none of {each.pool.size} workers runs; each needs "
                        f"{each.pool.needs}, free are {free.get('CPU', 0):g} CPU and {free.get('GPU', 0):g} GPU"
                    )


def _remote(stage: Stage) -> Any:
    pool = stage.pool
    # Ray's dashboard and `ps` show a worker by the name of its class: Predict, Refine.
    kind = type("".join(word.capitalize() for word in stage.name.split()), (StageActor,), {})
    return ray.remote(kind).options(
        num_cpus=pool.cpus,
        num_gpus=pool.gpus,
        max_restarts=0,
        max_task_retries=0,
        max_concurrency=IN_FLIGHT,
    )
