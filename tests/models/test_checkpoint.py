"""Checkpoints: what is saved comes back, and training goes on as if never stopped."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch

from deeplab_ray import runs
from deeplab_ray.config.recipe import Recipe, SolverConfig
from deeplab_ray.config.resources import TrainingResources
from deeplab_ray.errors import UserError
from deeplab_ray.models import checkpoint
from deeplab_ray.models.configs import BatchNorm, DeepLabV2Config
from deeplab_ray.models.network import Network
from deeplab_ray.models.networks import create
from deeplab_ray.storage.location import locate
from deeplab_ray.training.optimizer import build_optimizer, set_rate
from deeplab_ray.training.step import train_step

CONFIG = DeepLabV2Config("resnet18", "largefov", weights="random", input="caffe")
SOLVER = SolverConfig(batch=2)
NAMES = tiny.classes(3)


def network(seed: int, config: DeepLabV2Config = CONFIG) -> Network:
    torch.manual_seed(seed)
    return create(config, len(NAMES)).train()


def step(model: Network, optimizer: torch.optim.Optimizer, number: int) -> None:
    generator = torch.Generator().manual_seed(number)
    images = torch.randint(0, 256, (2, 17, 17, 3), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 3, (2, 17, 17), dtype=torch.uint8, generator=generator)
    set_rate(optimizer, 1e-4 / number)
    train_step(model, optimizer, [(images, labels)])


def meta(iteration: int, config: DeepLabV2Config = CONFIG) -> runs.CheckpointMeta:
    run = runs.Provenance(
        Recipe(config, solver=SOLVER),
        TrainingResources(workers=2),
        train=runs.DataRecord("s3://data/camvid", "train", "camvid", 367, "0" * 64),
        weights_sha256="f" * 64,
    )
    return runs.CheckpointMeta(run, iteration, NAMES, [{"iteration": iteration, "loss": 1.5, "miou": 0.25}])


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("batch_norm", ["frozen", "trained"])
def test_what_is_saved_comes_back(tmp_path: Path, batch_norm: BatchNorm) -> None:
    config = replace(CONFIG, batch_norm=batch_norm)
    model = network(0, config)
    optimizer = build_optimizer(model, SOLVER)
    step(model, optimizer, 1)
    checkpoint.save(tmp_path, model, optimizer, meta(1, config))

    told = runs.read_meta(locate(tmp_path))
    assert told == meta(1, config)
    loaded = checkpoint.load_model(locate(tmp_path), told.recipe.network, len(told.classes))
    assert same(loaded, model)
    assert not loaded.training

    # Two runs go on from here, one of them in other objects: momentum and rates come along.
    before = copy.deepcopy(model.state_dict())
    other = network(1, config)
    resumed = build_optimizer(other, SOLVER)
    assert checkpoint.restore(locate(tmp_path), other, resumed) == meta(1, config)
    assert [g["rate_factor"] for g in resumed.param_groups] == [g["rate_factor"] for g in optimizer.param_groups]
    step(model, optimizer, 2)
    step(other, resumed, 2)
    assert same(model, other)
    assert not torch.equal(model.get_parameter("trunk.conv1.weight"), before["trunk.conv1.weight"])
    moved = not torch.equal(model.get_buffer("trunk.bn1.running_mean"), before["trunk.bn1.running_mean"])
    assert moved == (batch_norm == "trained")


def test_without_an_optimizer_a_checkpoint_is_no_place_to_go_on_from(tmp_path: Path) -> None:
    model = network(0)
    checkpoint.save(tmp_path, model, None, meta(0))
    assert same(checkpoint.load_model(locate(tmp_path), CONFIG, 3), model)
    with pytest.raises(UserError, match=r"optimizer\.pt is missing"):
        checkpoint.restore(locate(tmp_path), model, build_optimizer(model, SOLVER))


def test_places_without_checkpoint_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    for path in (tmp_path, tmp_path / "missing", tmp_path / "notes.txt"):
        with pytest.raises(UserError, match=r"no checkpoint at .*: give the folder of a checkpoint"):
            runs.read_meta(locate(path))


def test_a_checkpoint_that_lost_a_part_is_refused_with_its_name(tmp_path: Path) -> None:
    model = network(0)
    checkpoint.save(tmp_path, model, build_optimizer(model, SOLVER), meta(1))
    weights, told = tmp_path / "model.pt", tmp_path / "checkpoint.json"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"model\.pt cannot be read .*: the checkpoint is broken"):
        checkpoint.load_model(locate(tmp_path), CONFIG, 3)
    weights.unlink()
    with pytest.raises(UserError, match=r"model\.pt is missing: the checkpoint is incomplete"):
        checkpoint.load_model(locate(tmp_path), CONFIG, 3)
    fields = json.loads(told.read_text())
    del fields["classes"]
    for text, message in ((json.dumps(fields), r"has no 'classes'"), (told.read_text()[:50], r"is not JSON")):
        told.write_text(text)
        with pytest.raises(UserError, match=rf"checkpoint\.json {message}.*: the checkpoint is broken"):
            runs.read_meta(locate(tmp_path))
