"""The jobs by way of `ray job submit`, as README.md says, on a cluster of their own like that of ray-cluster.yaml.

Its head asks for a token and has no CPUs for tasks; worker nodes come and go.
"""

import contextlib
import json
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import psutil
import pytest
import tiny

from deeplab_ray import datasets
from deeplab_ray.images import decode_label
from deeplab_ray.local.s3_server import EmbeddedS3
from deeplab_ray.scenes import draw as scenes
from deeplab_ray.storage.location import locate

# One process of pytest starts one head for all.
pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

REPOSITORY = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
# Clear of Ray's workers (10002–19999), of the embedded S3 server's and of the ports that Linux hands out.
PORTS = range(23000, 29000)

DATA = "s3://cluster/scenes"
SETTINGS = {"iterations": 4, "batch": 4, "crop": 33, "workers": 2, "precision": "float32"}
TRAIN = ("python", "jobs/train.py", "scenes-resnet18-largefov", "--data", DATA)
TRAIN += tuple(f"--{name}={value}" for name, value in SETTINGS.items())
ONE_EACH = ("--predictors=1", "--refiners=1")
EVALUATE = ("python", "jobs/evaluate.py", "--data", DATA, *ONE_EACH)

Job = subprocess.CompletedProcess[str]


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


def kill_tree(process: subprocess.Popen[bytes], gently: bool = False) -> None:
    """Kill a process and all that it has started. gently: let it say goodbye first."""
    with contextlib.suppress(psutil.NoSuchProcess):
        started = psutil.Process(process.pid).children(recursive=True)
        if gently:
            process.terminate()
            process.wait()
        process.kill()
        for child in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    process.wait()


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("auth") / "token"
    file.touch(mode=0o600)
    file.write_text(secrets.token_hex(32))
    return file


