""".caffemodel files, written here in the wire format, give the outputs of their prototxt's layers."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import resnet_reference as reference
import torch
import wire
from torch import Tensor
from torch.nn import functional as F

from deeplab_ray.errors import UserError
from deeplab_ray.models.configs import DeepLabV2Config
from deeplab_ray.models.networks.deeplab_v2 import DeepLabV2
from deeplab_ray.models.weights.load import load

ResNet = tuple[dict[str, reference.Weights], list[tuple[Tensor, Tensor]]]
"""Trunk and classifiers."""

CLASSES = reference.CLASSES
MEAN_BGR = (104.008, 116.669, 122.675)


def image(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, (1, height, width, 3), dtype=torch.uint8, generator=generator)


def bgr(rgb: Tensor) -> Tensor:
    """What Caffe saw of an RGB image: blue first, minus the mean."""
    return rgb.flip(3).permute(0, 3, 1, 2).float() - torch.tensor(MEAN_BGR).view(1, 3, 1, 1)


def close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    spread = float(theirs.std())
    assert spread > 1e-2
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * spread)


# ResNet-101


def resnet_layers(resnet: ResNet, copy: str = "") -> list[bytes]:
    """The layers of the original's prototxt; `copy` is what MSC's copies have in their names."""
    trunk, heads = resnet
    layers = []
    factor = 0.98  # the third number of a batch norm, by which the others are to be divided
    for conv in reference.convs():
        w = trunk[conv.name]
        stem = conv.name == "conv1"
        name, norm, scale = (
            ("conv1", "bn_conv1", "scale_conv1") if stem else (f"{k}{conv.name}" for k in ("res", "bn", "scale"))
        )
        geometry = wire.convolution(conv.outputs, conv.kernel, conv.stride, conv.pad, conv.dilation)
        layers.append(wire.layer(name + copy, "Convolution", [w.weight.numpy()], (wire.CONVOLUTION, geometry)))
        averages = [(w.mean * factor).numpy(), (w.variance * factor).numpy(), np.array([factor])]
        # use_global_stats, and the default epsilon.
        layers.append(wire.layer(norm + copy, "BatchNorm", averages, (wire.BATCH_NORM, wire.integer(1, 1))))
        layers.append(wire.layer(scale + copy, "Scale", [w.gamma.numpy(), w.beta.numpy()]))
        layers.append(wire.layer(f"{name}_relu{copy}", "ReLU"))
        if stem:
            layers.append(wire.layer(f"pool1{copy}", "Pooling", [], (wire.POOLING, wire.pooling(3, 2, 1))))
    for k, ((weight, bias), rate) in enumerate(zip(heads, reference.RATES, strict=True)):
        geometry = wire.convolution(CLASSES, 3, 1, rate, rate)
        blobs = [weight.numpy(), bias.numpy()]
        layers.append(wire.layer(f"fc1_voc12{copy}_c{k}", "Convolution", blobs, (wire.CONVOLUTION, geometry)))
    return layers


@pytest.fixture(scope="module")
def resnet() -> ResNet:
    return reference.draw()


@pytest.fixture(scope="module")
def resnet_file(resnet: ResNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The net of the original, of whose copies at ×0.5 and ×0.75 the first layers and the last stand for all."""
    layers = resnet_layers(resnet)
    for copy in ("_res05", "_res075"):
        copied = resnet_layers(resnet, copy)
        layers += copied[:20] + copied[-4:]
    layers.insert(0, wire.layer("data", "ImageSegData"))
    layers.append(wire.layer("fc1_voc12", "Eltwise"))
    file = tmp_path_factory.mktemp("caffe") / "train_iter_20000.caffemodel"
    file.write_bytes(wire.chunk(1, b"resnet101") + b"".join(layers))
    return file


def resnet_config(weights: Path) -> DeepLabV2Config:
    return DeepLabV2Config("resnet101", "aspp-l", msc=True, weights=str(weights))


