"""Where a trunk's weights come from, and that they mean here what they mean where they were trained."""

import itertools
import os
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from deeplab_ray.errors import UserError
from deeplab_ray.models.configs import DeepLabV2Config
from deeplab_ray.models.heads.branches import BRANCHES
from deeplab_ray.models.networks import create
from deeplab_ray.models.networks.deeplab_v2 import DeepLabV2
from deeplab_ray.models.weights.load import load
from deeplab_ray.models.weights.mapping import StateDict
from deeplab_ray.models.weights.vgg import decimate

CLASSES = 5


def config(backbone: str, **options: Any) -> DeepLabV2Config:
    return DeepLabV2Config(backbone, "largefov", **options)


def _resnet18(seed: int = 1) -> nn.Module:
    """torchvision's, with numbers for its norms that are not one and zero."""
    torch.manual_seed(seed)
    theirs = torchvision.models.resnet18(weights=None).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    return theirs


@torch.no_grad()
def test_resnet_computes_densely_what_torchvisions_does_at_every_32nd_pixel(tmp_path: Path) -> None:
    """The atrous conversion is exact: every fourth cell of the stride-8 output is one of the classifier's."""
    theirs = _resnet18()
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    ours = load(config("resnet18", weights=str(tmp_path / "resnet18.pth")), CLASSES).network
    theirs.avgpool = theirs.fc = nn.Identity()
    x = torch.randn(1, 3, 97, 129)
    expected = theirs(x).view(1, 512, 4, 5)
    dense = ours.trunk(x)
    assert dense.shape == (1, 512, 13, 17)
    torch.testing.assert_close(dense[..., ::4, ::4], expected, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_resnet101_strides_and_dilates_as_its_weights_did() -> None:
    """torchvision's own dilated net, and the original's: stride in the first 1×1, one dilation throughout."""
    with torch.device("meta"):
        theirs = torchvision.models.resnet101(weights=None, replace_stride_with_dilation=[False, True, True])
        ours = create(DeepLabV2Config("resnet101", "plain"), CLASSES).trunk
        caffe = create(DeepLabV2Config("resnet101", "plain", strides="caffe"), CLASSES).trunk
    for name, module in ours.named_modules():
        if isinstance(module, nn.Conv2d):
            assert module.extra_repr() == theirs.get_submodule(name).extra_repr(), name
    for layer, dilation in ((3, 2), (4, 4)):
        for conv in (m for m in caffe.get_submodule(f"layer{layer}").modules() if isinstance(m, nn.Conv2d)):
            assert conv.dilation == ((dilation,) * 2 if conv.kernel_size == (3, 3) else (1, 1))
    strided = [name for name, m in caffe.named_modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    assert strided == ["conv1", "layer2.0.conv1", "layer2.0.downsample.0"]


def _vgg16(classifier: float) -> tuple[nn.Sequential, dict[str, torch.Tensor]]:
    """torchvision's convolutions with random numbers, and its state dict, whose classifier holds one number."""
    with torch.device("meta"):
        theirs = torchvision.models.vgg16(weights=None)
    features = theirs.features.to_empty(device="cpu")
    for name, parameter in features.named_parameters():
        nn.init.normal_(parameter, std=0.02 if name.endswith("weight") else 0.1)
    state = theirs.state_dict()
    # Without memory for 120 million copies of it.
    numbers = {name: torch.tensor(classifier).expand(t.shape) for name, t in state.items() if name.startswith("cl")}
    return features, state | numbers


@torch.no_grad()
def test_vgg_computes_what_torchvisions_does() -> None:
    torch.manual_seed(0)
    features, state = _vgg16(0.25)
    ours, report = DeepLabV2.pretrained(config("vgg16"), CLASSES, StateDict("vgg16.pth", state))
    for module in features[24:]:
        if isinstance(module, nn.Conv2d):
            module.dilation = module.padding = (2, 2)
    for index, stride in ((4, 2), (9, 2), (16, 2), (23, 1), (30, 1)):
        features[index] = nn.MaxPool2d(3, stride, padding=1)
    x = torch.randn(1, 3, 33, 41)
    torch.testing.assert_close(ours.trunk(x), features(x), rtol=1e-3, atol=1e-5)
    # fc6 and fc7 are taken, too.
    branch = ours.head.get_submodule("branches.0")
    for name in ("fc6.weight", "fc6.bias", "fc7.weight", "fc7.bias"):
        assert (branch.get_parameter(name) == 0.25).all(), name
    assert branch.get_parameter("classifier.weight").std() < 0.02
    assert ours.config.input == "torchvision"
    assert {line.tensor for line in report if "left" in line.how} == {
        f"head.branches.0.classifier.{kind}" for kind in ("weight", "bias")
    }


def test_torchvisions_features_file_has_no_classifier_and_caffes_convention() -> None:
    _, state = _vgg16(float("nan"))
    ours, report = DeepLabV2.pretrained(config("vgg16"), CLASSES, StateDict("vgg16_features.pth", state))
    assert ours.mean.tolist() == pytest.approx([255 * m for m in (0.48235, 0.45882, 0.40784)])
    assert ours.scale.tolist() == [1, 1, 1]
    assert all(torch.isfinite(p).all() for p in ours.parameters())
    assert {line.tensor for line in report if "left" in line.how} == {
        f"head.branches.0.{layer}.{kind}" for layer in ("fc6", "fc7", "classifier") for kind in ("weight", "bias")
    }


@pytest.mark.parametrize(
    ("head", "rows"),
    [("largefov", [0, 3, 6]), ("k4r4", [1, 2, 3, 4]), ("k4r8", [0, 2, 4, 6]), ("k7r4", list(range(7)))],
)
def test_decimation_takes_the_right_taps_and_channels(head: str, rows: list[int]) -> None:
    (branch,) = BRANCHES[head]  # type: ignore[index]
    outputs, inputs = torch.arange(8).view(8, 1, 1, 1), torch.arange(3).view(1, 3, 1, 1)
    known = outputs * 1000 + inputs * 100 + torch.arange(7).view(7, 1) * 10 + torch.arange(7)
    step = 4096 // branch.channels
    kernel = decimate(known.flatten(1), 7, outputs=step, inputs=1, taps=branch.taps)
    assert kernel.shape == (8 // step, 3, branch.kernel, branch.kernel)
    for o, i, y, x in itertools.product(*map(range, kernel.shape)):
        assert kernel[o, i, y, x] == o * step * 1000 + i * 100 + rows[y] * 10 + rows[x]
    # Where the taps of the classifier's fc6 lie, 32 pixels apart, ours lie, too.
    if head != "k4r4":
        assert [8 * branch.rate * k for k in range(branch.kernel)] == [32 * row for row in rows]


def test_real_vgg_trunk_loads() -> None:
    file = Path(os.environ.get("DEEPLAB_SHARED", "../shared")) / "weights" / "vgg16_features_hed.pth"
    if not file.exists():
        pytest.skip("the shared VGG-16 weights are not here")
    model = load(config("vgg16", weights=str(file)), CLASSES).network
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
    model = create(config(backbone, weights=weights, input=choice), 2)
    seen = model.prepare(torch.tensor([[[[124, 117, 105]]]], dtype=torch.uint8)).flatten().tolist()
    mean, scale = ((122.675, 116.669, 104.008), (1, 1, 1)) if caffe else ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    colour = (124, 117, 105) if caffe else (124 / 255, 117 / 255, 105 / 255)
    assert seen == pytest.approx([(c - m) / s for c, m, s in zip(colour, mean, scale, strict=True)], abs=1e-4)
    assert {"mean", "scale"} <= set(model.state_dict())  # a checkpoint carries its convention


@pytest.mark.parametrize("weights", ["random", "torchvision"])
@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_than_colours_are_normalised_alike(weights: str, channels: int) -> None:
    model = create(config("resnet18", weights=weights, channels=channels), 2)
    seen = model.prepare(torch.full((1, 1, 1, channels), 120, dtype=torch.uint8))
    assert model.mean.shape == model.scale.shape == (channels,)
    mean, deviation = 255 * (0.485 + 0.456 + 0.406) / 3, 255 * (0.229 + 0.224 + 0.225) / 3
    assert seen.flatten().tolist() == pytest.approx([(120 - mean) / deviation] * channels, abs=1e-4)


@pytest.fixture
def trunk_state() -> dict[str, torch.Tensor]:
    return dict(torchvision.models.resnet18(weights=None).state_dict())


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ({"layer2.0.conv1.weight": None}, r"lacks layer2\.0\.conv1\.weight \(1 missing, 0 unexpected"),
        ({"extra.weight": torch.zeros(1)}, r"holds extra\.weight, which this network lacks"),
        ({"conv1.weight": torch.zeros(64, 3, 3, 3)}, r"conv1\.weight is \(64, 3, 3, 3\), .* needs \(64, 3, 7, 7\)"),
        ({"bn1.bias": torch.full((64,), float("inf"))}, r"bn1\.bias holds numbers that are not finite"),
        ({"conv1.weight": torch.zeros(64, 4, 7, 7)}, r"conv1\.weight is \(64, 4, 7, 7\), .* needs \(64, 3, 7, 7\)"),
        ({"conv1.weight": 3}, r"lacks conv1\.weight"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    tmp_path: Path, trunk_state: dict[str, Any], damage: dict[str, Any], sentence: str
) -> None:
    state = {name: value for name, value in (trunk_state | damage).items() if value is not None}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UserError, match=sentence) as refusal:
        load(config("resnet18", weights=str(tmp_path / "w.pth")), CLASSES)
    assert "w.pth" in str(refusal.value)


@pytest.mark.parametrize("content", [None, b"", b"not a checkpoint", b"PK\x03\x04 broken archive"])
def test_files_that_hold_no_weights_are_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "w.pth"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=r"w\.pth") as refusal:
        load(config("resnet18", weights=str(file)), CLASSES)
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
        load(config(backbone, weights="torchvision"), CLASSES)
    assert str(tmp_path / "hub" / "checkpoints") in str(refusal.value)
    assert "--weights FILE" in str(refusal.value)


def test_downloads_that_do_not_exist_are_refused() -> None:
    with torch.device("meta"), pytest.raises(UserError, match="torchvision has no IMAGENET1K_FEATURES of resnet18"):
        load(config("resnet18", weights="torchvision-features"), CLASSES)


def test_random_weights_come_from_no_file() -> None:
    loaded = load(config("resnet18", weights="random"), CLASSES)
    assert loaded.sha256 is None
    assert {line.tensor for line in loaded.report} == set(loaded.network.state_dict())
    assert all("random weights" in line.how for line in loaded.report)


@torch.no_grad()
def test_norms_that_train_start_from_the_pretrained_ones(tmp_path: Path) -> None:
    """torchvision's file counts the batches that its norms saw; ours count their own."""
    torch.save(_resnet18().state_dict(), tmp_path / "resnet18.pth")
    weights = str(tmp_path / "resnet18.pth")
    frozen, trained = (
        load(config("resnet18", weights=weights, batch_norm=kind), CLASSES) for kind in ("frozen", "synchronised")
    )
    images = torch.randint(0, 256, (1, 33, 41, 3), dtype=torch.uint8)
    features = [loaded.network.eval().trunk(loaded.network.prepare(images)) for loaded in (frozen, trained)]
    torch.testing.assert_close(features[1], features[0])
    state = trained.network.state_dict()
    assert all(tensor == 0 for name, tensor in state.items() if name.endswith("num_batches_tracked"))
