"""An S3 server that is killed while a set is prepared from it and into it, and comes back: nothing of it is noticed."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny

from deeplab_ray.local import s3_server
from deeplab_ray.local.s3_server import EmbeddedS3
from deeplab_ray.on_ray.prepare import prepare, tasks
from deeplab_ray.storage.location import locate

IMAGES = 30


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedS3]:
    """A server of its own, which always takes the same ports."""
    with EmbeddedS3(tmp_path / "data") as server:
        monkeypatch.setattr(s3_server, "_free_ports", lambda count: server._ports)
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        server.make_bucket("prepare")
        yield server


@pytest.mark.slow
def test_a_server_that_was_killed_and_comes_back_is_waited_for(
    server: EmbeddedS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, as Ray's workers have the keys of another server."""
    source = tiny.camvid(tmp_path / "camvid", val=IMAGES)
    for file in source.rglob("*.png"):
        (locate("s3://prepare/source") / str(file.relative_to(source))).write_bytes(file.read_bytes())
    seen = threading.Semaphore(0)

    def here(work: Callable[[Any], Any], items: Iterable[Any], by_value: object, tick: Callable[[], None]) -> Any:
        for item in items:
            yield work(item)
            tick()
            seen.release()

    monkeypatch.setattr(tasks, "in_order", here)
    prepare("camvid", "s3://prepare/source", str(tmp_path / "clean"), rows_per_shard=1)
    done: list[int] = []

    def run() -> None:
        done.append(prepare("camvid", "s3://prepare/source", "s3://prepare/out", rows_per_shard=1)["val"].images)

    while seen.acquire(blocking=False):
        pass
    thread = threading.Thread(target=run)
    thread.start()
    for _ in range(12):  # the survey, and some shards
        seen.acquire()
    assert server.pid
    os.kill(server.pid, signal.SIGKILL)
    time.sleep(2)
    assert not done
    server.stop()
    server.start()
    thread.join(60)
    assert done == [IMAGES]
    output = locate("s3://prepare/out")
    clean = locate(tmp_path / "clean")
    assert output.files(recursive=True) == clean.files(recursive=True)
    for name in output.files(recursive=True):
        assert (output / name).read_bytes() == (clean / name).read_bytes()
