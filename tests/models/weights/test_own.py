"""Checkpoints become other networks: what is taken, what starts anew, what is refused."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn

from deeplab_ray.config.network import NetworkConfig
from deeplab_ray.config.recipe import Recipe
from deeplab_ray.errors import UserError
from deeplab_ray.models import checkpoint
from deeplab_ray.models.configs import DeepLabV2Config, FCNConfig, Head
from deeplab_ray.models.heads import fcn
from deeplab_ray.models.networks import create
from deeplab_ray.models.weights.load import Loaded, load
from deeplab_ray.runs import CheckpointMeta, Provenance

VOC = tiny.classes(21).names
OTHERS = tuple(f"other class {k}" for k in range(21))
STATISTICS = ("running_mean", "running_var")


def saved(folder: Path, config: NetworkConfig, classes: tuple[str, ...] = VOC) -> dict[str, Tensor]:
    """The state dict of a checkpoint that is written into a new folder: a network with numbers of its own."""
    torch.manual_seed(3)
    network = create(config, len(classes))
    for name, tensor in network.state_dict().items():
        if "classifier" in name or name.endswith(("bias", *STATISTICS)):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith("num_batches_tracked"):
            tensor.fill_(7)
    folder.mkdir()
    meta = CheckpointMeta(Provenance(Recipe(network.config)), 9, replace(tiny.classes(len(classes)), names=classes), [])
    checkpoint.save(folder, network, None, meta)
    return network.state_dict()


def resnet18(head: Head = "plain", weights: Path | str = "random", **options: Any) -> DeepLabV2Config:
    return DeepLabV2Config("resnet18", head, weights=str(weights), **options)


def assert_taken(loaded: Loaded, state: dict[str, Tensor], but: set[str]) -> None:
    """All tensors are the checkpoint's, except for those named, which the report knows."""
    own = loaded.network.state_dict()
    assert but <= set(own)
    for name, tensor in own.items():
        if name in but:
            assert name not in state or tensor.shape != state[name].shape or not torch.equal(tensor, state[name]), name
        else:
            assert torch.equal(tensor, state[name]), name
    assert {line.tensor for line in loaded.report if not line.source} == but


