"""What can be told of a start before anything is loaded, and of a network without files of its own."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from deeplab_ray.config.network import NetworkConfig
from deeplab_ray.errors import UserError
from deeplab_ray.models.configs import DeepLabV2Config
from deeplab_ray.models.network import Network, register
from deeplab_ray.models.weights.caffe_format import CaffeNet
from deeplab_ray.models.weights.load import load
from deeplab_ray.models.weights.start import check_start, is_file
from deeplab_ray.presets import lookup as presets


@dataclass(frozen=True)
class ShiftConfig(NetworkConfig):
    name: ClassVar[str] = "shift"


@register(ShiftConfig)
class Shift(Network):
    """A number for each class."""

    def __init__(self, config: ShiftConfig, classes: int) -> None:
        super().__init__(config, classes)
        self.shift = nn.Parameter(torch.zeros(classes, 1, 1))

    def score(self, prepared: Tensor) -> Tensor:
        return prepared[:, :1] + self.shift


def test_a_network_takes_state_dicts_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    for convention, mean in (({"mean": torch.zeros(3), "scale": torch.ones(3)}, 0), ({}, 123.675)):
        torch.save({"shift": torch.ones(2, 1, 1), **convention}, file)
        loaded = load(ShiftConfig(weights=str(file)), 2)
        assert loaded.network.shift.flatten().tolist() == [1, 1]
        assert loaded.network.mean[0] == pytest.approx(mean)
        assert len(loaded.sha256 or "") == 64
    with pytest.raises(UserError, match=r"w\.pth: shift is \(2, 1, 1\), this network needs \(3, 1, 1\)"):
        load(ShiftConfig(weights=str(file)), 3)


def test_a_network_without_downloads_or_caffe_files_says_so() -> None:
    with pytest.raises(UserError, match="there are no downloads for shift: give --weights FILE, or --weights random"):
        load(ShiftConfig(weights="torchvision"), 2)
    with pytest.raises(UserError, match=r"w\.caffemodel is a Caffe net, which shift cannot take"):
        Shift.pretrained(ShiftConfig(), 2, CaffeNet("w.caffemodel", []))


@pytest.mark.parametrize("name", ["voc12-resnet101-msc-coco", "voc11-fcn16s", "voc11-fcn8s"])
def test_presets_that_start_from_another_network_ask_for_it(name: str) -> None:
    network = presets.get(name).recipe.network
    assert not is_file(network.weights)
    for ask in (check_start, lambda config: load(config, 21)):
        with pytest.raises(UserError, match=r"this preset starts from .*: name it with --weights"):
            ask(network)


def test_weights_that_are_not_there_are_told_before_anything_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    with pytest.raises(UserError, match=r"no weights at .*w\.pth: give the path of a \.pth state dict"):
        check_start(DeepLabV2Config("resnet18", weights=str(file)))
    file.write_bytes(b"")
    for weights in (str(file), str(tmp_path), "random", "torchvision"):
        check_start(DeepLabV2Config("resnet18", weights=weights))
        assert is_file(weights) == (weights not in ("random", "torchvision"))