@pytest.mark.slow
@torch.no_grad()
def test_deeplabs_resnet101_msc(resnet: ResNet, resnet_file: Path) -> None:
    loaded = load(resnet_config(resnet_file), CLASSES)
    model, report = loaded.network, loaded.report
    assert loaded.sha256 == hashlib.sha256(resnet_file.read_bytes()).hexdigest()
    rgb = image(65, 97)
    close(model.eval()(rgb), reference.multiscale_scores(bgr(rgb), *resnet, corners=True))

    assert (model.config.input, model.config.strides, model.config.alignment) == ("caffe", "caffe", "corners")
    assert {line.tensor for line in report} == set(model.state_dict()) - {"mean", "scale"}
    told = {line.tensor: line for line in report}
    assert told["trunk.conv1.weight"].how == "blue-green-red → red-green-blue"
    assert told["trunk.layer3.22.conv2.weight"].source == "res4b22_branch2b.weight"
    assert told["head.classifiers.3.bias"].source == "fc1_voc12_c3.bias"
    assert not any("left" in line.how for line in report)

    # For another number of classes everything is taken but the classifier.
    loaded = load(resnet_config(resnet_file), 19)
    other = loaded.network
    left = {line.tensor for line in loaded.report if "left at initialisation" in line.how}
    assert left == {f"head.classifiers.{k}.{kind}" for k in range(4) for kind in ("weight", "bias")}
    assert all(torch.equal(t, model.state_dict()[f"trunk.{name}"]) for name, t in other.trunk.state_dict().items())


@pytest.mark.parametrize(
    ("name", "replacement", "sentence"),
    [
        ("res4b7_branch2b", "", r"lacks res4b7_branch2b\.weight \(1 missing, 0 unexpected"),
        ("fc1_voc12_c2", "", r"lacks fc1_c2\.weight \(2 missing"),
        ("res3a_branch2a", (128, 1, 1, 0, 1), "res3a_branch2a has stride 1, this network has 2"),
        ("res5b_branch2b", (512, 3, 1, 4, 2), "res5b_branch2b has dilation 2, this network has 4"),
        ("res4a_branch2b", (256, 3, 1, 1, 2), "res4a_branch2b has pad 1, this network has 2"),
        ("bn2b_branch2a", wire.epsilon(1e-3), "bn2b_branch2a has epsilon 0.001, this network 1e-05"),
        ("bn2c_branch2a_res05", None, "bn2c_branch2a_res05 is a copy of a layer that is not there"),
        ("conv1_res05", np.zeros((64, 3, 7, 7)), "conv1_res05 differs from conv1"),
        ("pool5a", (3, 1, 1), "pool5a pools where this network does not"),
        ("surprise", np.zeros(3), r"holds surprise\.0, which this network lacks"),
    ],
)
def test_a_net_that_is_another_is_refused(
    resnet: ResNet,
    tmp_path: Path,
    name: str,
    replacement: object,
    sentence: str,
) -> None:
    """Arrays are shrunk to a number each: geometry, names and copies are looked at before shapes."""
    small = {key: reference.Weights(*(torch.ones(1) for _ in range(5))) for key in resnet[0]}
    layers = {}
    for content in resnet_layers((small, [(torch.ones(CLASSES, 1), torch.ones(CLASSES))] * 4)):
        found = re.search(rb"\n.([a-z_0-9]+)\x12", content)
        assert found
        layers[found[1].decode()] = content
    if isinstance(replacement, str):
        assert layers.pop(name)
    elif isinstance(replacement, tuple) and name.startswith("pool"):
        layers[name] = wire.layer(name, "Pooling", [], (wire.POOLING, wire.pooling(*replacement)))
    elif isinstance(replacement, tuple):
        assert name in layers
        layers[name] = wire.layer(name, "Convolution", [np.ones(1)], (wire.CONVOLUTION, wire.convolution(*replacement)))
    elif isinstance(replacement, bytes):
        layers[name] = wire.layer(name, "BatchNorm", [np.ones(1)] * 3, (wire.BATCH_NORM, replacement))
    elif replacement is None:
        layers.pop("bn2c_branch2a")
        layers[name] = wire.layer(name, "BatchNorm", [np.ones(1)] * 3)
    else:
        layers[name] = wire.layer(name, "Convolution" if "conv" in name else "Odd", [np.asarray(replacement)])
    file = tmp_path / "w.caffemodel"
    file.write_bytes(b"".join(layers.values()))
    with torch.device("meta"), pytest.raises(UserError, match=sentence) as refusal:
        load(resnet_config(file), CLASSES)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("content", [b"not a network", b"\xff" * 50, b"", wire.layer("relu", "ReLU")])
