"""One writer at a time: whoever comes second is told who is there, and what a dead one left is taken over."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from botocore.awsrequest import AWSRequest
from forwarder import Forwarder, Request

from deeplab_ray.errors import JobError, UserError
from deeplab_ray.local.s3_server import EmbeddedS3
from deeplab_ray.storage import claim as module
from deeplab_ray.storage import s3 as settings
from deeplab_ray.storage.claim import CLAIM, claimed
from deeplab_ray.storage.location import Location, locate

HOLD = """
import sys, time
from deeplab_ray.storage.claim import claimed
from deeplab_ray.storage.location import locate
with claimed(locate(sys.argv[1]), "prepare camvid"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "local":
        return locate(tmp_path / "out")
    request.getfixturevalue("s3").make_bucket("claims")
    return locate(f"s3://claims/{tmp_path.name}")


@pytest.fixture(autouse=True)
def settle_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SETTLE_S", 0.2)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes half a minute takes half a second."""
    for name, seconds in {"RENEW_EVERY_S": 0.1, "WATCH_S": 0.5}.items():
        monkeypatch.setattr(module, name, seconds)


def write_claim(place: Location, **changes: Any) -> None:
    """A claim of a job on another machine, a second old."""
    now = time.time()
    holder = {"token": "other", "job": "prepare voc12", "host": "node-7", "machine": "another", "process": 4}
    times = {"started": now - 9, "since": now - 9, "renewed": now - 1}
    (place / CLAIM).write_bytes(json.dumps({**holder, **times, **changes}).encode())


def test_a_second_job_is_told_who_is_there_until_the_first_has_ended(place: Location) -> None:
    with claimed(place, "prepare camvid") as claim:
        claim.check()
        who = rf"prepare camvid \(process {os.getpid()} on {re.escape(socket.gethostname())}, since \d{{4}}-.* UTC\)"
        with (
            pytest.raises(UserError, match=rf"^{place} is being written by {who}: wait for it") as told,
            claimed(place, "prepare voc12"),
        ):
            pass
        assert "\n" not in str(told.value)
        assert place.files() == [CLAIM]
    assert place.files() == []
    with claimed(place, "prepare voc12"):
        pass


def test_an_empty_folder_does_not_stay_and_a_full_one_does(tmp_path: Path) -> None:
    with claimed(locate(tmp_path / "empty"), "prepare"):
        pass
    with claimed(locate(tmp_path / "full"), "prepare"):
        (tmp_path / "full" / "file").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_of_many_who_come_at_once_one_gets_it(place: Location) -> None:
    ready, tried = threading.Barrier(8), threading.Barrier(8)

    def come(number: int) -> bool:
        with ExitStack() as stack:
            ready.wait()
            try:
                stack.enter_context(claimed(place, f"job {number}"))
                return True
            except UserError:
                return False
            finally:
                tried.wait()

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(come, range(8))) == 1


def test_the_place_of_a_process_that_was_killed_here_is_free_at_once(place: Location) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, place.uri], stdout=subprocess.PIPE, text=True)
    assert holder.stdout
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=rf"written by prepare camvid \(process {holder.pid} on "), claimed(place, "x"):
        pass
    holder.kill()
    holder.wait()
    assert place.files() == [CLAIM]
    with claimed(place, "prepare voc12") as claim:
        claim.check()
    assert place.files() == []


def test_a_process_id_that_was_given_to_another_process_holds_nothing(place: Location) -> None:
    own = psutil.Process()
    for started, free in ((own.create_time(), False), (own.create_time() - 100, True)):
        write_claim(place, machine=module._machine(), process=own.pid, started=started)
        with ExitStack() as stack:
            if not free:
                stack.enter_context(pytest.raises(UserError, match="prepare voc12"))
            stack.enter_context(claimed(place, "x"))


