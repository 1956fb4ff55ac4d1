"""A preset of every table of the paper, from a published tree to its figures: prepare → train → evaluate.

The networks are the paper's own, and take minutes: those of four datasets run by default, all with `--all-tables`.
"""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trees

from deeplab_ray.presets import lookup, others, paper

Job = subprocess.CompletedProcess[str]

PRESETS = (
    # First what the one with COCO starts from.
    "coco-resnet101-msc-aug",
    # In the table of kernels and in that of policies.
    paper.COMPARED_UNDER_POLICIES,
    "voc12-resnet101-msc-coco",
    "voc12-vgg16-aspp-s",
    "context-vgg16-largefov",
    "personpart-resnet101",
    "cityscapes-vgg16-largefov",
    "voc11-fcn32s",
)
# One of each dataset that has a reader of labels of its own.
FEW = ("voc12-vgg16-aspp-s", "context-vgg16-largefov", "personpart-resnet101", "cityscapes-vgg16-largefov")
SMALL = ("--crop", "33", "--batch", "1", "--iterations", "10", "--workers", "1", "--validate-every", "0")
ALONE = ("--crf", "none", "--predictors", "1", "--refiners", "1")


def result(done: Job) -> dict[str, Any]:
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("RESULT ")
    return json.loads(last.removeprefix("RESULT "))


@pytest.mark.slow
@pytest.mark.xdist_group("cluster")  # as tests/test_contributing.py
@pytest.mark.usefixtures("ray_cluster")
def test_every_table_of_the_paper_runs_from_its_data_to_its_figures(
    tmp_path: Path, run_here: Callable[..., Job], request: pytest.FixtureRequest
) -> None:
    tables = {lookup.get(name).table for name in PRESETS} | {paper.POLICIES}
    assert tables == {preset.table for preset in paper.PRESETS} | {others.OTHERS}
    runs: dict[str, str] = {}
    prepared: dict[str, Any] = {}
    for name in PRESETS if request.config.getoption("all_tables") else FEW:
        preset = lookup.get(name)
        source, data, run = (tmp_path / kind / preset.dataset for kind in ("source", "data", "run"))
        if not data.exists():
            labels = getattr(trees, preset.dataset)(source)
            done = result(run_here("prepare", preset.dataset, "--source", str(source), "--output", str(data)))
            prepared[preset.dataset] = done["splits"]
            counts = {split: len(ids) for split, ids in labels.items() if split != "test"}
            assert {split: found["labelled"] for split, found in done["splits"].items()} == counts
        weights = runs.get("coco-resnet101-msc-aug", "") if "COCO" in preset.switched_on.split(", ") else "random"
        trained = result(
            run_here("train", name, "--data", str(data), "--output", str(run), "--weights", weights, *SMALL)
        )
        assert trained["iterations"] == 10
        if preset.table != others.OTHERS:
            split = preset.recipe.validation_split
            words = ("--checkpoint", str(run), "--data", str(data), "--split", split, *ALONE)
            measured = result(run_here("evaluate", *words))
            assert measured["images"] == prepared[preset.dataset][split]["images"]
        runs[name] = str(run)
        if preset.dataset != "coco":
            shutil.rmtree(run)
    for run in runs.values():
        shutil.rmtree(run, ignore_errors=True)
