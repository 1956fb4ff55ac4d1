"""Where a trunk's weights come from, and that they mean here what they mean where they were trained."""

import os
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from deeplab_ray.config import ModelConfig
from deeplab_ray.errors import UserError
from deeplab_ray.models import DeepLab, build

CLASSES = 5


def config(backbone: str, **options: Any) -> ModelConfig:
    return ModelConfig("voc12", backbone, "largefov", **options)  # type: ignore[arg-type]


@torch.no_grad()
def test_resnet_computes_what_torchvisions_does(tmp_path: Path) -> None:
    """torchvision's file fits, and the trunk is its net with the strides of res4 and res5 made dilations."""
    torch.manual_seed(1)
    theirs = torchvision.models.resnet18(weights=None).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(std=0.1)
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    ours = build(config("resnet18", weights=str(tmp_path / "resnet18.pth")), CLASSES)

    theirs.maxpool.ceil_mode = True
    for layer, rate in ((theirs.layer3, 2), (theirs.layer4, 4)):
        for name, module in layer.named_modules():
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
                if "downsample" not in name:
                    module.dilation = module.padding = (rate, rate)
    theirs.avgpool = theirs.fc = nn.Identity()
    x = torch.randn(1, 3, 33, 41)
    torch.testing.assert_close(ours.trunk(x), theirs(x).view(1, 512, 5, 6), rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_vgg_computes_what_torchvisions_does(tmp_path: Path) -> None:
    with torch.device("meta"):
        theirs = torchvision.models.vgg16(weights=None)
    features = theirs.features.to_empty(device="cpu")
    for name, parameter in features.named_parameters():
        parameter.normal_(std=0.02 if name.endswith("weight") else 0.1)
    # All of the file's names; the image classifier's 120 million numbers are left out.
    state = {name: torch.zeros(1) if name.startswith("classifier.") else t for name, t in theirs.state_dict().items()}
    torch.save(state, tmp_path / "vgg16.pth")
    ours = build(config("vgg16", weights=str(tmp_path / "vgg16.pth")), CLASSES)

    for module in features[24:]:
        if isinstance(module, nn.Conv2d):
            module.dilation = module.padding = (2, 2)
    for index, stride in ((4, 2), (9, 2), (16, 2), (23, 1), (30, 1)):
        features[index] = nn.MaxPool2d(3, stride, padding=1)
    x = torch.randn(1, 3, 33, 41)
    torch.testing.assert_close(ours.trunk(x), features(x), rtol=1e-3, atol=1e-5)


def test_real_vgg_trunk_loads() -> None:
    file = Path(os.environ.get("DEEPLAB_SHARED", "../shared")) / "weights" / "vgg16_features_hed.pth"
    if not file.exists():
        pytest.skip("the shared VGG-16 weights are not here")
    model = build(config("vgg16", weights=str(file)), CLASSES)
    assert model.mean.tolist() == pytest.approx([122.675, 116.669, 104.008])
    assert model.scale.tolist() == [1, 1, 1]
    first = "features.0.weight"
    assert torch.equal(model.trunk.get_parameter(first), torch.load(file, weights_only=True)[first].float())


@pytest.mark.parametrize(
    ("backbone", "weights", "choice", "caffe"),
    [
        ("vgg16", "random", "auto", False),
        ("vgg16", "torchvision", "auto", False),
        ("vgg16", "file.pth", "auto", True),
        ("resnet18", "file.pth", "auto", False),
        ("resnet18", "file.pth", "caffe", True),
        ("vgg16", "file.pth", "torchvision", False),
    ],
)
def test_input_convention_goes_with_the_weights(backbone: str, weights: str, choice: str, caffe: bool) -> None:
    model = DeepLab(config(backbone, weights=weights, input=choice), 2)
    seen = model.prepare(torch.tensor([[[[124, 117, 105]]]], dtype=torch.uint8)).flatten().tolist()
    mean, scale = ((122.675, 116.669, 104.008), (1, 1, 1)) if caffe else ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    colour = (124, 117, 105) if caffe else (124 / 255, 117 / 255, 105 / 255)
    assert seen == pytest.approx([(c - m) / s for c, m, s in zip(colour, mean, scale, strict=True)], abs=1e-4)
    assert {"mean", "scale"} <= set(model.state_dict())  # a checkpoint carries its convention


@pytest.fixture
def trunk_state() -> dict[str, torch.Tensor]:
    return dict(torchvision.models.resnet18(weights=None).state_dict())


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ({"layer2.0.conv1.weight": None}, r"lacks layer2\.0\.conv1\.weight \(1 missing, 0 unexpected"),
        ({"extra.weight": torch.zeros(1)}, r"holds extra\.weight, which this trunk lacks"),
        ({"conv1.weight": torch.zeros(64, 3, 3, 3)}, r"conv1\.weight is \(64, 3, 3, 3\), .* needs \(64, 3, 7, 7\)"),
        ({"conv1.weight": 3}, "holds no state dict"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    tmp_path: Path, trunk_state: dict[str, Any], damage: dict[str, Any], sentence: str
) -> None:
    state = {name: value for name, value in (trunk_state | damage).items() if value is not None}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError, match=sentence) as refusal:
        build(config("resnet18", weights=str(tmp_path / "w.pth")), CLASSES)
    assert "w.pth" in str(refusal.value)


@pytest.mark.parametrize("content", [None, b"", b"not a checkpoint", b"PK\x03\x04 broken archive"])
def test_files_that_hold_no_weights_are_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "w.pth"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=r"w\.pth") as refusal:
        build(config("resnet18", weights=str(file)), CLASSES)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("backbone", ["vgg16", "resnet18", "resnet101"])
def test_download_that_is_impossible_names_file_and_folder(
    backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    with torch.device("meta"), pytest.raises(UserError, match=rf"{backbone}-\w+\.pth cannot be downloaded") as refusal:
        build(config(backbone, weights="torchvision"), CLASSES)
    assert str(tmp_path / "hub" / "checkpoints") in str(refusal.value)
    assert "--weights FILE" in str(refusal.value)
