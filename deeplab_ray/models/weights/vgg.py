"""Names of VGG-16's tensors in the files of torchvision, Caffe's ImageNet net and DeepLab's Caffe nets."""

import functools

import torch
from torch import Tensor, nn

from deeplab_ray.models.configs import DeepLabV2Config
from deeplab_ray.models.heads.branches import BRANCHES
from deeplab_ray.models.weights.mapping import Wish

_BLOCKS = (2, 2, 3, 3, 3)
_FC_CHANNELS, _FC6_SIDE = 4096, 7


def _caffe_layers() -> dict[str, str]:
    layers, index = {}, 0
    for block, convolutions in enumerate(_BLOCKS, 1):
        for layer in range(1, convolutions + 1):
            layers[f"conv{block}_{layer}"] = f"features.{index}"
            index += 2
        layers[f"pool{block}"] = f"features.{index}"
        index += 1
    return layers


CAFFE_LAYERS = _caffe_layers()
"""Caffe's layers → torchvision's and ours: conv1_1 → features.0, …, pool5 → features.30."""


def imagenet_wishes(model: nn.Module, with_fc: bool) -> dict[str, Wish]:
    """Map the trunk, and `with_fc` also fc6 and fc7, to an ImageNet classifier with torchvision's names.

    For FCN, fc6 and fc7 become convolutions as they are; for DeepLab they are subsampled to the head's kernels and
    channels, the authors' "à trous" decimation.
    """
    own = model.state_dict()
    wishes = {name: Wish((name.removeprefix("trunk."),)) for name in own if name.startswith("trunk.")}
    if not with_fc:
        return wishes
    for layer, theirs in (("fc6", "classifier.0"), ("fc7", "classifier.3")):
        if isinstance(model.config, DeepLabV2Config):
            places = {f"head.branches.{k}.{layer}": branch.taps for k, branch in enumerate(BRANCHES[model.config.head])}
        else:
            places = {f"head.{layer}": tuple(range(_FC6_SIDE))}
        for place, taps in places.items():
            step = _FC_CHANNELS // own[f"{place}.bias"].shape[0]
            side, taps = (_FC6_SIDE, taps) if layer == "fc6" else (1, (0,))
            weight = functools.partial(
                decimate, side=side, outputs=step, inputs=1 if layer == "fc6" else step, taps=taps
            )
            wishes[f"{place}.weight"] = Wish((f"{theirs}.weight",), weight, _describe(step, side, taps))
            bias = functools.partial(_every, step=step)
            wishes[f"{place}.bias"] = Wish((f"{theirs}.bias",), bias, _describe(step, 1, (0,)))
    return wishes


def decimate(weight: Tensor, side: int, outputs: int, inputs: int, taps: tuple[int, ...]) -> Tensor:
    """Turn a fully connected layer over side×side cells into a convolution with some of its channels and taps.

    weight O×(I·side·side), in any shape → (O/outputs)×(I/inputs)×len(taps)×len(taps). Of output channels every
    `outputs`-th is kept, of input channels every `inputs`-th.
    """
    index = torch.tensor(taps)
    kernel = weight.reshape(weight.shape[0], -1, side, side)[::outputs, ::inputs]
    return kernel[:, :, index][:, :, :, index]


def _every(bias: Tensor, step: int) -> Tensor:
    return bias.flatten()[::step]


def _describe(step: int, side: int, taps: tuple[int, ...]) -> str:
    parts = [f"every {step}th channel"] if step > 1 else []
    if len(taps) < side:
        parts.append(f"rows and columns {', '.join(map(str, taps))} of {side}×{side}")
    elif side > 1:
        parts.append(f"as a {side}×{side} convolution")
    return "; ".join(parts)


def caffe_modules(branches: int) -> dict[str, str]:
    """Map layers of the original DeepLab VGG-16 nets to our modules; classifiers are fc8… (see `caffe_nets`).

    Branches are numbered from 1; a net with one branch has no numbers.
    """
    modules = {layer: f"trunk.{ours}" for layer, ours in CAFFE_LAYERS.items()}
    for k in range(branches):
        for layer, ours in (("fc6", "fc6"), ("fc7", "fc7"), ("fc8", "classifier")):
            modules[f"{layer}_{k + 1}"] = f"head.branches.{k}.{ours}"
            if branches == 1:
                modules[layer] = f"head.branches.{k}.{ours}"
    return modules
