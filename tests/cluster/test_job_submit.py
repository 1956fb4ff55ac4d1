"""The jobs on a cluster of their own that asks for a token, by way of `ray job submit`, as README.md says."""

import contextlib
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deeplab_ray.datasets import scenes
from deeplab_ray.embedded_s3 import EmbeddedS3
from deeplab_ray.storage import locate

# One process of pytest starts one head for all.
pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.xdist_group("head")]

REPOSITORY = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
# Clear of Ray's workers (10002–19999), of the embedded S3 server's and of the ports that Linux hands out.
PORTS = range(23000, 29000)

Submit = Callable[..., subprocess.CompletedProcess[str]]


def free_port() -> int:
    for port in random.sample(PORTS, 100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise RuntimeError("no free port")


def processes_with(text: str) -> list[int]:
    """Pids of the processes that name `text` on their command line."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and text in (folder / "cmdline").read_text():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("auth") / "token"
    file.touch(mode=0o600)
    file.write_text(secrets.token_hex(32))
    return file


@pytest.fixture(scope="module")
def submit(s3: EmbeddedS3, token: Path) -> Iterator[Submit]:
    """`submit(*words, **environment)` runs `ray job submit … -- words` against a head node started here."""
    # Ray's sockets lie below, and their paths may have 107 bytes at most.
    folder = Path(tempfile.mkdtemp(prefix="r"))
    dashboard = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        # Under `uv run pytest`, Ray would give each job an environment that uv makes anew.
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        # Beside other tests, more than Ray's minute.
        "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "240",
    }
    ports = {
        "port": free_port(),
        "dashboard-port": dashboard,
        "dashboard-agent-listen-port": free_port(),
        "ray-client-server-port": free_port(),
    }
    command = [str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=4", "--disable-usage-stats"]
    # Not asked for, the dashboard, which takes the jobs, may be missing from a head that says that it has started.
    command += [
        "--include-dashboard=true",
        f"--temp-dir={folder}",
        *(f"--{name}={port}" for name, port in ports.items()),
    ]
    with (folder / "head.log").open("wb") as log:
        # What runs on the cluster has the keys of S3 from the node, not from who submits.
        head = subprocess.Popen(command, stdout=log, stderr=log, env=environment | s3.environment)

    def run(*words: str, **changes: str) -> subprocess.CompletedProcess[str]:
        command = [str(BIN / "ray"), "job", "submit", "--address", f"http://127.0.0.1:{dashboard}"]
        command += ["--working-dir", str(REPOSITORY), "--", *words]
        without_keys = {name: value for name, value in environment.items() if not name.startswith("AWS_")}
        return subprocess.run(command, capture_output=True, text=True, env=without_keys | changes, timeout=300)

    try:
        deadline = time.monotonic() + 300
        while "Ray runtime started" not in (folder / "head.log").read_text():
            assert head.poll() is None, (folder / "head.log").read_text()
            assert time.monotonic() < deadline, (folder / "head.log").read_text()
            time.sleep(0.5)
        yield run
    finally:
        # Left alone, a head takes half a minute to end.
        head.kill()
        head.wait()
        for pid in processes_with(str(folder)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def result_of(job: subprocess.CompletedProcess[str]) -> dict[str, object]:
    output = job.stdout + job.stderr
    assert job.returncode == 0, output
    assert "succeeded" in output
    results = [line for line in output.splitlines() if line.startswith("RESULT ")]
    assert len(results) == 1, output
    return json.loads(results[0].removeprefix("RESULT "))


def test_prepare_train_and_evaluate_on_a_cluster_with_a_token(
    submit: Submit, s3: EmbeddedS3, token: Path, tmp_path: Path
) -> None:
    scenes.draw(locate(tmp_path), {"train": 6, "val": 3}, 48, 96, seed=0)
    s3.make_bucket("cluster")
    data, run = "s3://cluster/scenes", "s3://cluster/run"

    where = "import sys, deeplab_ray; print('USES', sys.executable, deeplab_ray.__file__)"
    prepare = f"python jobs/prepare.py scenes --source {tmp_path} --output {data} --splits train val"
    prepared = submit("sh", "-c", f'python -P -c "{where}" && {prepare}')
    counts = {"train": {"images": 6, "shards": 1, "bad": 0}, "val": {"images": 3, "shards": 1, "bad": 0}}
    assert result_of(prepared)["splits"] == counts
    uses = next(line.split() for line in prepared.stdout.splitlines() if line.startswith("USES"))
    assert Path(uses[1]).parent == BIN
    # The code is the one that was submitted, not one that is installed on the nodes.
    assert "working_dir_files" in uses[2]

    settings = {"iterations": "4", "batch": "4", "crop": "33", "workers": "2", "precision": "float32"}
    flags = [f"--{name}={value}" for name, value in settings.items()]
    trained = submit("python", "jobs/train.py", "scenes-resnet18-largefov", "--data", data, "--output", run, *flags)
    result = result_of(trained)
    assert (result["iterations"], result["workers"], result["checkpoint"]) == (4, 2, f"{run}/ckpt_000004")

    evaluated = submit("python", "jobs/evaluate.py", "--checkpoint", run, "--data", data)
    result = result_of(evaluated)
    assert (result["images"], result["report"]) == (3, f"{run}/evaluation-val/report.html")
    assert locate(f"{run}/evaluation-val/report.html").exists()

    mistaken = submit("python", "jobs/train.py", "no-such-preset")
    assert mistaken.returncode != 0
    assert "\nerror: unknown preset 'no-such-preset': choose from" in mistaken.stdout + mistaken.stderr

    for job in (prepared, trained, evaluated, mistaken):
        for secret in (s3.environment["AWS_SECRET_ACCESS_KEY"], token.read_text()):
            assert secret not in job.stdout + job.stderr


def test_without_the_token_nothing_is_run(submit: Submit, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(secrets.token_hex(32))
    marker = tmp_path / "ran"
    for changes in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}):
        refused = submit("touch", str(marker), **changes)
        assert refused.returncode != 0
        assert "oken" in refused.stdout + refused.stderr
    assert not marker.exists()
