"""The benchmark's cases are what they say, and the job measures all that its table shows."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplab_ray.benchmarks import crf as benchmark
from deeplab_ray.errors import UserError

JOB = Path(__file__).parents[2] / "jobs" / "benchmark.py"


def test_drawn_cases_have_their_sizes_and_all_classes() -> None:
    case = benchmark.scene_case("voc")
    assert case.image.shape == (375, 500, 3)
    assert case.probabilities.shape == (21, 375, 500)
    np.testing.assert_allclose(case.probabilities.sum(axis=0), 1, atol=1e-5)
    assert len(np.unique(case.probabilities.argmax(axis=0))) > 15


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give a folder that holds some"):
        list(benchmark.folder_cases(str(tmp_path), 5, 1))


@pytest.mark.slow
def test_the_job_measures_a_folder(tmp_path: Path) -> None:
    pytest.importorskip("pydensecrf", reason="the extra 'pydensecrf' is not installed")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    command = [sys.executable, str(JOB), "crf", "--images", str(tmp_path), "--classes", "4", "--params", "B"]
    done = subprocess.run([*command, "--repeats", "1"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1].removeprefix("RESULT "))
    rows = {row["rival"]: row for row in result["rows"]}
    assert set(rows) == {rival.name for rival in benchmark.RIVALS} - {"torch"}
    for row in rows.values():
        assert row["largest_difference"] < 1e-3
        assert row["labels_agree"] > 0.99
        assert row["peak_mib"] >= 0
        assert row["images_per_second"] > 0
