"""The three walks of CONTRIBUTING.md, followed to the letter on a copy of the repository."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import ray

ROOT = Path(__file__).parents[1]
WALKS = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Three walks")[1]
FENCE = re.compile(r"^ *```\w*\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    for name in ("deeplab_ray", "jobs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def run(copy: Path, *command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    if ray.is_initialized():
        environment["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    done = subprocess.run(
        [sys.executable, *command], cwd=copy, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.xdist_group("cluster")  # a Ray of its own there, so that the processes of pytest have equally much to do
@pytest.mark.usefixtures("ray_cluster")
def test_a_newcomers_dataset_network_and_job_work(copy: Path) -> None:
    results = []
    texts, blocks = FENCE.split(WALKS)[::2], [textwrap.dedent(block) for block in FENCE.findall(WALKS)]
    file = ""
    for text, block in zip(texts, [*blocks, ""], strict=True):
        said = " ".join(text.split())
        file = next(iter(re.findall(r"`(deeplab_ray/[^`]+\.py)`", said)[-1:]), file)
        for old, new in re.findall(r"replace `([^`]+)` by `([^`]+)`", said):
            replace(copy / file, old, new)
        if create := re.search(r"Create `([^`]+)`:$", said):
            (copy / create[1]).write_text(block, encoding="utf-8")
        elif anchor := re.search(r"below `([^`]+)` add$", said):
            replace(copy / file, anchor[1], f"{anchor[1]}\n{block.rstrip()}")
        elif said.endswith("Run:"):
            run(copy, "-c", block)
        elif block.startswith("python jobs/"):
            results += [result(run(copy, *line.split()[1:])) for line in block.splitlines()]
    prepared, trained, evaluated, counted = results
    assert prepared["splits"]["train"]["images"] == 4
    assert trained["iterations"] == 4
    assert 0 <= evaluated["miou"] <= 1
    assert sum(counted.values()) == 4 * 48 * 48


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file.name}"
    file.write_text(text.replace(old, new), encoding="utf-8")


def result(stdout: str) -> dict:
    return json.loads(stdout.splitlines()[-1].removeprefix("RESULT "))