class Cluster:
    """A head node and one worker node of 4 CPUs, which can be lost and come again."""

    def __init__(self, folder: Path, token: Path, keys: Mapping[str, str]) -> None:
        """`keys`: S3's, which jobs have from their node, not from who submits them."""
        self.folder, self.keys = folder, keys
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))}
        self.environment |= {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            # Under `uv run pytest`, Ray would give each job an environment that uv makes anew.
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            # Beside other tests, more than Ray's minute.
            "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "240",
        }
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        self.port, self.dashboard = free_port(), free_port()

    def _start(self, name: str, *flags: str) -> None:
        file = self.folder / f"{name}.log"
        # Nodes of one machine that share a folder unpack a job's files over each other.
        command = [str(BIN / "ray"), "start", "--block", "--disable-usage-stats", f"--temp-dir={self.folder / name}"]
        with file.open("wb") as log:
            node = subprocess.Popen([*command, *flags], stdout=log, stderr=log, env=self.environment | self.keys)
        self.nodes[name] = node
        deadline = time.monotonic() + 300
        while "Ray runtime started" not in file.read_text():
            assert node.poll() is None, file.read_text()
            assert time.monotonic() < deadline, file.read_text()
            time.sleep(0.5)

    def start_head(self) -> None:
        ports = {
            "port": self.port,
            "dashboard-port": self.dashboard,
            "dashboard-agent-listen-port": free_port(),
            "ray-client-server-port": free_port(),
        }
        # Not asked for, the dashboard, which takes the jobs, may be missing from a head that says that it has started.
        flags = ["--head", "--num-cpus=0", "--include-dashboard=true"]
        self._start("head", *flags, *(f"--{name}={port}" for name, port in ports.items()))

    def add_worker(self) -> None:
        self._start("worker", f"--address=127.0.0.1:{self.port}", "--num-cpus=4")

    def lose_worker(self) -> None:
        kill_tree(self.nodes["worker"], gently=True)

    def submit(self, *words: str, **changes: str) -> Job:
        """`ray job submit … -- words`, with `changes` of the environment."""
        command = [str(BIN / "ray"), "job", "submit", "--address", f"http://127.0.0.1:{self.dashboard}"]
        command += ["--working-dir", str(REPOSITORY), "--", *words]
        return subprocess.run(command, capture_output=True, text=True, env=self.environment | changes, timeout=600)

    def submit_and_leave(self, *words: str) -> str:
        """The same without waiting; returns the job's id."""
        id = f"left-{secrets.token_hex(4)}"
        command = [str(BIN / "ray"), "job", "submit", "--address", f"http://127.0.0.1:{self.dashboard}", "--no-wait"]
        command += ["--submission-id", id, "--working-dir", str(REPOSITORY), "--", *words]
        subprocess.run(command, capture_output=True, text=True, env=self.environment, timeout=600, check=True)
        return id

    def stop(self, id: str) -> str:
        """`ray job stop`, which returns when the job has ended; returns what it printed."""
        command = [str(BIN / "ray"), "job", "stop", "--address", f"http://127.0.0.1:{self.dashboard}", id]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment, timeout=600, check=True)
        return done.stdout + done.stderr

    def has(self, kind: str, state: str) -> bool:
        """Whether there are "actors" or "placement_groups" in the state, by the dashboard: `ray list` takes seconds."""
        query = urlencode({"filter_keys": "state", "filter_predicates": "=", "filter_values": state})
        request = Request(f"http://127.0.0.1:{self.dashboard}/api/v0/{kind}?{query}")
        token = Path(self.environment["RAY_AUTH_TOKEN_PATH"]).read_text(encoding="utf-8")
        request.add_header("Authorization", f"Bearer {token}")
        with urlopen(request, timeout=60) as answer:
            return bool(json.load(answer)["data"]["result"]["result"])

    def end(self) -> None:
        # Left alone, a head takes half a minute to end, and an agent whose node is gone computes at full speed.
        for node in self.nodes.values():
            kill_tree(node)
        for pid in processes_with(str(self.folder)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def cluster(s3: EmbeddedS3, token: Path) -> Iterator[Cluster]:
    # Ray's sockets lie below, and their paths may have 107 bytes at most.
    folder = Path(tempfile.mkdtemp(prefix="r"))
    cluster = Cluster(folder, token, s3.environment)
    try:
        cluster.start_head()
        cluster.add_worker()
        yield cluster
    finally:
        cluster.end()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def prepared(cluster: Cluster, s3: EmbeddedS3, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The job that made DATA: 6 + 3 street scenes. It has printed which Python and which code it ran."""
    source = tmp_path_factory.mktemp("scenes")
    scenes.draw(locate(source), {"train": 6, "val": 3}, 48, 96, seed=0)
    s3.make_bucket("cluster")
    where = "import sys, deeplab_ray; print('USES', sys.executable, deeplab_ray.__file__)"
    prepare = f"python jobs/prepare.py scenes --source {source} --output {DATA} --splits train val"
    return cluster.submit("sh", "-c", f'python -P -c "{where}" && {prepare}')


def result_of(job: subprocess.CompletedProcess[str]) -> dict[str, object]:
    output = job.stdout + job.stderr
    assert job.returncode == 0, output
    assert "succeeded" in output
    results = [line for line in output.splitlines() if line.startswith("RESULT ")]
    assert len(results) == 1, output
    return json.loads(results[0].removeprefix("RESULT "))


def assert_no_secrets(s3: EmbeddedS3, token: Path, *jobs: Job) -> None:
    for job in jobs:
        for secret in (s3.environment["AWS_SECRET_ACCESS_KEY"], token.read_text(encoding="utf-8")):
            assert secret not in job.stdout + job.stderr


def test_a_job_runs_the_code_that_was_submitted_and_tells_of_mistakes(
    cluster: Cluster, prepared: Job, s3: EmbeddedS3, token: Path
) -> None:
    counts = {
        split: {"images": images, "labelled": images, "shards": 1, "bad": 0}
        for split, images in (("train", 6), ("val", 3))
    }
    assert result_of(prepared)["splits"] == counts
    uses = next(line.split() for line in prepared.stdout.splitlines() if line.startswith("USES"))
    assert Path(uses[1]).parent == BIN
    # The code is the one that was submitted, not one that is installed on the nodes.
    assert "working_dir_files" in uses[2]

    mistaken = cluster.submit("python", "jobs/train.py", "no-such-preset")
    assert mistaken.returncode != 0
    assert "\nerror: unknown preset 'no-such-preset': choose from" in mistaken.stdout + mistaken.stderr
    assert_no_secrets(s3, token, prepared, mistaken)


def test_a_prediction_that_is_stopped_leaves_nothing_half_done_and_goes_on(
    cluster: Cluster, s3: EmbeddedS3, tmp_path: Path
) -> None:
    s3.make_bucket("cluster")
    scenes.draw(locate(tmp_path / "scenes"), {"val": 120}, 96, 192, seed=0)
    (tmp_path / "checkpoint").mkdir()
    checkpoint = tiny.checkpoint(tmp_path / "checkpoint", tiny.recipe(), datasets.get("scenes").table)
    output = locate("s3://cluster/labels")
    words = ("python", "jobs/predict.py", "--checkpoint", str(checkpoint), "--output", output.uri)
    words += ("--input", str(tmp_path / "scenes" / "leftImg8bit"), "--format", "index", "voc", *ONE_EACH)
    job = cluster.submit_and_leave(*words)
    deadline = time.monotonic() + 200
    while len((output / "index").files(recursive=True)) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    started = time.monotonic()
    assert "was stopped" in cluster.stop(job)
    assert time.monotonic() - started < 15
    left = (output / "index").files(recursive=True)
    assert 3 <= len(left) < 120, "it was over before it was stopped"
    for name in left:
        assert decode_label((output / "index" / name).read_bytes()).shape == (96, 192)
    assert not (output / "results.tar").exists()

    result = result_of(cluster.submit(*words))
    assert (result["images"], result["errors"]) == (120, 0)
    # Nothing was done again but what was on its way.
    run = result["run"]
    assert isinstance(run, dict)
    assert run["stages"][0]["computed"] <= 120 - len(left) + 16
    assert len((output / "index").files(recursive=True)) == 120
    assert (output / "results.tar").exists()


def test_without_the_token_nothing_is_run(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(secrets.token_hex(32))
    marker = tmp_path / "ran"
    for changes in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}):
        refused = cluster.submit("touch", str(marker), **changes)
        assert refused.returncode != 0
        assert "oken" in refused.stdout + refused.stderr
    assert not marker.exists()


def test_on_a_cluster_that_grows_a_training_and_an_evaluation_wait_for_its_first_node(
    cluster: Cluster, prepared: Job, s3: EmbeddedS3, token: Path, tmp_path: Path
) -> None:
    assert prepared.returncode == 0
    checkpoint, run = locate("s3://cluster/imported"), "s3://cluster/run"
    made = tiny.checkpoint(tmp_path, tiny.recipe(), datasets.get("scenes").table)
    for file in made.iterdir():
        (checkpoint / file.name).write_bytes(file.read_bytes())
    evaluate = (*EVALUATE, "--checkpoint", checkpoint.uri)
    cluster.lose_worker()
    refused = cluster.submit(*evaluate)
    hint = "error: the cluster has 0 CPU.* pass --autoscaling if the cluster grows by itself"
    assert re.search(hint, refused.stdout + refused.stderr), refused.stdout + refused.stderr

    with ThreadPoolExecutor() as pool:
        jobs = [
            pool.submit(cluster.submit, *evaluate, "--autoscaling", "--gpus-per-predictor=0"),
            pool.submit(cluster.submit, *TRAIN, "--output", run, "--autoscaling", "--gpus-per-worker=0"),
        ]
        while not (cluster.has("actors", "PENDING_CREATION") and cluster.has("placement_groups", "PENDING")):
            for job in jobs:
                assert not job.done(), job.result().stdout + job.result().stderr
            time.sleep(0.5)
        cluster.add_worker()
        evaluated, trained = (job.result() for job in jobs)
    result = result_of(evaluated)
    assert (result["images"], result["report"]) == (3, f"{checkpoint}/evaluation-val/report.html")
    assert (checkpoint / "evaluation-val/report.html").exists()
    result = result_of(trained)
    assert (result["iterations"], result["workers"], result["checkpoint"]) == (4, 2, f"{run}/ckpt_000004")
    assert_no_secrets(s3, token, evaluated, trained)
