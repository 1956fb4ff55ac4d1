"""jobs/prepare.py: what its help teaches, what it refuses before it starts Ray, and how it ends."""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import ray
import tiny
from PIL import Image

from deeplab_ray import datasets
from deeplab_ray.shards import open_split

Job = subprocess.CompletedProcess[str]

JOB = Path(__file__).parents[2] / "jobs" / "prepare.py"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny.camvid(tmp_path / "camvid", train=5, val=3)


def with_77(file: Path) -> None:
    label = np.asarray(Image.open(file)).copy()
    label[0, 0] = 77
    tiny.write_png(file, label)


def test_help_lists_every_dataset_with_its_splits(run_here: Callable[..., Job]) -> None:
    done = run_here("prepare", "--help")
    assert done.returncode == 0
    for name in datasets.names():
        assert f"\n  {name} " in done.stdout
        assert f"({', '.join(datasets.get(name).splits)})" in done.stdout
    for name in ("camvid", "cityscapes", "scenes", "voc12"):
        assert f"\n  {name} " in done.stdout


def test_mistakes_are_one_line_and_exit_code_2_before_ray_is_asked(
    source: Path, tmp_path: Path, run_here: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    # That no Ray is there shows what is told before it is asked.
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    nowhere, prepared = tmp_path / "nowhere", tmp_path / "prepared"
    (prepared / "val").mkdir(parents=True)
    (prepared / "val/manifest.json").write_text("{}")
    good = ("camvid", "--source", str(source), "--output", str(prepared))
    for arguments, message in (
        (("camvid", "--source", "x", "--output", "y", "--foo"), "error: unrecognized options: --foo; see prepare.py"),
        (("camvid", "--source", "x"), "error: missing from prepare.py: --output"),
        (("imagenet", "--source", "x", "--output", "y"), "error: unknown dataset 'imagenet'"),
        (("camvid", "--source", str(nowhere), "--output", "y"), f"error: there is no folder {nowhere}: --source"),
        ((*good, "--rows-per-shard", "0"), "error: rows per shard must be at least 1"),
        ((*good, "--shard-mb", "0"), "error: --shard-mb 0 must be a number above 0"),
        ((*good, "--tiles", "9", "9", "--overlap", "9"), "error: --overlap 9 must be at least 0 and below --tiles 9 9"),
        ((*good, "--splits", "night"), "error: camvid has no split 'night'"),
        (good, f"error: {prepared}/val/manifest.json exists: give --overwrite to prepare it again"),
        ((*good, "--overwrite"), "error: no Ray answers at RAY_ADDRESS=127.0.0.1:1"),
    ):
        done = run_here("prepare", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(message)
        assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_the_job_ends_with_a_result_line_or_an_error_line(source: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> Job:
        environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
        line = [sys.executable, str(JOB), *arguments]
        return subprocess.run(line, capture_output=True, text=True, env=environment, timeout=300)

    arguments = ("camvid", "--source", str(source), "--output", str(tmp_path / "out"), "--splits", "val")
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "val: 3/3 images checked" in lines
    assert lines[-1].startswith("RESULT ")
    result = json.loads(lines[-1].removeprefix("RESULT "))
    assert result["splits"] == {"val": {"images": 3, "labelled": 3, "shards": 1, "bad": 0}}
    # CamVid has more images; and the share of ignored pixels.
    assert result["findings"] == {"error": 0, "warning": 1, "note": 1}
    with_77(source / "valannot/0002.png")
    done = run(*arguments, "--overwrite")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: 1 of 3 pairs of camvid (val) are bad (0002: label value 77")
    assert "RESULT" not in done.stdout


@pytest.fixture
def own(tmp_path: Path) -> tuple[str, ...]:
    """Flags of six photographs with masks of 0, 3 and 7, in areas; the last is for validation."""
    rng = np.random.default_rng(0)
    for number in range(6):
        name = f"{'val' if number == 5 else 'train'}/{number}.png"
        tiny.write_png(tmp_path / "photos" / name, rng.integers(0, 256, (24, 30, 3), np.uint8))
        mask = np.zeros((24, 30), np.uint8)
        mask[:, 10:20], mask[12:, 20:] = 3, 7
        tiny.write_png(tmp_path / "masks" / name, mask)
    return "folder", "--images", str(tmp_path / "photos"), "--labels", str(tmp_path / "masks")


@pytest.mark.usefixtures("ray_cluster")
def test_classes_that_are_found_are_shown_saved_and_taken_once_they_have_names(
    own: tuple[str, ...], tmp_path: Path, run_here: Callable[..., Job]
) -> None:
    output, file = tmp_path / "out", tmp_path / "out" / "classes.json"
    asked = run_here("prepare", *own, "--output", str(output))
    assert asked.returncode == 2
    assert asked.stderr.splitlines()[-1] == (
        f"error: the classes above are what is found, saved in {file}: correct and name them there and give --classes "
        f"{file}, or take them as they are by --yes"
    )
    assert re.search(r"^class 3 +3 +33\.3 % +6$", asked.stdout, re.MULTILINE)
    assert list(output.iterdir()) == [file]

    named = file.read_text().replace("class 0", "floor").replace("class 3", "cat").replace("class 7", "dog")
    file.write_text(named)
    refused = run_here("prepare", *own, "--output", str(output), "--yes")
    assert f"{file} holds other classes than those that were found: take them by --classes {file}" in refused.stderr
    done = run_here("prepare", *own, "--output", str(output), "--classes", str(file))
    assert done.returncode == 0, done.stderr
    assert file.read_text() == named
    result = json.loads(done.stdout.splitlines()[-1].removeprefix("RESULT "))
    assert result["dataset"] == "folder"
    assert sum(counts["images"] for counts in result["splits"].values()) == 6
    for split in result["splits"]:
        prepared = open_split(str(output), split)
        assert prepared.classes.names == ("floor", "cat", "dog")
        assert prepared.classes.values == (0, 3, 7)
        assert prepared.manifest.pixels == [count * len(prepared) for count in (360, 240, 120)]


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("", 2)])
def test_at_a_terminal_the_job_asks(
    own: tuple[str, ...],
    tmp_path: Path,
    run_here: Callable[..., Job],
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    code: int,
) -> None:
    terminal = io.StringIO(f"{answer}\n")
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    done = run_here("prepare", *own, "--output", str(tmp_path / "out"))
    assert done.returncode == code, done.stderr
    assert "Prepare with the classes above? [y/N]" in done.stdout
    assert (tmp_path / "out/classes.json").exists()
    assert bool(list((tmp_path / "out").rglob("*.parquet"))) == (code == 0)


def test_mistakes_about_two_folders_are_told_before_ray_is_asked(
    own: tuple[str, ...], tmp_path: Path, run_here: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    good = (*own, "--output", str(tmp_path / "out"))
    for arguments, message in (
        (own, "error: missing from prepare.py folder: --output"),
        ((*good, "--source", "x"), "error: unrecognized options: --source"),
        ((*good, "--min-object-pixels", "9"), "error: --min-object-pixels has to know the classes: give --classes"),
        ((*good, "--splits", "night"), "error: folder has no split 'night': take some of train, val"),
        ((*good, "--classes", str(tmp_path / "none.txt")), f"error: there is no file {tmp_path}/none.txt"),
        (good, "error: no Ray answers at RAY_ADDRESS=127.0.0.1:1"),
    ):
        done = run_here("prepare", *arguments)
        assert done.returncode == 2
        assert done.stderr.startswith(message)
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_help_of_two_folders_is_about_them(run_here: Callable[..., Job]) -> None:
    named, own = run_here("prepare", "--help").stdout, run_here("prepare", "folder", "--help").stdout
    assert "prepare.py folder --help" in named
    assert "--images" not in named
    assert "--source" not in own
    for flag in ("--images", "--labels", "--classes", "--snap-colours", "--tiles", "--shard-mb", "--strict"):
        assert flag in own
