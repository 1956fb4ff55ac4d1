"""Preparing again: over what is there, after a kill, beside another one; the same input gives the same bytes."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
import stoppable
import tiny

from deeplab_ray.errors import UserError
from deeplab_ray.local.s3_server import EmbeddedS3
from deeplab_ray.on_ray.prepare import prepare
from deeplab_ray.shards import open_split
from deeplab_ray.storage.location import Location, locate

# Prepares a set whose third shard is not done before a file is gone.
JOB = """
import sys, stoppable
from deeplab_ray.cli import run_job
from deeplab_ray.on_ray.prepare import prepare
from deeplab_ray.on_ray.session import start_ray
def main():
    source, output, stop = sys.argv[1:]
    start_ray()
    return {"images": prepare(stoppable.dataset(stop), source, output, rows_per_shard=1)["val"].images}
run_job(main)
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny.camvid(tmp_path / "camvid", train=5, val=3)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def what_lies_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")} if folder.exists() else set()


def contents(folder: Location) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in folder.files(recursive=True)}


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.usefixtures("ray_cluster")
def test_a_second_run_is_refused_and_overwrite_replaces_the_first(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare("camvid", str(source), str(out), ["val"])
    with pytest.raises(UserError, match=r"manifest\.json exists: give --overwrite"):
        prepare("camvid", str(source), str(out))
    truncate(source / "val/0000.png")
    before = what_lies_in(out)
    with pytest.raises(UserError, match="1 of 3 pairs"):
        prepare("camvid", str(source), str(out), ["val"], overwrite=True)
    assert what_lies_in(out) == before | {"val/manifest.rejected.json"}
    assert len(open_split(str(out), "val")) == 3
    prepare("camvid", str(source), str(out), ["val"], skip_bad=True, overwrite=True)
    split = open_split(str(out), "val")
    assert [split.read(i).id for i in range(len(split))] == ["0001", "0002"]
    assert len(list((out / "val").glob("shards-*"))) == 1


@pytest.mark.usefixtures("ray_cluster")
def test_a_failure_while_publishing_brings_back_what_was_there(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    prepare("camvid", str(source), str(out), ["train"])
    before = {name: (out / name).read_bytes() for name in what_lies_in(out) if (out / name).is_file()}
    write = Location.write_bytes

    def write_until_val(self: Location, content: bytes) -> None:
        if self.path.endswith("val/manifest.json"):
            raise OSError(errno.ENOSPC, "disk full")
        write(self, content)

    monkeypatch.setattr(Location, "write_bytes", write_until_val)
    with pytest.raises(OSError, match="disk full"):
        prepare("camvid", str(source), str(out), overwrite=True)
    assert {name: (out / name).read_bytes() for name in what_lies_in(out) if (out / name).is_file()} == before


@pytest.mark.usefixtures("ray_cluster")
def test_a_set_of_an_older_format_is_replaced_with_its_shards(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare("camvid", str(source), str(out), ["val"])
    manifest = json.loads((out / "val/manifest.json").read_text())
    old = {"dataset": "camvid", "split": "val", "classes": ["sky"], "images": 3, "pixels": [0], "bad": []}
    shards = [{key: shard[key] for key in ("path", "rows", "sha256", "bytes")} for shard in manifest["shards"]]
    (out / "val/manifest.json").write_text(json.dumps({**old, "shards": shards}))
    with pytest.raises(UserError, match=r"manifest\.json exists: give --overwrite"):
        prepare("camvid", str(source), str(out), ["val"])
    prepare("camvid", str(source), str(out), ["val"], overwrite=True)
    assert len(open_split(str(out), "val")) == 3
    assert len(list((out / "val").glob("shards-*"))) == 1


@pytest.mark.usefixtures("ray_cluster")
def test_the_same_input_gives_the_same_bytes_wherever_it_lies(source: Path, tmp_path: Path, s3: EmbeddedS3) -> None:
    s3.make_bucket("prepare")
    elsewhere = locate(f"s3://prepare/{tmp_path.name}-again")
    prepare("camvid", str(source), str(tmp_path / "out"), rows_per_shard=2)
    prepare("camvid", str(source), elsewhere.uri, rows_per_shard=2)
    first = contents(locate(tmp_path / "out"))
    assert set(first) == {path for path in what_lies_in(tmp_path / "out") if (tmp_path / "out" / path).is_file()}
    assert contents(elsewhere) == first
    # Over itself, too; and one split alone is what it is among others.
    prepare("camvid", str(source), str(tmp_path / "out"), overwrite=True, rows_per_shard=2)
    assert contents(locate(tmp_path / "out")) == first
    prepare("camvid", str(source), str(tmp_path / "val"), ["val"], rows_per_shard=2)
    assert contents(locate(tmp_path / "val" / "val")) == contents(locate(tmp_path / "out" / "val"))


@pytest.mark.usefixtures("ray_cluster")
def test_a_shard_that_was_damaged_is_whole_again(source: Path, tmp_path: Path) -> None:
    prepare("camvid", str(source), str(tmp_path / "out"), ["val"])
    before = contents(locate(tmp_path / "out"))
    (shard,) = (tmp_path / "out" / "val").glob("shards-*/*")
    truncate(shard)
    prepare("camvid", str(source), str(tmp_path / "out"), ["val"], overwrite=True)
    assert contents(locate(tmp_path / "out")) == before


class Job:
    """A preparation in a process of its own, which is stopped before its third shard."""

    def __init__(self, source: Path, output: Location, stop: Path) -> None:
        stop.touch()
        self.output = output
        paths = [str(Path(stoppable.__file__).parent), os.environ.get("PYTHONPATH", "")]
        self.process = subprocess.Popen(
            [sys.executable, "-c", JOB, str(source), output.uri, str(stop)],
            env=os.environ
            | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address, "PYTHONPATH": os.pathsep.join(paths)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def reports(self) -> list[str]:
        return [name for name in self.output.files(recursive=True) if "/.progress/" in name]

    def wait_until_stopped(self) -> None:
        wait_for(lambda: self.process.poll() is not None or len(self.reports()) >= 4)
        assert self.process.poll() is None, self.process.communicate()


@pytest.fixture
def large(tmp_path: Path) -> Path:
    return stoppable.pictures(tmp_path / "large")


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("place", ["local", "s3"])
def test_what_was_killed_goes_on_and_gives_the_same_bytes(
    large: Path, tmp_path: Path, place: str, s3: EmbeddedS3
) -> None:
    clean, stop = tmp_path / "clean", tmp_path / "stop"
    prepare(stoppable.dataset(stop), str(large), str(clean), rows_per_shard=1)
    output = locate(tmp_path / "out")
    if place == "s3":
        s3.make_bucket("prepare")
        output = locate(f"s3://prepare/{tmp_path.name}")
    # What a run on other files, and a writer that was killed, have left.
    strays = ("shards-0123456789ab/00000.parquet", ".progress/shards-0123456789ab/00000.json")
    for stray in strays:
        (output / "val" / stray).write_bytes(b"stray")
    job = Job(large, output, stop)
    job.wait_until_stopped()
    os.killpg(job.process.pid, signal.SIGKILL)
    job.process.wait()
    (run,) = {name.split("/")[2] for name in job.reports()} - {"shards-0123456789ab"}
    (output / "val" / run / "00002.parquet.0123456789abcdef.part").write_bytes(b"half")
    done = [name.rsplit("/", 1)[-1].replace("json", "parquet") for name in job.reports() if run in name]
    assert "00002.parquet" not in done
    infos = {name: output.filesystem.get_file_info((output / "val" / run / name).path).mtime_ns for name in done}

    stop.unlink()
    manifest = prepare(stoppable.dataset(stop), str(large), output.uri, rows_per_shard=1)["val"]
    assert manifest.images == stoppable.IMAGES
    assert contents(output) == contents(locate(clean))
    for name, written in infos.items():
        assert output.filesystem.get_file_info((output / "val" / run / name).path).mtime_ns == written
    if place == "local":
        assert what_lies_in(tmp_path / "out") == what_lies_in(clean)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_an_interrupted_run_ends_at_once_and_says_that_it_goes_on(large: Path, tmp_path: Path) -> None:
    output, stop = locate(tmp_path / "out"), tmp_path / "stop"
    job = Job(large, output, stop)
    job.wait_until_stopped()
    job.process.terminate()
    _, said = job.process.communicate(timeout=30)
    assert job.process.returncode == 130, said
    assert said.splitlines()[-2:] == [
        f"what is written in {output} stays: the same command goes on from there",
        "error: interrupted",
    ]
    assert len(job.reports()) >= 4
    assert output.files() == []
    stop.unlink()
    prepare(stoppable.dataset(stop), str(large), output.uri, rows_per_shard=1)
    assert {name.split("/")[1] for name in output.files(recursive=True)} == {
        "manifest.json",
        open_split(output.uri, "val").manifest.shards[0].path.split("/")[0],
    }


@pytest.mark.usefixtures("ray_cluster")
def test_one_that_was_killed_between_two_manifests_goes_on(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, write = tmp_path / "out", Location.write_bytes

    def write_until_val(self: Location, content: bytes) -> None:
        if self.path.endswith("val/manifest.json"):
            # As if it ended here: nothing is cleared up.
            raise KeyboardInterrupt
        write(self, content)

    with monkeypatch.context() as patch:
        patch.setattr(Location, "write_bytes", write_until_val)
        with pytest.raises(KeyboardInterrupt):
            prepare("camvid", str(source), str(out))
    assert (out / "train/manifest.json").exists()
    assert not (out / "val/manifest.json").exists()
    prepare("camvid", str(source), str(out))
    assert {name.split("/")[-1] for name in locate(out).files(recursive=True)} == {"manifest.json", "00000.parquet"}
    with pytest.raises(UserError, match=r"manifest\.json exists: give --overwrite"):
        prepare("camvid", str(source), str(out))


@pytest.mark.usefixtures("ray_cluster")
def test_a_second_one_into_the_same_place_is_refused_while_the_first_works(large: Path, tmp_path: Path) -> None:
    out, stop = tmp_path / "out", tmp_path / "stop"
    stop.touch()
    done: list[int] = []

    def first() -> None:
        done.append(prepare(stoppable.dataset(stop), str(large), str(out), rows_per_shard=1)["val"].images)

    thread = threading.Thread(target=first)
    thread.start()
    try:
        wait_for((out / ".claim.json").exists)
        who = rf"{out} is being written by prepare stoppable \(process {os.getpid()} on "
        with pytest.raises(UserError, match=who):
            prepare(stoppable.dataset(stop), str(large), str(out), overwrite=True)
    finally:
        stop.unlink()
        thread.join()
    assert done == [stoppable.IMAGES]
    assert not (out / ".claim.json").exists()


@pytest.mark.usefixtures("ray_cluster")
def test_files_that_change_meanwhile_are_told(large: Path, tmp_path: Path) -> None:
    out, stop = tmp_path / "out", tmp_path / "stop"
    stop.touch()
    caught: list[UserError] = []

    def first() -> None:
        try:
            prepare(stoppable.dataset(stop), str(large), str(out), rows_per_shard=stoppable.IMAGES)
        except UserError as error:
            caught.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    try:
        wait_for((out / ".claim.json").exists)
        # The only shard waits at its third image; the survey is over.
        wait_for(lambda: (tmp_path / "stop.reached").exists())
        tiny.write_png(large / "val" / "0004.png", stoppable.picture(99))
    finally:
        stop.unlink()
        thread.join()
    assert "the files of 0004 changed while they were prepared: run the same command again" in str(caught[0])
    assert what_lies_in(out) == set()
