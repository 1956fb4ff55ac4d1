"""--help teaches: every job names every preset, and every flag has a sentence."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from deeplab_ray import presets

JOBS = sorted((Path(__file__).parents[2] / "jobs").glob("*.py"))


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
def test_help_lists_the_presets_and_explains_every_flag(job: Path) -> None:
    done = subprocess.run([sys.executable, str(job), "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for name in presets.names():
        assert re.search(rf"\b{name}\b +\w", done.stdout), name
    flags = re.split(r"^│ (?=-)", done.stdout, flags=re.MULTILINE)[1:]
    assert len(flags) >= 3
    for flag in flags:
        assert len(re.findall(r"[a-z]{2,}", flag)) >= 4, flag
