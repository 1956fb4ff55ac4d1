"""Batch prediction while what it runs on is killed: predictors, CRF actors, raylets, and the job itself."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import tiny

from deeplab_ray import datasets
from deeplab_ray.scenes import draw as scenes
from deeplab_ray.storage.location import locate

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

JOB = Path(__file__).parents[2] / "jobs" / "predict.py"
IMAGES = 120
KILLS = ("Predict", "Refine", "raylet", "job", "Refine", "Predict", "job", "raylet", "Refine", "job")


class Nodes:
    """A head without CPUs and two nodes of four, one of which may be lost; a new one takes its place."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        self.nodes = [self.cluster.add_node(num_cpus=4) for _ in range(2)]

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def kill_raylet(self) -> None:
        node = self.nodes.pop(0)
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        # An agent whose raylet is gone computes at full speed for a minute, which would slow down all else.
        agents = [each for each in raylet.children() if "Agent" in "".join(each.cmdline())]
        raylet.kill()
        for agent in agents:
            with contextlib.suppress(psutil.NoSuchProcess):
                agent.kill()
        self.nodes.append(self.cluster.add_node(num_cpus=4))
        with contextlib.suppress(Exception):  # half of it is gone already
            self.cluster.remove_node(node)


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    found = Nodes()
    yield found
    found.cluster.shutdown()


class Job:
    """A running jobs/predict.py."""

    def __init__(self, checkpoint: Path, source: Path, output: Path, address: str) -> None:
        command = [sys.executable, str(JOB), "--checkpoint", str(checkpoint), "--input", str(source)]
        command += ["--output", str(output), "--format", "index", "overlay"]
        # Every worker takes seconds to start, and the first of each pool has most to do.
        command += ["--predictors", "1", "--refiners", "2"]
        self.process = subprocess.Popen(
            command,
            env=os.environ | {"RAY_ADDRESS": address},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ended_or(self, condition: Callable[[], object]) -> Callable[[], object]:
        return lambda: self.process.poll() is not None or condition()

    def result(self) -> dict[str, Any]:
        output, errors = self.process.communicate(timeout=600)
        assert self.process.returncode == 0, errors
        return json.loads(output.splitlines()[-1].removeprefix("RESULT "))  # type: ignore[no-any-return]


def files(output: Path) -> dict[str, bytes]:
    return {str(file.relative_to(output)): file.read_bytes() for file in sorted(output.rglob("*")) if file.is_file()}


def published(output: Path) -> dict[Path, tuple[int, int]]:
    """What a rewritten file would not have again: inode and time."""
    found = {}
    for kind in ("index", "overlay"):
        for file in (output / kind).rglob("*.*"):
            found[file] = (file.stat().st_ino, file.stat().st_mtime_ns)
    return found


def workers(kind: str) -> list[int]:
    """Processes of the stage's actors, in any node of this machine."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        if "".join(process.info["cmdline"] or ()).startswith(f"ray::{kind}"):
            found.append(process.info["pid"])
    return found


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "nothing happened for too long"
        time.sleep(0.1)


def test_whatever_is_killed_every_output_is_there_once_and_the_same(nodes: Nodes, tmp_path: Path) -> None:
    source = tmp_path / "scenes"
    scenes.draw(locate(source), {"val": IMAGES}, 96, 192, seed=0)
    (tmp_path / "checkpoint").mkdir()
    checkpoint = tiny.checkpoint(tmp_path / "checkpoint", tiny.recipe(), datasets.get("scenes").table)
    calm, stormy = tmp_path / "calm", tmp_path / "stormy"
    undisturbed = Job(checkpoint, source / "leftImg8bit", calm, nodes.address).result()
    assert undisturbed["images"] == IMAGES

    dice = random.Random(0)
    job = Job(checkpoint, source / "leftImg8bit", stormy, nodes.address)
    kept: dict[Path, tuple[int, int]] = {}
    killed = 0
    for victim in KILLS:
        before = len(published(stormy))
        wait_for(job.ended_or(lambda before=before: len(published(stormy)) > before))
        if job.process.poll() is not None:
            break
        time.sleep(dice.uniform(0, 0.5))
        if victim == "raylet":
            nodes.kill_raylet()
        elif victim == "job":
            job.process.kill()
            job.process.communicate()
            # What lies there now must not be made again; what was on its way may land for a moment yet.
            kept |= published(stormy)
            job = Job(checkpoint, source / "leftImg8bit", stormy, nodes.address)
        else:
            wait_for(job.ended_or(lambda victim=victim: workers(victim)))
            for pid in workers(victim)[:1]:
                os.kill(pid, signal.SIGKILL)
        killed += 1
    result = job.result()
    assert killed >= len(KILLS) - 2, "the images were through before most of the kills"
    assert result["images"] == IMAGES
    assert result["errors"] == 0

    mine, theirs = files(stormy), files(calm)
    outputs = {name for name in theirs if not name.startswith(".progress") and name != "predict.json"}
    assert {name for name in mine if not name.startswith(".progress") and name != "predict.json"} == outputs
    assert all(mine[name] == theirs[name] for name in outputs)
    assert not [name for name in mine if name.startswith(".progress/aside") or name.endswith(".part")]
    now = published(stormy)
    assert {file: now[file] for file in kept} == kept, "what was done was done again"
    # Of the last run: no more than what was in flight at the workers that died with it.
    predict, refine = result["run"]["stages"]
    again = predict["computed"] - predict["images"] + refine["computed"] - refine["images"]
    assert again <= 2 * 4 * (predict["deaths"] + refine["deaths"] + 4)

    finished = Job(checkpoint, source / "leftImg8bit", stormy, nodes.address).result()
    assert (finished["done_before"], finished["run"]) == (IMAGES, {})
