"""The folder of a run: which of its checkpoints is the newest, and what it says of itself."""

import json
import platform
from pathlib import Path

import pytest
import tiny
import torch

import deeplab_ray
from deeplab_ray import runs
from deeplab_ray.config.io import from_json, to_json
from deeplab_ray.errors import UserError
from deeplab_ray.models import checkpoint
from deeplab_ray.storage.location import locate


def write_meta_only(folder: Path, iteration: int) -> Path:
    """A checkpoint as far as finding it goes."""
    folder.mkdir(parents=True)
    meta = runs.CheckpointMeta(runs.Provenance(tiny.recipe()), iteration, tiny.classes(2), [])
    checkpoint.save(folder, torch.nn.Module(), torch.optim.SGD([torch.zeros(1)]), meta)
    return folder


def record(run: Path, newest: str | None) -> None:
    result = None if newest is None else {"checkpoint_dir_name": newest}
    (run / runs.SNAPSHOT).write_text(json.dumps({"latest_checkpoint_result": result}), encoding="utf-8")


def test_newest_checkpoint_of_a_run_is_the_one_that_ray_train_records(tmp_path: Path) -> None:
    for iteration in (20, 999_999, 1_000_000):
        write_meta_only(tmp_path / runs.checkpoint_name(iteration), iteration)
    # As of a run that was killed while it uploaded its next checkpoint.
    write_meta_only(tmp_path / runs.checkpoint_name(1_000_500), 1_000_500)
    record(tmp_path, runs.checkpoint_name(1_000_000))
    for uri in (tmp_path, f"{tmp_path}/"):
        assert runs.read_meta(runs.find(str(uri))).iteration == 1_000_000
    assert runs.latest(locate(tmp_path)) == locate(tmp_path / "ckpt_1000000")
    assert runs.find(str(tmp_path / "ckpt_000020")).name == "ckpt_000020"
    assert runs.is_run(locate(tmp_path))
    assert runs.is_checkpoint(locate(tmp_path / "ckpt_000020"))
    assert not runs.is_checkpoint(locate(tmp_path))
    assert not runs.is_run(locate(tmp_path / "ckpt_000020"))


def test_a_run_before_its_first_checkpoint_has_none(tmp_path: Path) -> None:
    record(tmp_path, None)
    assert runs.latest(locate(tmp_path)) is None
    with pytest.raises(UserError, match="no checkpoint at"):
        runs.find(str(tmp_path))


def test_places_without_checkpoint_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    for path in (tmp_path, tmp_path / "missing", tmp_path / "notes.txt"):
        with pytest.raises(UserError, match=r"no checkpoint at .*: give the folder of a checkpoint"):
            runs.find(str(path))


@pytest.mark.parametrize("text", ["{", "{}"])
def test_a_broken_record_is_refused_with_a_way_out(tmp_path: Path, text: str) -> None:
    (tmp_path / runs.SNAPSHOT).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"snapshot\.json is broken .*: give a checkpoint's folder"):
        runs.find(str(tmp_path))


def test_where_a_run_comes_from_survives_json() -> None:
    data = runs.DataRecord("s3://data/scenes", "train", "scenes", 12, "0" * 64)
    run = runs.Provenance(
        tiny.recipe(), tiny.resources(workers=2), data, weights_sha256="f" * 64, software=runs.Software.here()
    )
    assert from_json(to_json(run), runs.Provenance) == run
    assert run.software
    assert run.software.version == deeplab_ray.__version__
    assert run.software.python == platform.python_version()
    assert f"torch=={torch.__version__.partition('+')[0]}" in {
        package.partition("+")[0] for package in run.software.packages
    }
