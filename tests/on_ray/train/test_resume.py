"""A run that was killed and goes on leaves, bit for bit, what one that was left alone leaves."""

import hashlib
import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
import tiny
import torch
from test_driver import KillWorker

from deeplab_ray import runs
from deeplab_ray.config.io import to_json
from deeplab_ray.models import checkpoint
from deeplab_ray.on_ray.train import driver
from deeplab_ray.storage.location import Location, locate

pytestmark = pytest.mark.slow

RECIPE, RESOURCES = tiny.recipe(iterations=8), tiny.resources(workers=2)
TRAIN = Path(__file__).parents[3] / "jobs" / "train.py"


def digest(of: Location) -> tuple[int, str]:
    """A checkpoint's iterations, and the hash of its weights and its optimiser's state."""
    weights, optimizer = (
        torch.load(io.BytesIO((of / name).read_bytes()), weights_only=True) for name in ("model.pt", "optimizer.pt")
    )
    found = hashlib.sha256()
    momenta = {(number, name): value for number, state in optimizer["state"].items() for name, value in state.items()}
    assert momenta
    for tensors in (weights, momenta):
        for name, tensor in sorted(tensors.items()):
            found.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
            found.update(tensor.contiguous().numpy().tobytes())
    found.update(repr(optimizer["param_groups"]).encode())
    return checkpoint.read_meta(of).iteration, found.hexdigest()


@pytest.fixture(scope="module")
def undisturbed(prepared_scenes: str) -> tuple[int, str]:
    output = locate("s3://tests/runs/undisturbed")
    driver.train(RECIPE, RESOURCES, prepared_scenes, output.uri)
    found = digest(output / "ckpt_000008")
    # Training goes on to change them: equal hashes are no accident of a standstill.
    assert found[1] != digest(output / "ckpt_000006")[1]
    return found


def test_after_kill_9_of_a_worker(prepared_scenes: str, undisturbed: tuple[int, str], tmp_path: Path) -> None:
    output, killer = locate("s3://tests/runs/killed-worker"), KillWorker(at=4, log=tmp_path / "reported")
    driver.train(RECIPE, RESOURCES, prepared_scenes, output.uri, callbacks=(killer,))
    assert "failed" in killer.noted()
    assert digest(output / "ckpt_000008") == undisturbed


def test_after_kill_9_of_the_driver(prepared_scenes: str, undisturbed: tuple[int, str], tmp_path: Path) -> None:
    output, config = locate("s3://tests/runs/killed-driver"), tmp_path / "config.json"
    config.write_text(to_json(RECIPE))
    command = [sys.executable, str(TRAIN), "--config", str(config)]
    command += ["--data", prepared_scenes, "--output", output.uri, "--workers", "2", "--checkpoint-every", "2"]
    command += ["--validate-every", "0"]
    environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    job = subprocess.Popen(command, env=environment)
    deadline = time.monotonic() + 120
    while not runs.latest(output):
        assert job.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    job.kill()
    job.wait()
    assert not (output / "ckpt_000008").exists()
    subprocess.run([*command, "--resume"], env=environment, check=True, timeout=120)
    assert digest(output / "ckpt_000008") == undisturbed
