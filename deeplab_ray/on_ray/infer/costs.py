"""What a chain of stages takes: seconds, nodes and money, by arithmetic alone. `plan` measures what goes into it.

The law. A worker of a stage has k = `in_flight` units under way, of which one computes (c seconds an image) while the
others read, write or wait (s seconds an image). So it is through with an image every

    cycle = max(c, (c + s) / k)

seconds: it computes all the time, or each of its k places is taken for c + s seconds an image. W workers do W / cycle
images a second, and the chain as many as its slowest stage; the driver, which hands out each unit at each stage, sets
another bound. All of n units of u images are through after

    seconds = max over the stages of  release + u (c + s) + u · cycle · (⌈n / W⌉ − 1) + rest

where `release` is when the stage's workers are ready and the first unit is through the stages before, and `rest` what
the last unit takes in the stages after: the pipeline fills, runs at the pace of its slowest stage, and drains.
(Exactly, a worker's units come in groups of k: c seconds apart within a group, k · cycle from one group to the next.)

That is for units of equal cost, with which it is exact to a few percent. Where two of its bounds coincide, two stages'
rates or c = s, it is up to 15 % too fast: units come in bursts, and wait for each other.

Losses. A spot node lives 1/λ hours on average and is away for d = replacement + start seconds. Its workers lose what
they were at, about one cycle of a unit. So of each cycle of life and absence the useful share is

    useful = (1 − λ u cycle) / (1 + λ d),    λ in losses a second

What waits for the next stage on a node that goes is not counted: where that is much, this stage is not the slowest.

Example, two GPUs' nodes and their CRF: a GPU predicts in 0.05 s and a CPU refines in 1.2 s an image, reading and
writing take 0.02 and 0.05 s. A node of 1 GPU and 8 CPUs predicts 1 / 0.05 = 20 images a second and, with 6 CPUs left,
refines 6 / 1.2 = 5 of them; a node of 16 CPUs refines 15 / 1.2 = 12.5. (20 − 5) / 12.5 = 1.2 CPU nodes balance a GPU
node. A million images take one GPU node 50,000 s = 13.9 h.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

_MOST_NODES = 2**20


@dataclass(frozen=True)
class StageCost:
    """What a stage takes for an image, in seconds of one of its workers."""

    name: str
    compute_s: float
    """For which the worker can compute nothing else."""
    storage_s: float
    """Of reading and writing, while the worker computes another unit."""
    start_s: float
    """From nothing to a worker that is ready."""
    in_flight: int
    """Units that a worker has under way."""

    @property
    def latency_s(self) -> float:
        """Seconds of an image that has a worker to itself."""
        return self.compute_s + self.storage_s

    @property
    def cycle_s(self) -> float:
        """Seconds between two images of one worker."""
        return max(self.compute_s, self.latency_s / self.in_flight)


@dataclass(frozen=True)
class NodeKind:
    """A kind of node, as one can rent it."""

    name: str
    workers: tuple[float, ...]
    """Of each stage on such a node, on average."""
    price_per_hour: float | None = None
    losses_per_hour: float = 0.0
    """How often such a node is taken away, on average."""
    replacement_s: float = 0.0
    """Seconds from a node's loss to the next one that has joined the cluster."""


Nodes = Sequence[tuple[NodeKind, int]]
"""So many nodes of each kind."""


@dataclass(frozen=True)
class Job:
    """Images and what they cost at each stage."""

    images: int
    stages: tuple[StageCost, ...]
    unit: int = 1
    """Images that go through the stages together."""
    driver_s: float = 0.0
    """Seconds of the driver for a unit at a stage."""


@dataclass(frozen=True)
class Estimate:
    """What a job will take."""

    images: int
    seconds: float
    """From the start of the workers to the last image."""
    images_per_s: float
    """Once the pipeline is full, losses counted."""
    bottleneck: str
    """Name of the slowest stage, or "driver"."""
    use: dict[str, float]
    """By stage: share of its workers' time that goes into computing, once the pipeline is full."""
    node_hours: float
    cost: float | None
    """None if a node has no price."""


def useful_share(stage: StageCost, kind: NodeKind, unit: int) -> float:
    """Share of the time of a node's workers that gets work done, 0..1, the rest being lost with nodes."""
    losses = kind.losses_per_hour / 3600
    return max(0.0, 1 - losses * unit * stage.cycle_s) / (1 + losses * (kind.replacement_s + stage.start_s))


def stage_rate(stage: StageCost, number: int, nodes: Nodes, unit: int) -> float:
    """Images a second that all workers of a stage do; `number` is its place among the stages."""
    workers = sum(count * kind.workers[number] * useful_share(stage, kind, unit) for kind, count in nodes)
    if not workers or stage.cycle_s:
        return workers / stage.cycle_s if workers else 0.0
    return math.inf


