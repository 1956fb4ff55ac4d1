"""--help teaches: every job names every preset, and every flag has a sentence."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deeplab_ray.presets import paper as presets

JOBS = Path(__file__).parents[2] / "jobs"
# benchmark's flags are those of its subcommands.
COMMANDS = [(job.stem,) for job in sorted(JOBS.glob("*.py"))]
COMMANDS += [("benchmark", "networks"), ("benchmark", "training"), ("benchmark", "plan")]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_lists_the_presets_and_explains_every_flag(command: tuple[str, ...]) -> None:
    job, *subcommand = command
    line = [sys.executable, str(JOBS / f"{job}.py"), *subcommand, "--help"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    flags = re.split(r"^│ (?=-)", done.stdout, flags=re.MULTILINE)[1:]
    for flag in flags:
        assert len(re.findall(r"[a-z]{2,}", flag)) >= 4, flag
    assert len(flags) >= (1 if command == ("benchmark",) else 3)
    if not subcommand:
        for name in presets.names():
            assert re.search(rf"\b{name}\b +\w", done.stdout), name


def test_help_into_a_pipe_that_nobody_reads_to_its_end_says_nothing() -> None:
    line = [sys.executable, str(JOBS / "train.py"), "--help"]
    job = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert job.stdout
    job.stdout.close()
    _, complaint = job.communicate(timeout=60)
    assert (job.returncode, complaint) == (-signal.SIGPIPE, "")
