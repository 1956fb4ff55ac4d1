"""What the Ray cluster has, and whether a job fits on it: checked before the job starts, instead of hanging later."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import ray
from ray._private.state import available_resources_per_node

from deeplab_ray.config.resources import InferenceResources, TrainingResources
from deeplab_ray.errors import UserError

# Ray Data's tasks (fetch, decode, augment) ask for one whole logical CPU on one node.
CPUS_FOR_DATA = 1.0
# Logical CPUs of an actor if there are not enough for one each.
_SHARE = 0.25
# On a small machine, with at most this many blocks of images, a second CRF actor takes longer to start than it saves.
_WORTH_A_SECOND = 25

# How long what a job that has ended held may take to come free.
_COMES_FREE_S = 8.0

Resources = Mapping[str, float]
"""A node's resources, by name."""
_Plan = TypeVar("_Plan")


@dataclass(frozen=True)
class Pool:
    """How many workers a stage of inference has, and what each takes."""

    size: int
    cpus: float = 1.0
    gpus: float = 0.0
    growing: bool = False
    """Whether it starts with one worker and grows up to `size` while images wait: the cluster grows along."""

    @property
    def needs(self) -> str:
        """What one worker takes, as text."""
        return f"{self.cpus:g} CPU" + (f" and {self.gpus:g} GPU" if self.gpus else "")


@dataclass(frozen=True)
class Pools:
    """How many actors predict, how many refine, and what each takes."""

    predictors: int
    predictor_cpus: float
    predictor_gpus: float
    refiners: int
    refiner_cpus: float
    growing: bool = False

    @property
    def predict(self) -> Pool:
        return Pool(self.predictors, self.predictor_cpus, self.predictor_gpus, self.growing)

    @property
    def refine(self) -> Pool:
        return Pool(self.refiners, self.refiner_cpus, 0.0, self.growing)


def gpus_for_one(asked: float | None, autoscaling: bool, flag: str) -> float:
    """Return the GPUs that one network takes: as asked for with `flag`, else 1 if the cluster has any, else 0.

    Raises UserError if that is unknown because the cluster has no GPU yet and grows by itself.
    """
    if asked is not None:
        return asked
    if ray.cluster_resources().get("GPU", 0):
        return 1.0
    if autoscaling:
        raise UserError(
            f"the cluster has no GPU yet, but with --autoscaling it may get some: pass {flag} 1 to wait for them, "
            f"or {flag} 0 to run on CPUs"
        )
    return 0.0


def gpus_per_worker(resources: TrainingResources) -> float:
    """Return the GPUs of a training worker; see `gpus_for_one`."""
    return gpus_for_one(resources.gpus_per_worker, resources.autoscaling, "--gpus-per-worker")