def test_a_checkpoint_goes_on_for_its_own_classes_and_keeps_its_conventions(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    config = resnet18(input="caffe", strides="torchvision", alignment="centres")
    state = saved(folder, config)
    for names in (VOC, None):
        loaded = load(resnet18(weights=folder), 21, names)
        assert_taken(loaded, state, set())
        found = loaded.network.config
        assert (found.input, found.strides, found.alignment) == ("caffe", "torchvision", "centres")
        assert all(line.tensor and line.source for line in loaded.report)
        assert loaded.sha256 == hashlib.sha256((folder / "model.pt").read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("classes", "head", "reason"),
    [
        (tuple(OTHERS[:19]), "plain", "the checkpoint's is for 21 classes"),
        (OTHERS, "plain", "the checkpoint's is for 21 other classes"),
        (VOC, "aspp-l", "the checkpoint's is of another head"),
        (VOC, "largefov", "the checkpoint's is of another head"),
    ],
)
def test_other_classes_or_another_head_renew_the_classifier_alone(
    tmp_path: Path, classes: tuple[str, ...], head: Head, reason: str
) -> None:
    state = saved(tmp_path / "c", resnet18())
    loaded = load(resnet18(head, tmp_path / "c"), len(classes), classes)
    own = loaded.network.state_dict()
    renewed = {name for name in own if "classifier" in name}
    assert_taken(loaded, state, renewed)
    for name in renewed:
        assert own[name].std() < 0.02 or name.endswith("bias")
        assert not own[name].any() or name.endswith("weight")
    first = {line.how for line in loaded.report if line.tensor.startswith("head.classifiers.0.")}
    assert first == {f"left at initialisation: {reason}"}
    assert {line.source for line in loaded.report if not line.tensor} == {n for n in state if "classifier" in n}


def test_vggs_hidden_layers_are_taken_where_the_head_is_the_same(tmp_path: Path) -> None:
    state = saved(tmp_path / "c", DeepLabV2Config("vgg16", "largefov", weights="random"))
    config = DeepLabV2Config("vgg16", "largefov", msc=True, weights=str(tmp_path / "c"))
    assert_taken(load(config, 21, VOC), state, set())
    renewed = {f"head.branches.0.classifier.{kind}" for kind in ("weight", "bias")}
    assert_taken(load(config, 21, OTHERS), state, renewed)


def test_fcn_is_trained_in_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FCN-16s takes all of FCN-32s and starts at its output, FCN-8s all of FCN-16s: the new score layers are zero."""
    monkeypatch.setattr(fcn, "_CHANNELS", 4)
    state = saved(tmp_path / "32s", FCNConfig("32s", weights="random", input="caffe"))
    for coarse, fine, pool in (("32s", "16s", 4), ("16s", "8s", 3)):
        loaded = load(FCNConfig(fine, weights=str(tmp_path / coarse)), 21, VOC)
        new = {f"head.classifier_pool{pool}.{kind}" for kind in ("weight", "bias")}
        assert_taken(loaded, state, new)
        assert not any(loaded.network.state_dict()[name].any() for name in new)
        assert loaded.network.config.input == "caffe"
        state = saved(tmp_path / fine, FCNConfig(fine, weights="random", input="caffe"))
    loaded = load(FCNConfig("8s", weights=str(tmp_path / "8s")), 21, OTHERS)
    assert_taken(loaded, state, {name for name in state if "classifier" in name})
    # And back: what is finer than the network has no use.
    loaded = load(FCNConfig("32s", weights=str(tmp_path / "8s")), 21, VOC)
    assert_taken(loaded, state, set())
    unused = {line.source for line in loaded.report if not line.tensor}
    assert unused == {f"head.classifier_pool{pool}.{kind}" for pool in (3, 4) for kind in ("weight", "bias")}


@pytest.mark.parametrize("after", ["frozen", "trained", "synchronised"])
@pytest.mark.parametrize("before", ["frozen", "trained", "synchronised"])
def test_norms_may_be_frozen_or_set_free_between_two_runs(tmp_path: Path, before: str, after: str) -> None:
    state = saved(tmp_path / "c", resnet18(batch_norm=before))
    loaded = load(resnet18(weights=tmp_path / "c", batch_norm=after), 21, VOC)
    own = loaded.network.state_dict()
    assert loaded.network.config.batch_norm == after
    assert loaded.network.buffers_train == (after != "frozen")
    for name, tensor in own.items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, state[name]), name
    norms = [module for module in loaded.network.modules() if isinstance(module, nn.BatchNorm2d)]
    counted = 0 if before == "frozen" else 7
    assert [int(norm.num_batches_tracked) for norm in norms] == ([] if after == "frozen" else [counted] * 20)


def test_another_convention_than_the_checkpoints_can_be_asked_for(tmp_path: Path) -> None:
    saved(tmp_path / "c", resnet18(input="caffe"))
    loaded = load(resnet18(weights=tmp_path / "c", input="torchvision"), 21, VOC)
    assert loaded.network.scale.tolist() == pytest.approx([58.395, 57.12, 57.375])
    assert {line.how for line in loaded.report if line.source in ("mean", "scale")} == {
        "not used: --input says otherwise"
    }


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (
            DeepLabV2Config("resnet18", "plain", weights="c", channels=1),
            "is for images of 3 channels, this network for 1: take --channels 3",
        ),
        (DeepLabV2Config("vgg16", "largefov", weights="c"), r"lacks trunk\.features"),
        (FCNConfig("8s", weights="c"), r"lacks trunk\.features"),
    ],
    ids=["channels", "backbone", "network"],
)
def test_a_checkpoint_of_another_network_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: NetworkConfig, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "c", resnet18())
    with torch.device("meta"), pytest.raises(UserError, match=sentence):
        load(config, 21)
