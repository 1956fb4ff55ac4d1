"""--help teaches: it is about the job alone, and every flag has a sentence."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deeplab_ray.presets import lookup as presets

Job = subprocess.CompletedProcess[str]

JOBS = Path(__file__).parents[2] / "jobs"
# benchmark's flags are those of its subcommands.
COMMANDS = [(job.stem,) for job in sorted(JOBS.glob("*.py"))]
COMMANDS += [("benchmark", "networks"), ("benchmark", "training"), ("benchmark", "plan")]
TAKE_A_PRESET = {"train", "tune", "describe", "import_weights"}

# Runs jobs one after another in one process, and stops at the first that imports a heavy package.
HEAVY = """
import contextlib, io, runpy, sys
for job in sys.argv[1:]:
    for argument in ("--help", "--no-such-flag"):
        sys.argv = [job, argument]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            try:
                runpy.run_path(job, run_name="__main__")
            except SystemExit as end:
                assert end.code == (0 if argument == "--help" else 2), (job, argument, end.code)
        if heavy := {"torch", "torchvision", "ray"} & set(sys.modules):
            sys.exit(f"{job} {argument} imports {heavy}")
"""


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_explains_every_flag_and_leaves_presets_to_list(
    command: tuple[str, ...], run_here: Callable[..., Job]
) -> None:
    job, *subcommand = command
    done = run_here(job, *subcommand, "--help")
    assert done.returncode == 0, done.stderr
    flags = re.split(r"^│ (?=-)", done.stdout, flags=re.MULTILINE)[1:]
    for flag in flags:
        assert len(re.findall(r"[a-z]{2,}", flag)) >= 4, flag
    assert len(flags) >= (1 if command == ("benchmark",) else 3)
    named = {name for name in presets.names() if re.search(rf"(?<![\w-]){name}(?![\w-])", done.stdout)}
    # The demo trains one; where the command line starts from one, it is a default.
    assert len(named) <= 1, named
    about = " ".join(done.stdout.split())
    assert ("jobs/train.py --list shows all presets" in about) == (job in TAKE_A_PRESET)


def test_help_and_usage_errors_wait_for_neither_pytorch_nor_ray() -> None:
    line = [sys.executable, "-c", HEAVY, *map(str, sorted(JOBS.glob("*.py")))]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_help_into_a_pipe_that_nobody_reads_to_its_end_says_nothing() -> None:
    line = [sys.executable, str(JOBS / "train.py"), "--help"]
    job = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert job.stdout
    job.stdout.close()
    _, complaint = job.communicate(timeout=60)
    assert (job.returncode, complaint) == (-signal.SIGPIPE, "")
