"""jobs/inspect.py as a user runs it: on a disk and on S3, whole and damaged, and with mistakes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import prepared
import pytest
from prepared import Row, flip, labelled

from deeplab_ray.on_ray import session
from deeplab_ray.storage.location import Location, locate

Job = subprocess.CompletedProcess[str]

JOBS = Path(__file__).parents[2] / "jobs"


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(session, "start_ray", refuse)


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "local":
        return locate(tmp_path)
    request.getfixturevalue("s3").make_bucket("inspect")
    return locate(f"s3://inspect/{tmp_path.name}")


def fill(folder: Location) -> Location:
    prepared.write(folder, "train", [labelled(f"t{i}", 60, 20) for i in range(5)])
    prepared.write(folder, "val", [labelled("v", 20, 60), Row("w", None, 8, 10)])
    return folder


def test_text_page_and_result(place: Location, run_here: Callable[..., Job]) -> None:
    data, page = fill(place / "set"), place / "pages/set.html"
    done = run_here("inspect", data.uri, "--output", page.uri, "--verify", "--split", "val", "--against", "train")
    assert done.returncode == 0, done.stderr
    assert ["images", "2", "5"] in [line.split() for line in done.stdout.splitlines()]
    assert "All 4 shards are whole" in done.stdout
    result = json.loads(done.stdout.splitlines()[-1].removeprefix("RESULT "))
    assert result["page"] == page.uri
    assert result["verified"]
    counts = {name: (split["images"], split["labelled"], split["shards"]) for name, split in result["splits"].items()}
    assert counts == {"val": (2, 1, 1), "train": (5, 5, 3)}
    html = page.read_bytes().decode()
    assert html.count("<img ") == 2 * 5 + 2
    assert "val beside train" in html


def test_damage_ends_with_exit_code_1_after_text_and_page(tmp_path: Path, run_here: Callable[..., Job]) -> None:
    fill(locate(tmp_path / "set"))
    broken, missing = (tmp_path / f"set/train/shards-1/0000{number}.parquet" for number in (0, 4))
    flip(broken)
    missing.unlink()
    done = run_here("inspect", str(tmp_path / "set"), "--verify", "--output", str(tmp_path / "page.html"))
    assert done.returncode == 1
    assert "RESULT" not in done.stdout
    for text in (done.stdout, (tmp_path / "page.html").read_text().replace("&#39;", "'")):
        assert f"{broken} is damaged: its sha256 is not the manifest's" in text
        assert f"{missing} is missing" in text
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: 2 shards of {tmp_path}/set are damaged or missing ({broken} is damaged")
    assert "copy them again from where they are whole" in last


MISTAKES = [
    (["{tmp}/photos"], "{tmp}/photos is no prepared set: give the folder that jobs/prepare.py wrote (its --output)"),
    (["{tmp}/nowhere"], "{tmp}/nowhere is no prepared set: give the folder that jobs/prepare.py wrote (its --output)"),
    (["{tmp}/set", "--split", "test"], "there is no split 'test' at {tmp}/set: it has train, val"),
    (["{tmp}/set", "--samples", "-1"], "--samples and --seed must not be negative"),
    (["{tmp}/set", "--output", "{tmp}/photos"], "{tmp}/photos is a folder: --output is a file"),
    ([], "missing from inspect.py: URI"),
]


@pytest.mark.parametrize(("words", "said"), MISTAKES, ids=[" ".join(words) or "nothing" for words, _ in MISTAKES])
def test_mistakes(words: list[str], said: str, tmp_path: Path, run_here: Callable[..., Job]) -> None:
    fill(locate(tmp_path / "set"))
    (tmp_path / "photos").mkdir()
    done = run_here("inspect", *(word.format(tmp=tmp_path) for word in words))
    assert done.returncode == 2
    assert "RESULT" not in done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {said.format(tmp=tmp_path)}")


def test_it_needs_neither_ray_nor_pytorch(tmp_path: Path) -> None:
    fill(locate(tmp_path / "set"))
    for package in ("ray", "torch"):
        (tmp_path / f"{package}.py").write_text(f"raise ImportError('{package} was imported')")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    line = [sys.executable, str(JOBS / "inspect.py"), str(tmp_path / "set"), "--output", str(tmp_path / "page.html")]
    done = subprocess.run(line, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "page.html").exists()


def test_its_name_hides_no_module_from_other_jobs() -> None:
    """Python looks for modules beside the script that it runs, and the standard library has an `inspect`, too."""
    code = (
        f"import sys; sys.path.insert(0, {str(JOBS)!r}); import dataclasses, inspect; print(inspect.getfile(inspect))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).parent == Path(os.__file__).parent