def test_files_that_are_no_caffemodel_are_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "w.caffemodel"
    file.write_bytes(content)
    with torch.device("meta"), pytest.raises(UserError, match=r"w\.caffemodel"):
        load(resnet_config(file), CLASSES)


def test_arrays_cut_short_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "w.caffemodel"
    short = wire.chunk(5, b"\0" * 8) + wire.chunk(7, wire.chunk(1, wire.varint(3)))
    file.write_bytes(wire.chunk(100, wire.chunk(1, b"conv1") + wire.chunk(2, b"Convolution") + wire.chunk(7, short)))
    with torch.device("meta"), pytest.raises(UserError, match=r"conv1 holds 8 bytes for an array of \[3\]"):
        load(resnet_config(file), CLASSES)


# VGG-16

VGG = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def vgg_config(weights: Path) -> DeepLabV2Config:
    return DeepLabV2Config("vgg16", "largefov", weights=str(weights))


def vgg_numbers() -> dict[str, list[Tensor]]:
    generator = torch.Generator().manual_seed(2)
    inputs, numbers = 3, {}
    for block, channels in enumerate(VGG, 1):
        for index, outputs in enumerate(channels, 1):
            gain = (6 / (9 * inputs)) ** 0.5 / (50 if inputs == 3 else 1)
            weight = torch.empty(outputs, inputs, 3, 3).uniform_(-gain, gain, generator=generator)
            numbers[f"conv{block}_{index}"] = [weight, torch.randn(outputs, generator=generator) * 0.1]
            inputs = outputs
    return numbers


def vgg_trunk(x: Tensor, numbers: dict[str, list[Tensor]]) -> Tensor:
    """The layers of the original's VGG-16 prototxt up to pool5."""
    for block, channels in enumerate(VGG, 1):
        rate = 2 if block == 5 else 1
        for index in range(1, len(channels) + 1):
            weight, bias = numbers[f"conv{block}_{index}"]
            x = F.relu(F.conv2d(x, weight, bias, padding=rate, dilation=rate))
        x = F.max_pool2d(x, 3, 2 if block <= 3 else 1, 1)
    return x


