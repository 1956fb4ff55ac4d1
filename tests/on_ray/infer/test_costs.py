"""The arithmetic of a chain against a simulation of it, event by event, and what a planner must never say."""

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from deeplab_ray.on_ray.infer.costs import (
    Job,
    NodeKind,
    StageCost,
    balance,
    beside,
    estimate,
    useful_share,
    within,
)


def stage(name: str, compute: float, storage: float = 0.0, start: float = 0.0, in_flight: int = 2) -> StageCost:
    return StageCost(name, compute, storage, start, in_flight)


@dataclass(eq=False)
class Worker:
    """As `StageActor`: units read side by side, and compute one after another."""

    stage: int
    ready: bool = False
    life: int = 0
    units: set[int] = field(default_factory=set)
    computing: bool = False
    turn: deque[int] = field(default_factory=deque)


class Simulation:
    """Units on their way through pools of workers, handed out as `Chain` does; every node has one worker."""

    def __init__(
        self,
        job: Job,
        workers: list[int],
        vary: Callable[[], float] = lambda: 1.0,
        lives: Callable[[], float] = lambda: math.inf,
        away: float = 0.0,
    ) -> None:
        """vary: factor of each of a unit's times. lives: seconds of a node's life; away: until it is replaced."""
        self.job, self.vary, self.lives, self.away = job, vary, lives, away
        self.workers = [[Worker(number) for _ in range(count)] for number, count in enumerate(workers)]
        self.queues: list[deque[int]] = [deque() for _ in workers]
        self.now, self._tie, self._events = 0.0, itertools.count(), list[tuple[float, int, Callable[[], None]]]()

    def run(self) -> float:
        """Seconds until all are through."""
        self.queues[0].extend(range(math.ceil(self.job.images / self.job.unit)))
        left = len(self.queues[0])
        self.through = 0
        for pool in self.workers:
            for worker in pool:
                self._after(self.job.stages[worker.stage].start_s, lambda worker=worker: self._ready(worker))
        while self.through < left:
            self._dispatch()
            self.now = self._events[0][0]
            while self._events and self._events[0][0] == self.now:
                heapq.heappop(self._events)[2]()
        return self.now

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        if seconds < math.inf:
            heapq.heappush(self._events, (self.now + seconds, next(self._tie), action))

    def _ready(self, worker: Worker) -> None:
        worker.ready = True
        self._after(self.lives(), lambda: self._die(worker))

    def _die(self, worker: Worker) -> None:
        worker.life, worker.ready, worker.computing = worker.life + 1, False, False
        self.queues[worker.stage].extendleft(worker.units)
        worker.units, worker.turn = set(), deque()
        self._after(self.away + self.job.stages[worker.stage].start_s, lambda: self._ready(worker))

    def _dispatch(self) -> None:
        for number in reversed(range(len(self.queues))):
            while self.queues[number] and self._room(number):
                in_flight = self.job.stages[number].in_flight
                free = [w for w in self.workers[number] if w.ready and len(w.units) < in_flight]
                if not free:
                    break
                self._take(self.queues[number].popleft(), min(free, key=lambda w: len(w.units)))

    def _room(self, number: int) -> bool:
        if number == len(self.queues) - 1:
            return True
        running = sum(len(w.units) for w in self.workers[number])
        room = 2 * len(self.workers[number + 1]) + len(self.workers[number])
        return len(self.queues[number + 1]) + running < room

    def _take(self, unit: int, worker: Worker) -> None:
        worker.units.add(unit)
        self._lasts(worker, "storage", lambda: (worker.turn.append(unit), self._compute(worker)))

    def _compute(self, worker: Worker) -> None:
        if worker.computing or not worker.turn:
            return
        unit, worker.computing = worker.turn.popleft(), True
        self._lasts(worker, "compute", lambda: self._computed(worker, unit))

    def _computed(self, worker: Worker, unit: int) -> None:
        worker.computing = False
        worker.units.remove(unit)
        self._compute(worker)
        if worker.stage + 1 < len(self.queues):
            self.queues[worker.stage + 1].append(unit)
        else:
            self.through += 1

    def _lasts(self, worker: Worker, what: str, then: Callable[[], object]) -> None:
        cost, life = self.job.stages[worker.stage], worker.life
        seconds = cost.storage_s if what == "storage" else cost.compute_s
        self._after(seconds * self.job.unit * self.vary(), lambda: then() if worker.life == life else None)


