"""What the Ray cluster has, and whether a job fits on it: checked before the job starts, instead of hanging later."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ray
from ray.data import ActorPoolStrategy

from deeplab_ray.config.resources import InferenceResources, TrainingResources
from deeplab_ray.errors import UserError

# Ray Data's tasks (fetch, decode, augment) ask for one whole logical CPU on one node.
CPUS_FOR_DATA = 1.0
# Logical CPUs of an actor if there are not enough for one each.
_SHARE = 0.25
# On a small machine, with at most this many blocks of images, a second CRF actor takes longer to start than it saves.
_WORTH_A_SECOND = 25

Resources = Mapping[str, float]
"""A node's resources, by name."""


@dataclass(frozen=True)
class Pools:
    """How many actors predict, how many refine, and what each takes."""

    predictors: int
    predictor_cpus: float
    predictor_gpus: float
    refiners: int
    refiner_cpus: float
    growing: bool = False
    """Whether each pool starts with one actor and grows up to its number along with the cluster."""

    def strategy(self, actors: int) -> ActorPoolStrategy:
        """Return the strategy of a pool of `actors` actors."""
        return ActorPoolStrategy(min_size=1, max_size=actors) if self.growing else ActorPoolStrategy(size=actors)


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


def plan_pools(blocks: int, resources: InferenceResources) -> Pools:
    """Plan pools that fill the cluster for inference on `blocks` blocks of images; see `fill`.

    A cluster that grows by itself may be empty now: there, Ray Data asks for nodes while images wait. Raises UserError
    as `gpus_for_one` and `fill` do.
    """
    gpus = gpus_for_one(resources.gpus_per_predictor, resources.autoscaling, "--gpus-per-predictor")
    if resources.autoscaling:
        return Pools(blocks if gpus else 1, 1, gpus, blocks, 1, growing=True)
    return fill(_nodes(), blocks, gpus)


def fill(nodes: Sequence[Resources], blocks: int, gpus: float) -> Pools:
    """Fill the nodes: a predictor for each `gpus` GPUs (without GPUs, one per node of several CPUs), CRF actors on the
    remaining CPUs.

    There are no more actors of a kind than blocks of images. Every node of several CPUs keeps one CPU free for reading;
    if there is no such node, the cluster keeps one. An actor takes a whole CPU, or a quarter if there are too few.
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
        if any(reserved) and predictors and refiners and (best is None or predictors > best.predictors):
            best = Pools(predictors, predictor_cpus, gpus, refiners, refiner_cpus)
    if best is None:
        total = {name: sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU")}
        on_gpu = f" and, on the same node, {gpus:g} GPU for a predictor" if gpus else ""
        held = f"{total['CPU']:g} CPU" + (f" and {total['GPU']:g} GPU" if gpus else "")
        raise UserError(
            f"the cluster has {held}; inference needs {CPUS_FOR_DATA:g} CPU for reading, {_SHARE:g} each for a "
            f"predictor and a CRF actor{on_gpu}: add nodes, or pass --autoscaling if the cluster grows by itself"
        )
    return best


def _nodes() -> list[Resources]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