@torch.no_grad()
def test_deeplabs_vgg16_largefov(tmp_path: Path) -> None:
    numbers = vgg_numbers()
    generator = torch.Generator().manual_seed(3)
    sizes = {"fc6_1": (1024, 512, 3), "fc7_1": (1024, 1024, 1), "fc8_voc12_1": (CLASSES, 1024, 1)}
    for name, (outputs, inputs, side) in sizes.items():
        gain = (6 / (side * side * inputs)) ** 0.5
        weight = torch.empty(outputs, inputs, side, side).uniform_(-gain, gain, generator=generator)
        numbers[name] = [weight, torch.randn(outputs, generator=generator) * 0.1]
    layers = []
    for name, values in numbers.items():
        weight = values[0]
        rate = 2 if name.startswith("conv5") else 12 if name.startswith("fc6") else 1
        pad = rate * (weight.shape[-1] // 2)
        geometry = wire.convolution(len(weight), weight.shape[-1], 1, pad, rate)
        layers.append(wire.layer(name, "Convolution", [v.numpy() for v in values], (wire.CONVOLUTION, geometry)))
    for block in range(1, 6):
        geometry = wire.pooling(3, 2 if block <= 3 else 1, 1)
        layers.append(wire.layer(f"pool{block}", "Pooling", [], (wire.POOLING, geometry)))
    file = tmp_path / "vgg.caffemodel"
    file.write_bytes(b"".join(layers))

    model = load(vgg_config(file), CLASSES).network.eval()
    rgb = image(33, 41)
    x = vgg_trunk(bgr(rgb), numbers)
    x = F.relu(F.conv2d(x, *numbers["fc6_1"], padding=12, dilation=12))
    x = F.relu(F.conv2d(x, *numbers["fc7_1"]))
    close(model(rgb), F.conv2d(x, *numbers["fc8_voc12_1"]))


@pytest.mark.slow
@torch.no_grad()
def test_imagenets_vgg16_in_the_old_format(tmp_path: Path) -> None:
    """fc6 is all zeros but for a few known taps, which have to come out where the subsampled kernel has them."""
    numbers = vgg_numbers()
    fc6 = np.zeros((4096, 512, 7, 7), np.float32)
    fc6[8, 5, 0, 6], fc6[8, 5, 3, 3], fc6[12, 7, 6, 3] = 1.0, 2.0, 3.0
    fc6[9], fc6[8, 5, 1, 1] = 9.0, 9.0  # neither every fourth channel nor every third row
    fc7 = np.zeros((4096, 4096), np.float32)
    fc7[16, 20], fc7[16, 21], fc7[17, 20] = 4.0, 9.0, 9.0
    layers = []
    for name, values in numbers.items():
        geometry = wire.convolution(len(values[0]), 3, 1, 1)
        layers.append(wire.old_layer(name, 4, [v.numpy() for v in values], (10, geometry)))
    layers += [wire.old_layer(f"pool{block}", 17, [], (19, wire.pooling(2, 2, 0))) for block in range(1, 6)]
    bias = np.arange(4096, dtype=np.float32)
    # The old format has four axes, and fully connected weights in the last two of them.
    layers.append(wire.old_layer("fc6", 14, [fc6.reshape(1, 1, 4096, -1), bias.reshape(1, 1, 1, -1)]))
    layers.append(wire.old_layer("fc7", 14, [fc7.reshape(1, 1, 4096, 4096), bias.reshape(1, 1, 1, -1)]))
    layers.append(wire.old_layer("fc8", 14, [np.zeros((1, 1, 1000, 4096)), np.zeros((1, 1, 1, 1000))]))
    file = tmp_path / "VGG_ILSVRC_16_layers.caffemodel"
    file.write_bytes(b"".join(layers))
    del layers

    loaded = load(vgg_config(file), CLASSES)
    model, report = loaded.network, loaded.report
    rgb = image(17, 17)
    close(model.trunk(model.prepare(rgb)), vgg_trunk(bgr(rgb), numbers))
    branch = model.head.get_submodule("branches.0")
    weight = branch.get_parameter("fc6.weight")
    assert {tuple(i): float(weight[tuple(i)]) for i in weight.nonzero().tolist()} == {
        (2, 5, 0, 2): 1.0,
        (2, 5, 1, 1): 2.0,
        (3, 7, 2, 1): 3.0,
    }
    weight = branch.get_parameter("fc7.weight")
    assert {tuple(i): float(weight[tuple(i)]) for i in weight.nonzero().tolist()} == {(4, 5, 0, 0): 4.0}
    assert branch.get_parameter("fc6.bias").tolist() == list(range(0, 4096, 4))
    told = {line.tensor: line for line in report}
    assert told["head.branches.0.fc6.weight"].how == "every 4th channel; rows and columns 0, 3, 6 of 7×7"
    assert "left at initialisation" in told["head.branches.0.classifier.weight"].how
    assert isinstance(model, DeepLabV2)
    assert model.config.input == "caffe"