def nodes(workers: list[int], **options: float) -> list[tuple[NodeKind, int]]:
    """A node for each worker."""
    size = len(workers)
    return [
        (NodeKind(f"of {number}", tuple(int(number == each) for each in range(size)), **options), count)
        for number, count in enumerate(workers)
    ]


@pytest.mark.parametrize("workers", [[1, 1], [1, 10], [4, 3], [10, 1]])
@pytest.mark.parametrize("costs", [(0.1, 1.0), (1.0, 1.0), (1.0, 0.1)])
@pytest.mark.parametrize("storage", [0.0, 0.2, 1.0, 4.0])
@pytest.mark.parametrize("images", [8, 200, 1000])
def test_the_law_is_what_happens(workers: list[int], costs: tuple[float, float], storage: float, images: int) -> None:
    first, last = costs
    job = Job(images, (stage("predict", first, storage, 5), stage("refine", last, storage / 2, 9)), unit=4)
    found = estimate(job, nodes(workers)).seconds
    rates = [count / each.cycle_s for count, each in zip(workers, job.stages, strict=True)]
    # Where both are equally fast, the units of ten predictors come at the same moment.
    bound = 0.15 if math.isclose(*rates) else 0.04
    assert found == pytest.approx(Simulation(job, workers).run(), rel=bound)


@pytest.mark.parametrize("costs", [(0.1, 1.0), (1.0, 1.0), (1.0, 0.1)])
@pytest.mark.parametrize("storage", [0.1, 1.0])
def test_images_of_different_sizes_cost_what_their_mean_costs(costs: tuple[float, float], storage: float) -> None:
    """If images' times vary by half their mean, those of a unit of four vary by a quarter."""
    rng = random.Random(0)
    job = Job(4000, (stage("predict", costs[0], storage), stage("refine", costs[1])), unit=4)
    simulated = Simulation(job, [4, 4], vary=lambda: rng.gammavariate(16, 1 / 16)).run()
    assert estimate(job, nodes([4, 4])).seconds == pytest.approx(simulated, rel=0.15)


@pytest.mark.parametrize("costs", [(0.1, 1.0), (1.0, 1.0), (1.0, 0.1), (0.1, 0.1)])
@pytest.mark.parametrize(("life", "away"), [(3600, 300), (1200, 300), (300, 100)])
def test_what_spot_nodes_lose(costs: tuple[float, float], life: float, away: float) -> None:
    rng = random.Random(0)
    job = Job(40_000, tuple(stage(name, cost, 0.2, 20) for name, cost in zip("ab", costs, strict=True)), unit=4)
    simulated = Simulation(job, [8, 8], lives=lambda: rng.expovariate(1 / life), away=away).run()
    spot = nodes([8, 8], losses_per_hour=3600 / life, replacement_s=away)
    found = estimate(job, spot).seconds
    assert found == pytest.approx(simulated, rel=0.1)
    assert found > estimate(job, nodes([8, 8])).seconds


def test_the_example_of_the_docstring() -> None:
    job = Job(1_000_000, (stage("predict", 0.05, 0.02), stage("refine", 1.2, 0.05)), unit=16)
    gpu, cpu = NodeKind("GPU node", (1, 6), 4.0), NodeKind("CPU node", (0, 15), 0.8)
    assert balance(job, gpu, cpu) == pytest.approx(1.2)
    assert beside(job, gpu, 10, cpu) == [(gpu, 10), (cpu, 12)]
    found = estimate(job, [(gpu, 10), (cpu, 12)])
    assert found.seconds == pytest.approx(5000, rel=0.02)
    assert found.images_per_s == pytest.approx(200)
    assert found.node_hours == pytest.approx(22 * found.seconds / 3600)
    assert found.cost == pytest.approx((10 * 4.0 + 12 * 0.8) * found.seconds / 3600)
    assert found.use == {"predict": 1.0, "refine": pytest.approx(1.0)}
    # An hour on 14 times as many, or one more for the start.
    in_an_hour = within(job, 3600, gpu, cpu)
    assert in_an_hour
    assert in_an_hour[0] == (gpu, 14)
    assert estimate(job, in_an_hour).seconds <= 3600 < estimate(job, beside(job, gpu, 13, cpu)).seconds