@pytest.mark.usefixtures("soon")
def test_a_claim_on_another_machine_that_nobody_renews_is_watched_and_taken_over(
    place: Location, capfd: pytest.CaptureFixture[str]
) -> None:
    write_claim(place, renewed=time.time())
    with claimed(place, "x") as claim:
        claim.check()
    told = f"{place} is held by prepare voc12 (process 4 on node-7, since "
    assert told in capfd.readouterr().err
    assert place.files() == []


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("wrong", [-3600.0, 3600.0], ids=["behind", "ahead"])
def test_a_holder_whose_clock_is_wrong_holds_its_place_while_it_lives(place: Location, wrong: float) -> None:
    def renew(over: threading.Event) -> None:
        while not over.wait(0.1):
            write_claim(place, renewed=time.time() + wrong)

    write_claim(place, renewed=time.time() + wrong)
    over = threading.Event()
    thread = threading.Thread(target=renew, args=(over,))
    thread.start()
    with pytest.raises(UserError, match="prepare voc12"), claimed(place, "x"):
        pass
    over.set()
    thread.join()
    with claimed(place, "x"):
        pass


@pytest.mark.usefixtures("soon")
def test_what_a_writer_that_was_killed_left_half_written_is_taken_over(place: Location) -> None:
    (place / CLAIM).write_bytes(b'{"token": "a')
    if not place.is_s3:
        (place / f"{CLAIM}.0123.part").write_bytes(b"{")
    with claimed(place, "x") as claim:
        claim.check()
    assert place.files() == []


@pytest.mark.usefixtures("soon")
def test_a_claim_is_renewed_and_who_has_lost_it_is_told(place: Location) -> None:
    def lose() -> None:
        # Just as it is renewed the holder keeps its place, and whoever wanted it sees that a moment later.
        for _ in range(20):
            write_claim(place)
            time.sleep(0.2)
            claim.check()

    with claimed(place, "x") as claim:
        first = json.loads((place / CLAIM).read_bytes())["renewed"]
        time.sleep(0.5)
        claim.check()
        assert json.loads((place / CLAIM).read_bytes())["renewed"] > first
        with pytest.raises(JobError, match=rf"^{place} was taken over by prepare voc12 \(process 4 on node-7"):
            lose()
    # The other's claim is not ours to remove.
    assert json.loads((place / CLAIM).read_bytes())["token"] == "other"


NOT_IMPLEMENTED = "<Error><Code>NotImplemented</Code><Message>If-None-Match</Message></Error>"


def test_a_server_that_refuses_conditions_keeps_jobs_apart_too(
    s3: EmbeddedS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(request: Request, status: int) -> tuple[int, str] | None:
        return (501, NOT_IMPLEMENTED) if "If-None-Match" in request.headers else None

    s3.make_bucket("claims")
    target = s3.environment["AWS_ENDPOINT_URL"].removeprefix("http://")
    with Forwarder(target, refuse=refuse) as server:
        for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
            monkeypatch.setenv(name, server.url)
        keep_apart(locate(f"s3://claims/{tmp_path.name}"))
        assert any("If-None-Match" in request.headers for request in server.requests)


def test_a_server_that_knows_no_conditions_keeps_jobs_apart_too(s3: EmbeddedS3, tmp_path: Path) -> None:
    def forget(request: AWSRequest, **_: Any) -> None:
        seen.append(request.headers["If-None-Match"])
        del request.headers["If-None-Match"]

    s3.make_bucket("claims")
    seen: list[str | None] = []
    events = settings.client().meta.events
    # Before the request is signed: to the server it never was there.
    events.register_first("before-sign.s3.PutObject", forget)
    try:
        keep_apart(locate(f"s3://claims/{tmp_path.name}"))
    finally:
        events.unregister("before-sign.s3.PutObject", forget)
    assert "*" in seen


def keep_apart(place: Location) -> None:
    with claimed(place, "x") as claim:
        claim.check()
        with pytest.raises(UserError, match="is being written by x"), claimed(place, "y"):
            pass
    assert place.files() == []
