"""The demo leaves nothing behind when it is interrupted."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# Beside the trainings of the other process of pytest, its Ray would not start within the half minute that Ray gives.
# With all others that start a Ray: two at a time would starve each other on two cores.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cluster")]

JOB = Path(__file__).parents[2] / "jobs" / "demo.py"


def start(*arguments: str) -> subprocess.Popen[str]:
    """The demo in a process group of its own, as a shell starts it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_"))}
    return subprocess.Popen(
        # Where the tests run in the background, SIGINT is switched off, and the demo would inherit that.
        ["env", "--default-signal=INT", sys.executable, "-u", str(JOB), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=environment,
    )


def descendants(pid: int) -> set[int]:
    """Process ids below `pid`, from /proc."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(text.rsplit(")", 1)[1].split()[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def running(pids: set[int]) -> set[int]:
    def is_running(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"
        except OSError:
            return False

    return {pid for pid in pids if is_running(pid)}


# While Ray is imported, and when the workers are at work.
@pytest.mark.parametrize(
    ("said", "seconds"), [("drawing street scenes", 0.3), ("training scenes-resnet18-largefov", 5)]
)
def test_an_interrupted_demo_leaves_no_process_and_no_folder_behind(tmp_path: Path, said: str, seconds: float) -> None:
    demo = start("--output", str(tmp_path / "report"))
    assert demo.stdout is not None
    lines = []
    for line in demo.stdout:
        lines.append(line)
        if said in line:
            break
    time.sleep(seconds)
    below = descendants(demo.pid)
    assert len(below) > 1, "".join(lines)
    os.killpg(demo.pid, signal.SIGINT)
    rest = demo.communicate(timeout=60)[0]
    assert demo.returncode == 130, "".join(lines) + rest
    assert rest.splitlines()[-1] == "error: interrupted"
    deadline = time.monotonic() + 20
    while (left := running(below)) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not left
    assert not (tmp_path / "report").exists()
