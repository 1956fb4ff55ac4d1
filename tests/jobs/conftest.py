"""Jobs run in the process of pytest, which has imported PyTorch and Ray already."""

import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import ray

JOBS = Path(__file__).parents[2] / "jobs"
FROM_A_WORKER = re.compile(r"(\x1b\[\d+m)?\(.*\bpid=\d+")


Job = subprocess.CompletedProcess[str]


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Job]:
    """`run_here("train", "--help")` runs jobs/train.py to its end, on the tests' Ray if one has been started.

    What Ray's workers print is left out of stderr: a job ends its own Ray before its last line.
    """

    def run(job: str, *arguments: str) -> Job:
        monkeypatch.setattr(sys, "argv", [f"{job}.py", *arguments])
        monkeypatch.setattr(ray, "shutdown", lambda: None)
        if ray.is_initialized():
            monkeypatch.setattr(ray, "init", lambda **_: None)
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        capfd.readouterr()
        try:
            with pytest.raises(SystemExit) as stop:
                runpy.run_path(str(JOBS / f"{job}.py"), run_name="__main__")
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        out, err = capfd.readouterr()
        own = [line for line in err.splitlines(keepends=True) if not FROM_A_WORKER.match(line)]
        code = stop.value.code or 0
        assert isinstance(code, int)
        return Job([job, *arguments], code, out, "".join(own))

    return run