def test_where_a_gpu_nodes_own_cpus_are_cheapest_it_stays_alone() -> None:
    job = Job(10**6, (stage("predict", 0.05), stage("refine", 1.2)))
    gpu, dear = NodeKind("GPU node", (1, 6), 1.0), NodeKind("CPU node", (0, 15), 4.0)
    assert beside(job, gpu, 10, dear) == [(gpu, 10), (dear, 0)]
    assert beside(job, replace(gpu, price_per_hour=None), 10, dear)[1] == (dear, 12)


def test_the_slowest_stage_is_named() -> None:
    stages = stage("predict", 0.1, 0.1), stage("refine", 1.0)
    kind = NodeKind("node", (1, 6))
    found = estimate(Job(1000, stages), [(kind, 2)])
    assert found.bottleneck == "refine"
    assert found.use == {"predict": pytest.approx(0.6), "refine": 1.0}
    assert found.cost is None
    # Two places of which each is taken for 2.1 s: the GPU waits for storage.
    slow = estimate(Job(1000, (stage("predict", 0.1, 2.0), stages[1])), [(kind, 2)])
    assert slow.bottleneck == "predict"
    assert slow.use["predict"] == pytest.approx(0.1 / 1.05)
    # A thousand nodes are more than one driver can feed.
    fed = estimate(Job(10**6, stages, unit=4, driver_s=0.001), [(kind, 1000)])
    assert (fed.bottleneck, fed.images_per_s) == ("driver", 2000)
    assert fed.seconds == pytest.approx(500)


def test_more_of_anything_never_hurts() -> None:
    stages = stage("predict", 0.05, 0.3, 20), stage("refine", 1.2, 0.05, 10)
    kind = NodeKind("node", (1, 6), 1.0, 0.1, 180)
    for images in (1, 1000, 10**7):
        seconds = [estimate(Job(images, stages, 16), [(kind, count)]).seconds for count in (1, 2, 3, 10, 100)]
        assert seconds == sorted(seconds, reverse=True)
    seconds = [estimate(Job(images, stages, 16), [(kind, 4)]).seconds for images in (0, 1, 10, 1000, 10**4, 10**7)]
    assert seconds == sorted(seconds)
    useful = [useful_share(stages[0], replace(kind, losses_per_hour=losses), 16) for losses in (0, 0.1, 1, 10, 1e4)]
    assert useful == sorted(useful, reverse=True)
    assert useful[0] == 1
    assert useful[-1] == 0


def test_nothing_and_what_cannot_be() -> None:
    stages = stage("predict", 0.05, 0.3, 20), stage("refine", 1.2, 0.05, 10)
    kind = NodeKind("node", (1, 0), 1.0)
    assert estimate(Job(0, stages), [(kind, 1)]).seconds == 0
    # One image: it waits for the workers, and passes through each stage.
    alone = estimate(Job(1, stages), [(replace(kind, workers=(1, 1)), 1)])
    assert alone.seconds == pytest.approx(20 + 0.35 + 1.25)
    # Nobody refines.
    never = estimate(Job(1000, stages), [(kind, 1)])
    assert (never.seconds, never.images_per_s, never.bottleneck) == (math.inf, 0, "refine")
    assert within(Job(1000, stages), 3600, kind, None) is None
    # The start alone takes longer than that.
    assert within(Job(1000, stages), 15, replace(kind, workers=(1, 1)), None) is None
    # Scores alone: there is no second stage to balance.
    assert balance(Job(1000, stages[:1]), NodeKind("GPU", (1,)), NodeKind("CPU", (0,))) == 0
    # Nothing to do at a stage.
    free = estimate(Job(1000, (stage("a", 0.0), stage("b", 1.0))), nodes([1, 10]))
    assert free.seconds == pytest.approx(100)
