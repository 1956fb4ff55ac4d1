"""DeepLab v2 ResNet-101 written down once more, from the original's prototxt, for random numbers."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

CLASSES = 3
RATES = (6, 12, 18, 24)
# Suffix, width, stride of the first 1×1, dilation.
STAGES = (
    (["2a", "2b", "2c"], 64, 1, 1),
    (["3a", "3b1", "3b2", "3b3"], 128, 2, 1),
    (["4a", *(f"4b{k}" for k in range(1, 23))], 256, 1, 2),
    (["5a", "5b", "5c"], 512, 1, 4),
)


@dataclass(frozen=True)
class Conv:
    """A convolution of the trunk with its batch norm."""

    name: str
    """What follows "res", "bn" and "scale"; "conv1" for the first."""
    inputs: int
    outputs: int
    kernel: int
    stride: int = 1
    dilation: int = 1

    @property
    def pad(self) -> int:
        return self.dilation * (self.kernel // 2)


def convs() -> Iterator[Conv]:
    yield Conv("conv1", 3, 64, 7, 2)
    inputs = 64
    for names, width, stride, dilation in STAGES:
        for index, name in enumerate(names):
            step = stride if index == 0 else 1
            if index == 0:
                yield Conv(f"{name}_branch1", inputs, 4 * width, 1, step)
            yield Conv(f"{name}_branch2a", inputs, width, 1, step)
            yield Conv(f"{name}_branch2b", width, width, 3, 1, dilation)
            yield Conv(f"{name}_branch2c", width, 4 * width, 1)
            inputs = 4 * width


@dataclass(frozen=True)
class Weights:
    """Random numbers for one convolution and its norm; mean and variance as they are used."""

    weight: Tensor
    mean: Tensor
    variance: Tensor
    gamma: Tensor
    beta: Tensor


def draw() -> tuple[dict[str, Weights], list[tuple[Tensor, Tensor]]]:
    """(trunk by name, classifiers) with activations of moderate size."""
    g = torch.Generator().manual_seed(0)
    trunk = {}
    for conv in convs():
        n, fan = conv.outputs, conv.inputs * conv.kernel**2
        gain = 0.3 if conv.name.endswith("2c") else 1.0
        trunk[conv.name] = Weights(
            torch.empty(n, conv.inputs, conv.kernel, conv.kernel).uniform_(-1, 1, generator=g) * (6 / fan) ** 0.5,
            torch.randn(n, generator=g) * 0.1,
            torch.rand(n, generator=g) + 0.5,
            gain * (torch.rand(n, generator=g) + 0.5),
            torch.randn(n, generator=g) * 0.1,
        )
    # The first layer sees colours of up to 150, the others ones.
    trunk["conv1"] = Weights(trunk["conv1"].weight / 100, *list(vars(trunk["conv1"]).values())[1:])
    heads = [(torch.randn(CLASSES, 2048, 3, 3, generator=g) * 0.02, torch.randn(CLASSES, generator=g)) for _ in RATES]
    return trunk, heads


def scores(bgr: Tensor, trunk: dict[str, Weights], heads: list[tuple[Tensor, Tensor]]) -> Tensor:
    """N×3×H×W in the channel order and scale that the network was trained on → N×C×h×w."""
    specification = {conv.name: conv for conv in convs()}

    def run(name: str, x: Tensor, relu: bool = True) -> Tensor:
        conv, w = specification[name], trunk[name]
        x = F.conv2d(x, w.weight, stride=conv.stride, padding=conv.pad, dilation=conv.dilation)
        column = (1, -1, 1, 1)
        x = (x - w.mean.view(column)) / (w.variance.view(column) + 1e-5).sqrt()
        x = x * w.gamma.view(column) + w.beta.view(column)
        return F.relu(x) if relu else x

    x = F.max_pool2d(run("conv1", bgr), 3, 2, 1, ceil_mode=True)
    for names, *_ in STAGES:
        for name in names:
            y = run(f"{name}_branch2c", run(f"{name}_branch2b", run(f"{name}_branch2a", x)), relu=False)
            shortcut = run(f"{name}_branch1", x, relu=False) if f"{name}_branch1" in trunk else x
            x = F.relu(shortcut + y)
    return torch.stack(
        [F.conv2d(x, w, b, padding=rate, dilation=rate) for (w, b), rate in zip(heads, RATES, strict=True)]
    ).sum(0)


def multiscale_scores(
    bgr: Tensor, trunk: dict[str, Weights], heads: list[tuple[Tensor, Tensor]], corners: bool
) -> Tensor:
    """The maximum over ×1, ×0.75 and ×0.5: Caffe's Interp (corners), or deeplab-pytorch's (pixel centres)."""
    height, width = bgr.shape[-2:]
    parts = [scores(bgr, trunk, heads)]
    for numerator, denominator in ((3, 4), (1, 2)):
        if corners:
            # Interp: shrink by the denominator, then zoom by the numerator.
            size = [((n - 1) // denominator) * numerator + 1 for n in (height, width)]
            image = F.interpolate(bgr, size, mode="bilinear", align_corners=True)
        else:
            image = F.interpolate(bgr, scale_factor=numerator / denominator, mode="bilinear", align_corners=False)
        part = scores(image, trunk, heads)
        parts.append(F.interpolate(part, parts[0].shape[-2:], mode="bilinear", align_corners=corners))
    return torch.stack(parts).amax(0)
