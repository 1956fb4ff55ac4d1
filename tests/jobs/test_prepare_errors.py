"""Mistakes in what jobs/prepare.py is given: one line, exit code 2, before anything is written or Ray is started."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny

from deeplab_ray import datasets
from deeplab_ray.datasets.base import MissingSplitError

Job = subprocess.CompletedProcess[str]


def told(done: Job) -> str:
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "traceback" not in done.stderr
    assert MissingSplitError.__name__ not in done.stderr
    return done.stderr.removeprefix("error: ")


@pytest.mark.parametrize("name", datasets.names())
def test_a_folder_that_holds_something_else(name: str, tmp_path: Path, run_here: Callable[..., Job]) -> None:
    tiny.write_png(tmp_path / "photos/a.png", np.zeros((8, 8, 3), np.uint8))
    source, output = tmp_path / "photos", tmp_path / "out"
    said = told(run_here("prepare", name, "--source", str(source), "--output", str(output)))
    assert said.startswith("no ")
    assert f"below {source}: --source is " in said
    assert not output.exists()


def test_an_output_among_what_is_read(tmp_path: Path, run_here: Callable[..., Job]) -> None:
    images, labels = tmp_path / "photos", tmp_path / "masks"
    for folder, shape in ((images, (8, 8, 3)), (labels, (8, 8))):
        tiny.write_png(folder / "a.png", np.zeros(shape, np.uint8))
    words = ("prepare", "folder", "--images", str(images), "--labels", str(labels), "--output")
    for output, flag, place in (
        (images, "--images", images),
        (labels, "--labels", labels),
        (labels / "prepared", "--labels", labels),
    ):
        said = told(run_here(*words, str(output)))
        assert said == f"--output {output} lies in {flag} {place}: give a folder of its own\n"
    said = told(run_here("prepare", "camvid", "--source", str(images), "--output", str(images)))
    assert said == f"--output {images} is the --source: give a folder of its own\n"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.png", "a.png", "masks", "photos"]
