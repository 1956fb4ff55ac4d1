"""Preparing on one node and on three gives the same bytes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import stoppable

from deeplab_ray.storage.location import locate

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

JOB = Path(__file__).parents[2] / "jobs" / "prepare.py"


def prepare(source: Path, output: Path, nodes: int) -> dict[str, bytes]:
    """What jobs/prepare.py writes on a head without CPUs and so many nodes of two."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    command = [sys.executable, str(JOB), "camvid", "--source", str(source), "--output", str(output)]
    command += ["--rows-per-shard", "1", "--splits", "val"]
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=2)
        done = subprocess.run(
            command,
            env=os.environ | {"RAY_ADDRESS": str(cluster.address)},
            capture_output=True,
            text=True,
            timeout=300,
        )
    finally:
        cluster.shutdown()
    assert done.returncode == 0, done.stderr
    place = locate(output)
    return {name: (place / name).read_bytes() for name in place.files(recursive=True)}


def test_one_node_and_three_give_the_same_bytes(tmp_path: Path) -> None:
    source = stoppable.pictures(tmp_path / "source")
    one = prepare(source, tmp_path / "one", nodes=1)
    assert len(one) == stoppable.IMAGES + 1
    assert prepare(source, tmp_path / "three", nodes=3) == one
