"""How inference fills clusters of several shapes: nothing that no node can hold, nothing left idle."""

import pytest

from deeplab_ray.errors import UserError
from deeplab_ray.on_ray.resources import Pools, fill


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
