"""How inference fills clusters of several shapes: nothing that no node can hold, nothing left idle."""

import threading
import time

import pytest

from deeplab_ray.config.resources import InferenceResources
from deeplab_ray.errors import UserError
from deeplab_ray.on_ray import resources
from deeplab_ray.on_ray.resources import Pool, Pools, fill, fill_refiners, plan_pools, plan_refiners


def node(cpus: float, gpus: float = 0) -> dict[str, float]:
    return {"CPU": cpus} | ({"GPU": gpus} if gpus else {})


@pytest.mark.parametrize(
    ("nodes", "gpus", "pools"),
    [
        # A laptop of two cores, where whole CPUs do not go round, and one of four.
        ([node(2)], 0, Pools(1, 0.25, 0, 2, 0.25)),
        ([node(4)], 0, Pools(1, 1, 0, 2, 1)),
        # CPUs alone: a predictor a node, and CRF actors on the rest.
        ([node(16), node(16)], 0, Pools(2, 1, 0, 28, 1)),
        ([node(1)] * 20, 0, Pools(1, 1, 0, 18, 1)),
        # A GPU machine with CPU machines beside it.
        ([node(8, 1), node(16)], 1, Pools(1, 1, 1, 21, 1)),
        # More GPUs than CPUs.
        ([node(8, 8)], 1, Pools(8, 0.25, 1, 5, 1)),
        ([node(4, 8), node(64)], 1, Pools(8, 0.25, 1, 64, 1)),
        ([node(2, 4)], 1, Pools(3, 0.25, 1, 1, 0.25)),
        # Two GPUs for each predictor, or half of one.
        ([node(8, 4)], 2, Pools(2, 1, 2, 5, 1)),
        ([node(8, 1)], 0.5, Pools(2, 1, 0.5, 5, 1)),
    ],
)
def test_a_cluster_is_filled(nodes: list[dict[str, float]], gpus: float, pools: Pools) -> None:
    assert fill(nodes, 1000, gpus) == pools


def test_there_are_no_more_actors_than_work() -> None:
    assert fill([node(64, 8)], 3, 1) == Pools(3, 1, 1, 3, 1)


@pytest.mark.parametrize(
    ("nodes", "gpus"),
    [
        ([], 0),
        ([node(1)], 0),
        ([node(16)], 1),  # no GPU at all
        ([node(16, 1)] * 2, 2),  # no node has two
        ([node(0, 1), node(16)], 1),  # no CPU where the GPU is
    ],
)
def test_what_no_node_can_hold_is_refused_with_the_arithmetic(nodes: list[dict[str, float]], gpus: float) -> None:
    with pytest.raises(UserError, match=r"the cluster has \d+ CPU.*; inference needs 1 CPU for reading"):
        fill(nodes, 1000, gpus)


def test_pools_of_the_size_that_is_asked_for() -> None:
    assert fill([node(16, 2)], 1000, 1, most_predictors=1, most_refiners=5) == Pools(1, 1, 1, 5, 1)
    assert fill_refiners([node(16), node(4)], 1000) == Pool(20)
    assert fill_refiners([node(16), node(4)], 1000, most=3) == Pool(3)
    assert fill_refiners([node(16)], 2) == Pool(2)
    assert fill_refiners([node(0.5)], 1000) == Pool(2, 0.25)
    with pytest.raises(UserError, match=r"the cluster has 16 CPU.*cannot hold .* 1 for the network and 40 for the CRF"):
        fill([node(16)], 1000, 0, most_refiners=40)
    with pytest.raises(UserError, match=r"--refiners 40 need 40 × 1 CPU; the cluster has 16 CPU and 0 GPU"):
        fill_refiners([node(16)], 1000, most=40)
    with pytest.raises(UserError, match=r"the cluster has 0 CPU and 1 GPU; a CRF actor needs 0\.25 CPU"):
        fill_refiners([node(0, 1)], 1000)


def test_what_others_hold_is_told_within_seconds_and_what_comes_free_is_waited_for(
    ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    assert resources._COMES_FREE_S < 10
    monkeypatch.setattr(resources, "_COMES_FREE_S", 3.0)

    class Holder:
        def ready(self) -> None:
            pass

    holder = ray.remote(Holder).options(num_cpus=8).remote()  # type: ignore[attr-defined]
    ray.get(holder.ready.remote())
    started = time.monotonic()
    with pytest.raises(UserError, match=r"other jobs hold the cluster \(8 CPU and 0 GPU, of which 0 CPU"):
        plan_pools(100, InferenceResources())
    with pytest.raises(UserError, match=r"other jobs hold the cluster \(8 CPU and 0 GPU, of which 0 CPU"):
        plan_refiners(100, InferenceResources())
    assert time.monotonic() - started < 10
    threading.Timer(1, ray.kill, [holder]).start()
    assert plan_pools(100, InferenceResources()) == Pools(1, 1, 0, 6, 1)
