"""Weights of files become checkpoints, with a report on every tensor."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
import torchvision

from deeplab_ray import datasets, runs
from deeplab_ray.config.recipe import Recipe
from deeplab_ray.errors import UserError
from deeplab_ray.models import checkpoint
from deeplab_ray.models.configs import DeepLabV2Config
from deeplab_ray.models.weights.importing import import_weights
from deeplab_ray.models.weights.load import load
from deeplab_ray.storage.location import locate

JOB = Path(__file__).parents[3] / "jobs" / "import_weights.py"
VOC = tiny.classes(21)


def resnet18(weights: Path | str) -> DeepLabV2Config:
    return DeepLabV2Config("resnet18", "plain", weights=str(weights))


def test_imported_weights_are_a_checkpoint(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    recipe = Recipe(resnet18(tmp_path / "resnet18.pth"), seed=3)
    imported = import_weights(recipe, VOC, str(tmp_path / "out"))
    place = runs.find(str(tmp_path / "out"))
    meta = runs.read_meta(place)
    model = checkpoint.load_model(place, meta.recipe.network, len(meta.classes))
    assert (meta.iteration, meta.classes, meta.recipe.seed) == (0, VOC, 3)
    assert meta.recipe.network == imported.network == model.config
    assert meta.recipe.network.strides == imported.options["strides"] == "torchvision"
    assert meta.run.weights_sha256 == load(recipe.network, 21).sha256
    assert meta.run.train is None
    assert (imported.left, imported.unused) == (2, 2)
    assert imported.taken == len(model.state_dict()) - 4
    again = load(resnet18(tmp_path / "out"), 21, VOC.names).network
    assert all(torch.equal(t, model.state_dict()[name]) for name, t in again.state_dict().items())
    with pytest.raises(UserError, match="is not empty"):
        import_weights(recipe, VOC, str(tmp_path / "out"))


def test_what_is_left_at_initialisation_follows_the_seed(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    classifiers = []
    for place, seed in (("a", 0), ("b", 0), ("c", 1)):
        import_weights(Recipe(resnet18(tmp_path / "resnet18.pth"), seed=seed), VOC, str(tmp_path / place))
        classifiers.append(checkpoint.read_tensors(locate(tmp_path / place))["head.classifiers.0.weight"])
    assert torch.equal(classifiers[0], classifiers[1])
    assert not torch.equal(classifiers[0], classifiers[2])


def test_the_job_reports_every_tensor(tmp_path: Path) -> None:
    file = tmp_path / "resnet18.pth"
    state = torchvision.models.resnet18(weights=None).state_dict()
    torch.save(state, file)
    arguments = [str(file), "--preset", "scenes-resnet18-largefov", "--output", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, str(JOB), *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    result = json.loads(lines[-1].removeprefix("RESULT "))
    assert result["taken"] == len([name for name in state if "fc." not in name and "num_batches" not in name])
    assert (result["left_at_initialisation"], result["classes"]) == (2, 12)
    assert (result["network"]["name"], result["network"]["head"]) == ("deeplab_v2", "largefov")
    assert ["trunk.layer4.0.conv2.weight", "layer4.0.conv2.weight", "taken"] in [line.split() for line in lines]
    assert [line.split()[0] for line in lines if "left at initialisation" in line] == [
        "head.classifiers.0.weight",
        "head.classifiers.0.bias",
    ]
    assert runs.read_meta(locate(tmp_path / "out")).classes == datasets.get("scenes").table


def test_nothing_is_written_of_weights_that_do_not_fit(tmp_path: Path) -> None:
    state = torchvision.models.resnet18(weights=None).state_dict()
    state.pop("layer3.0.bn2.running_var")
    torch.save(state, tmp_path / "resnet18.pth")
    with pytest.raises(UserError, match=r"lacks layer3\.0\.bn2\.running_var"):
        import_weights(Recipe(resnet18(tmp_path / "resnet18.pth")), VOC, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
