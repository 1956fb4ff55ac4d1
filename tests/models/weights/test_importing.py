"""Weights into checkpoints, checkpoints into other networks: what is taken, what starts anew, what is refused."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision

from deeplab_ray.config.recipe import Config, Head, ModelConfig
from deeplab_ray.errors import UserError
from deeplab_ray.models import DeepLab, checkpoint
from deeplab_ray.models.networks import fcn
from deeplab_ray.models.weights.importing import import_weights
from deeplab_ray.models.weights.load import load
from deeplab_ray.presets import paper as presets
from deeplab_ray.storage.location import locate
from deeplab_ray.training.optimizer import build_optimizer

JOB = Path(__file__).parents[3] / "jobs" / "import_weights.py"
VOC = tuple(f"class {k}" for k in range(21))


def saved(folder: Path, model: ModelConfig, classes: tuple[str, ...]) -> tuple[Path, dict[str, torch.Tensor]]:
    """A checkpoint of a network with numbers of its own."""
    torch.manual_seed(3)
    network = DeepLab(model, len(classes))
    for name, tensor in network.state_dict().items():
        if "classifier" in name:
            tensor.normal_()
    config = Config(network.config)
    folder.mkdir()
    meta = checkpoint.CheckpointMeta(config, 9, classes, [])
    checkpoint.save(folder, network, build_optimizer(network, config.solver), meta)
    return folder, network.state_dict()


def resnet18(dataset: str, head: Head = "plain", weights: str = "random", **options: str) -> ModelConfig:
    return ModelConfig(dataset, "resnet18", head, weights, **options)  # type: ignore[arg-type]


def test_a_checkpoint_goes_on_for_its_own_classes_and_keeps_its_conventions(tmp_path: Path) -> None:
    folder, state = saved(tmp_path / "c", resnet18("coco", input="caffe", strides="torchvision"), VOC)
    model, report = load(resnet18("voc11", weights=str(folder)), 21)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert (model.config.input, model.config.strides) == ("caffe", "torchvision")
    assert all(line.tensor and line.source for line in report)


@pytest.mark.parametrize(("dataset", "classes", "head"), [("cityscapes", 19, "plain"), ("coco", 21, "aspp-l")])
def test_other_classes_or_another_head_renew_the_classifier_alone(
    tmp_path: Path, dataset: str, classes: int, head: Head
) -> None:
    folder, state = saved(tmp_path / "c", resnet18("coco"), VOC)
    model, report = load(resnet18(dataset, head, str(folder)), classes)
    for name, tensor in model.state_dict().items():
        if "classifier" in name:
            assert tensor.std() < 0.02 or name.endswith("bias")
        else:
            assert torch.equal(tensor, state[name]), name
    left = {line.tensor for line in report if not line.source}
    assert left == {name for name in model.state_dict() if "classifier" in name}


def test_fcn_is_trained_in_stages(tmp_path: Path) -> None:
    """FCN-16s takes all of FCN-32s and starts at its output: the new score layer is zero."""
    with torch.device("meta"):
        coarse = DeepLab(ModelConfig("voc11", "vgg16", "fcn32s", "random"), 21)
    folder = tmp_path / "c"
    folder.mkdir()
    meta = checkpoint.CheckpointMeta(Config(coarse.config), 9, VOC, [])
    (folder / "checkpoint.json").write_text(json.dumps(dataclasses.asdict(meta)))
    torch.save({name: torch.ones(()).expand(t.shape) for name, t in coarse.state_dict().items()}, folder / "model.pt")
    with torch.device("meta"):
        _, report = load(ModelConfig("voc11", "vgg16", "fcn16s", str(folder)), 21)
    left = {line.tensor for line in report if not line.source}
    assert left == {"head.classifier_pool4.weight", "head.classifier_pool4.bias"}
    for layer in (fcn._score(512, 21), fcn._score(256, 21)):
        assert not layer.weight.any()
        assert not layer.bias.any()  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["voc12-resnet101-msc-coco", "voc11-fcn16s", "voc11-fcn8s"])
def test_presets_that_start_from_another_network_ask_for_it(name: str) -> None:
    with pytest.raises(UserError, match=r"this preset starts from .*: name it with --weights"):
        load(presets.get(name).config.model, 21)


def test_imported_weights_are_a_checkpoint(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    config = Config(resnet18("voc12", weights=str(tmp_path / "resnet18.pth")))
    imported = import_weights(config, VOC, str(tmp_path / "out"), seed=0)
    model, meta = checkpoint.load_model(checkpoint.find(str(tmp_path / "out")))
    assert (meta.iteration, meta.classes) == (0, VOC)
    assert meta.config.model == imported.config == model.config
    assert meta.config.model.strides == "torchvision"
    assert (imported.left, imported.unused) == (2, 2)
    assert imported.taken == len(model.state_dict()) - 4
    again, _ = load(resnet18("voc12", weights=str(tmp_path / "out")), 21)
    assert all(torch.equal(t, model.state_dict()[name]) for name, t in again.state_dict().items())
    with pytest.raises(UserError, match="is not empty"):
        import_weights(config, VOC, str(tmp_path / "out"), seed=0)


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
    assert ["trunk.layer4.0.conv2.weight", "layer4.0.conv2.weight", "taken"] in [line.split() for line in lines]
    assert [line.split()[0] for line in lines if "left at initialisation" in line] == [
        "head.classifiers.0.weight",
        "head.classifiers.0.bias",
    ]
    assert checkpoint.read_meta(locate(tmp_path / "out")).config.model.dataset == "scenes"


def test_nothing_is_written_of_weights_that_do_not_fit(tmp_path: Path) -> None:
    state = torchvision.models.resnet18(weights=None).state_dict()
    state.pop("layer3.0.bn2.running_var")
    torch.save(state, tmp_path / "resnet18.pth")
    config = Config(resnet18("voc12", weights=str(tmp_path / "resnet18.pth")))
    with pytest.raises(UserError, match=r"lacks layer3\.0\.bn2\.running_var"):
        import_weights(config, VOC, str(tmp_path / "out"), seed=0)
    assert not (tmp_path / "out").exists()