def workers_that_fit(resources: TrainingResources, groups: int = 1) -> int:
    """Return how many training workers the nodes hold, with CPUS_FOR_DATA set aside for each of `groups`."""
    gpus = gpus_per_worker(resources)
    nodes = sorted(_nodes(), key=lambda node: node.get("GPU", 0))
    to_reserve, count = groups * CPUS_FOR_DATA, 0
    for node in nodes:
        cpus = node.get("CPU", 0.0)
        reserved = min(to_reserve, cpus // 1)
        to_reserve -= reserved
        by_cpu = int((cpus - reserved) / resources.cpus_per_worker + 1e-6)
        count += min(by_cpu, int(node.get("GPU", 0) / gpus + 1e-6)) if gpus else by_cpu
    return 0 if to_reserve > 0 else count


def check_workers_fit(resources: TrainingResources) -> None:
    """Raise UserError, with the arithmetic, if the cluster cannot hold the workers and still feed them.

    A cluster that grows by itself is not checked; there the user must only say whether to use GPUs (`gpus_for_one`).
    """
    gpus = gpus_per_worker(resources)
    if resources.autoscaling or workers_that_fit(resources) >= resources.workers:
        return
    held = ray.cluster_resources()
    need = f"{resources.workers} × {resources.cpus_per_worker:g} CPU"
    need += f" and {resources.workers} × {gpus:g} GPU" if gpus else ""
    raise UserError(
        f"the cluster cannot hold {resources.workers} workers: they need {need}, and {CPUS_FOR_DATA:g} CPU must be "
        f"left to feed them; it has {held.get('CPU', 0):g} CPU and {held.get('GPU', 0):g} GPU on "
        f"{sum(node['Alive'] for node in ray.nodes())} node(s): lower --workers, --cpus-per-worker or "
        "--gpus-per-worker, add nodes, or pass --autoscaling if the cluster grows by itself"
    )


def plan_pools(units: int, resources: InferenceResources) -> Pools:
    """Plan pools that fill what is free of the cluster, for inference on so many units of images; see `fill`.

    A cluster that grows by itself may be empty now. Raises UserError as `gpus_for_one` and `fill` do, after a few
    seconds if others hold what it has.
    """
    gpus = gpus_for_one(resources.gpus_per_predictor, resources.autoscaling, "--gpus-per-predictor")
    if resources.autoscaling:
        most = (resources.predictors or (units if gpus else 1), resources.refiners or units)
        return Pools(most[0], 1, gpus, most[1], 1, growing=True)
    return _free_enough(lambda nodes: fill(nodes, units, gpus, resources.predictors, resources.refiners))


def plan_refiners(units: int, resources: InferenceResources) -> Pool:
    """Plan the pool of a job without a network: CRF actors on all CPUs that are free. Raises UserError as above."""
    if resources.autoscaling:
        return Pool(resources.refiners or units, growing=True)
    return _free_enough(lambda nodes: fill_refiners(nodes, units, resources.refiners))


def _free_enough(plan: Callable[[Sequence[Resources]], _Plan]) -> _Plan:
    """Plan with what is free now. What a job that has just ended held comes free within seconds: wait for that."""
    whole = plan(_nodes())
    until = time.monotonic() + _COMES_FREE_S
    while True:
        try:
            now = plan(_free())
        except UserError as error:
            if time.monotonic() > until:
                raise UserError(
                    f"other jobs hold the cluster ({_sum(_nodes())}, of which {_sum(_free())} are free): wait for "
                    f"them, or add nodes ({error})"
                ) from None
        else:
            if now == whole or time.monotonic() > until:
                return now
        time.sleep(0.25)


def fill_refiners(nodes: Sequence[Resources], units: int, most: int | None = None) -> Pool:
    """Fill the nodes with CRF actors of a whole CPU each, or a quarter if there is no whole one.

    There are no more of them than units, and than `most`. Raises UserError, with the arithmetic, for `most` that do not
    fit, and if none does.
    """
    for cpus in (1.0, _SHARE):
        seats = sum(int(node.get("CPU", 0) / cpus + 1e-6) for node in nodes)
        if seats:
            if most and most > seats:
                raise UserError(f"--refiners {most} need {most} × {cpus:g} CPU; the cluster has {_sum(nodes)}")
            return Pool(min(seats, units, most or seats), cpus)
    raise UserError(f"the cluster has {_sum(nodes)}; a CRF actor needs {_SHARE:g} CPU: add nodes")


def fill(
    nodes: Sequence[Resources],
    blocks: int,
    gpus: float,
    most_predictors: int | None = None,
    most_refiners: int | None = None,
) -> Pools:
    """Fill the nodes: a predictor for each `gpus` GPUs (without GPUs, one per node of several CPUs), CRF actors on the
    remaining CPUs.

    There are no more actors of a kind than blocks of images, and no more than asked for (`most_…`), if that is said.
    Every node of several CPUs keeps one CPU free for reading; if there is no such node, the cluster keeps one. An actor
    takes a whole CPU, or a quarter if there are too few.
    Raises UserError, with the arithmetic, if not even that fits.
    """
    reserved = [CPUS_FOR_DATA if node.get("CPU", 0) >= 2 else 0.0 for node in nodes]
    if not any(reserved):
        # Preferably on a node without a GPU, because a predictor needs a CPU beside its GPU.
        order = sorted(range(len(nodes)), key=lambda index: nodes[index].get("GPU", 0))
        reader = next((index for index in order if nodes[index].get("CPU", 0) >= CPUS_FOR_DATA), None)
        reserved = [CPUS_FOR_DATA * (index == reader) for index in range(len(nodes))]
    free = [max(0.0, node.get("CPU", 0) - kept) for node, kept in zip(nodes, reserved, strict=True)]
    if gpus:
        seats = [int(node.get("GPU", 0) / gpus + 1e-6) for node in nodes]
    else:
        largest = max(range(len(nodes)), key=free.__getitem__, default=0)
        seats = [int(cpus >= 2 or index == largest) for index, cpus in enumerate(free)]
    best: Pools | None = None
    for predictor_cpus, refiner_cpus in ((1.0, 1.0), (_SHARE, 1.0), (_SHARE, _SHARE)):
        seated = [min(seat, int(cpus / predictor_cpus)) for seat, cpus in zip(seats, free, strict=True)]
        left = [cpus - count * predictor_cpus for count, cpus in zip(seated, free, strict=True)]
        predictors, refiners = sum(seated), sum(int(cpus / refiner_cpus) for cpus in left)
        if predictors > 1 and not refiners and predictor_cpus >= refiner_cpus:
            predictors, refiners = predictors - 1, 1
        predictors, refiners = min(predictors, blocks), min(refiners, blocks)
        if refiner_cpus < 1:
            refiners = min(refiners, 2 if blocks > _WORTH_A_SECOND else 1)
        if (most_predictors or 0) > predictors or (most_refiners or 0) > refiners:
            continue
        predictors, refiners = most_predictors or predictors, most_refiners or refiners
        if any(reserved) and predictors and refiners and (best is None or predictors > best.predictors):
            best = Pools(predictors, predictor_cpus, gpus, refiners, refiner_cpus)
    if best is None:
        total = {name: sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU")}
        on_gpu = f" and, on the same node, {gpus:g} GPU for a predictor" if gpus else ""
        held = f"{total['CPU']:g} CPU" + (f" and {total['GPU']:g} GPU" if gpus else "")
        if most_predictors or most_refiners:
            raise UserError(
                f"the cluster has {held}, of which {CPUS_FOR_DATA:g} CPU must stay for reading: it cannot hold actors "
                f"of at least {_SHARE:g} CPU, {most_predictors or 1} for the network{on_gpu} and {most_refiners or 1} "
                "for the CRF: lower --predictors or --refiners, add nodes, or pass --autoscaling if the cluster grows "
                "by itself"
            )
        raise UserError(
            f"the cluster has {held}; inference needs {CPUS_FOR_DATA:g} CPU for reading, {_SHARE:g} each for a "
            f"predictor and a CRF actor{on_gpu}: add nodes, or pass --autoscaling if the cluster grows by itself"
        )
    return best


def _nodes() -> list[Resources]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _free() -> list[Resources]:
    alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    return [free for node, free in available_resources_per_node().items() if node in alive]


def _sum(nodes: Sequence[Resources]) -> str:
    return " and ".join(f"{sum(node.get(name, 0) for node in nodes):g} {name}" for name in ("CPU", "GPU"))
