"""Checkpoints: what is saved comes back, the newest of a run is found, and training goes on as if never stopped."""

import copy
import json
from pathlib import Path

import pytest
import torch

from deeplab_ray.config.recipe import Config, ModelConfig, SolverConfig
from deeplab_ray.errors import UserError
from deeplab_ray.models import DeepLab, checkpoint
from deeplab_ray.storage.location import locate
from deeplab_ray.training.optimizer import build_optimizer, set_rate
from deeplab_ray.training.step import train_step

CONFIG = Config(ModelConfig("camvid", "resnet18", "largefov", "random", "caffe"), solver=SolverConfig(batch=2))
NAMES = ("sky", "tree", "road")


def network(seed: int) -> DeepLab:
    torch.manual_seed(seed)
    return DeepLab(CONFIG.model, len(NAMES))


def step(model: DeepLab, optimizer: torch.optim.Optimizer, number: int) -> None:
    generator = torch.Generator().manual_seed(number)
    images = torch.randint(0, 256, (2, 17, 17, 3), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 3, (2, 17, 17), dtype=torch.uint8, generator=generator)
    set_rate(optimizer, 1e-4 / number)
    train_step(model, optimizer, [(images, labels)], CONFIG.runtime)


def meta(iteration: int) -> checkpoint.CheckpointMeta:
    return checkpoint.CheckpointMeta(CONFIG, iteration, NAMES, [{"iteration": iteration, "loss": 1.5, "miou": 0.25}])


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def write_meta_only(folder: Path, iteration: int) -> Path:
    """A checkpoint as far as finding it goes."""
    folder.mkdir(parents=True)
    checkpoint.save(folder, torch.nn.Module(), torch.optim.SGD([torch.zeros(1)]), meta(iteration))
    return folder


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    model = network(0)
    optimizer = build_optimizer(model, CONFIG.solver)
    step(model, optimizer, 1)
    checkpoint.save(tmp_path, model, optimizer, meta(1))

    assert checkpoint.read_meta(locate(tmp_path)) == meta(1)
    loaded, told = checkpoint.load_model(checkpoint.find(str(tmp_path)))
    assert told == meta(1)
    assert same(loaded, model)
    assert not loaded.training

    # Two runs go on from here, one of them in other objects: momentum and rates come along.
    before = copy.deepcopy(model.state_dict())
    other = network(1)
    resumed = build_optimizer(other, CONFIG.solver)
    assert checkpoint.restore(locate(tmp_path), other, resumed) == meta(1)
    assert [g["rate_factor"] for g in resumed.param_groups] == [g["rate_factor"] for g in optimizer.param_groups]
    step(model, optimizer, 2)
    step(other, resumed, 2)
    assert same(model, other)
    assert not torch.equal(model.get_parameter("trunk.conv1.weight"), before["trunk.conv1.weight"])


def test_newest_checkpoint_of_a_run_is_the_one_that_ray_train_records(tmp_path: Path) -> None:
    for iteration in (20, 999_999, 1_000_000):
        write_meta_only(tmp_path / checkpoint.NAME.format(iteration), iteration)
    # As of a run that was killed while it uploaded its next checkpoint.
    write_meta_only(tmp_path / checkpoint.NAME.format(1_000_500), 1_000_500)
    record = {"latest_checkpoint_result": {"checkpoint_dir_name": checkpoint.NAME.format(1_000_000)}}
    (tmp_path / checkpoint.SNAPSHOT).write_text(json.dumps(record))
    for uri in (tmp_path, f"{tmp_path}/"):
        assert checkpoint.read_meta(checkpoint.find(str(uri))).iteration == 1_000_000
    assert checkpoint.find(str(tmp_path / "ckpt_000020")).name == "ckpt_000020"


def test_a_run_before_its_first_checkpoint_has_none(tmp_path: Path) -> None:
    (tmp_path / checkpoint.SNAPSHOT).write_text(json.dumps({"latest_checkpoint_result": None}))
    with pytest.raises(UserError, match="no checkpoint at"):
        checkpoint.find(str(tmp_path))


def test_places_without_checkpoint_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    for path in (tmp_path, tmp_path / "missing", tmp_path / "notes.txt"):
        with pytest.raises(UserError, match=r"no checkpoint at .*: give the folder of a checkpoint"):
            checkpoint.find(str(path))
        with pytest.raises(UserError, match=r"no checkpoint at .*: give the folder of a checkpoint"):
            checkpoint.read_meta(locate(path))


def test_a_checkpoint_that_lost_a_part_is_refused_with_its_name(tmp_path: Path) -> None:
    model = network(0)
    checkpoint.save(tmp_path, model, build_optimizer(model, CONFIG.solver), meta(1))
    weights, told = tmp_path / "model.pt", tmp_path / "checkpoint.json"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"model\.pt cannot be read .*: the checkpoint is broken"):
        checkpoint.load_model(locate(tmp_path))
    weights.unlink()
    with pytest.raises(UserError, match=r"model\.pt is missing: the checkpoint is incomplete"):
        checkpoint.load_model(locate(tmp_path))
    fields = json.loads(told.read_text())
    del fields["classes"]
    for text, message in ((json.dumps(fields), r"has no 'classes'"), (told.read_text()[:50], r"is not JSON")):
        told.write_text(text)
        with pytest.raises(UserError, match=rf"checkpoint\.json {message}.*: the checkpoint is broken"):
            checkpoint.read_meta(locate(tmp_path))