def estimate(job: Job, nodes: Nodes) -> Estimate:
    """What the job takes on these nodes; see the law above. Without a worker of some stage it takes for ever."""
    rates = [stage_rate(stage, number, nodes, job.unit) for number, stage in enumerate(job.stages)]
    names = [stage.name for stage in job.stages]
    if job.driver_s:
        rates.append(job.unit / (job.driver_s * len(job.stages)))
        names.append("driver")
    rate = min(rates)
    seconds = _seconds(job, nodes, rates) if rate or not job.images else math.inf
    workers = [sum(count * kind.workers[number] for kind, count in nodes) for number in range(len(job.stages))]
    use = {
        stage.name: min(1.0, rate * stage.compute_s / count) if count and stage.compute_s else 0.0
        for stage, count in zip(job.stages, workers, strict=True)
    }
    hours, cost = seconds / 3600, 0.0
    for kind, count in nodes:
        cost += count * hours * (kind.price_per_hour or 0.0) if count else 0.0
    priced = all(kind.price_per_hour is not None for kind, count in nodes if count)
    node_hours = hours * sum(count for _, count in nodes)
    return Estimate(
        job.images, seconds, rate, names[rates.index(rate)], use, node_hours, cost if priced and job.images else None
    )


def _seconds(job: Job, nodes: Nodes, rates: Sequence[float]) -> float:
    if not job.images:
        return 0.0
    units = math.ceil(job.images / job.unit)
    # The last unit may be a small one.
    size = job.images / units
    through = release = 0.0
    for number, stage in enumerate(job.stages):
        workers = round(sum(count * kind.workers[number] for kind, count in nodes), 6)
        rounds, places = divmod(math.ceil(units / workers) - 1, stage.in_flight)
        more = size * (rounds * stage.in_flight * stage.cycle_s + places * stage.compute_s)
        if stage.cycle_s:
            # What losses slow down is the pace; the first unit and the rest hardly meet any.
            more *= workers / (rates[number] * stage.cycle_s)
        release = max(release, stage.start_s)
        rest = size * sum(later.latency_s for later in job.stages[number + 1 :])
        through = max(through, release + size * stage.latency_s + more + rest)
        release += size * stage.latency_s
    starting = job.stages[0].start_s
    return max(through, starting + job.driver_s * len(job.stages) * units)


def balance(job: Job, main: NodeKind, other: NodeKind | None) -> float:
    """How many nodes of the kind `other` keep one of the kind `main` busy; 0 if its own workers do.

    main: holds workers of the first stage; `other` those of the last stage alone.
    """
    if other is None or len(job.stages) < 2:
        return 0.0
    last = len(job.stages) - 1
    first_rate = stage_rate(job.stages[0], 0, [(main, 1)], job.unit)
    own = stage_rate(job.stages[last], last, [(main, 1)], job.unit)
    of_other = stage_rate(job.stages[last], last, [(other, 1)], job.unit)
    return max(0.0, (first_rate - own) / of_other) if of_other else 0.0


def beside(job: Job, main: NodeKind, count: int, other: NodeKind | None) -> Nodes:
    """So many nodes of the kind `main`, and as many of the other as make an image cheapest.

    That is so many as balance them, rounded up or down, or none: between these a node more makes every image dearer or
    every image cheaper. If a price is not known, they are balanced, rounded up.
    """
    exact = balance(job, main, other) * count
    if other is None or not exact:
        return [(main, count)]
    choices = sorted({0, math.floor(exact + 1e-9), math.ceil(exact - 1e-9)}, reverse=True)

    def price(others: int) -> float:
        found = estimate(job, [(main, count), (other, others)])
        if found.cost is None:
            return -others
        # While it runs: what the start costs depends on the number of images.
        hourly = count * (main.price_per_hour or 0.0) + others * (other.price_per_hour or 0.0)
        return hourly / found.images_per_s if found.images_per_s else math.inf

    return [(main, count), (other, min(choices, key=price))]


def within(job: Job, seconds: float, main: NodeKind, other: NodeKind | None) -> Nodes | None:
    """The fewest nodes, in the proportions of `beside`, that do the job in time; None if no number of them does."""

    def in_time(count: int) -> bool:
        return estimate(job, beside(job, main, count, other)).seconds <= seconds

    high = 1
    while not in_time(high):
        high *= 2
        if high > _MOST_NODES:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if in_time(middle) else (middle, high)
    return beside(job, main, high, other)
