"""A whole network: input convention, trunk and head."""

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from deeplab_ray.config.recipe import FCN_HEADS, InputConvention, ModelConfig, Strides
from deeplab_ray.models.grid import STRIDE, Alignment, grid_size, normalise, pad_to_grid, upsample_scores
from deeplab_ray.models.heads.branches import ResNetHead, VGGHead
from deeplab_ray.models.heads.multiscale import GRID, MSCScores, multiscale
from deeplab_ray.models.networks.fcn import FCNHead
from deeplab_ray.models.trunks.resnet import ResNetTrunk, resnet18, resnet101
from deeplab_ray.models.trunks.vgg import FCNTrunk, VGG16Trunk

# RGB mean and divisor in 0..255 units, of the training sets of Caffe's and of torchvision's ImageNet nets.
INPUT = {
    "caffe": ((122.675, 116.669, 104.008), (1.0, 1.0, 1.0)),
    "torchvision": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "torchvision-features": ((122.99925, 116.9991, 103.9992), (1.0, 1.0, 1.0)),
}


class DeepLab(nn.Module):
    """RGB images N×H×W×3 of any size, uint8 or float 0..255 → scores N×C×h×w, float.

    Scores lie on the grid at output stride 8; those of FCN and of `alignment` centres lie where `alignment` says.
    In training the result is what the losses are computed on: MSC's four scores, and FCN's at full size.
    The mean and the divisor of the input are part of the state dict, so that a checkpoint carries the
    convention of the weights it started from.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, config: ModelConfig, classes: int) -> None:
        super().__init__()
        self.config = config = resolve(config)
        mean, scale = INPUT[config.input]
        self.alignment = cast(Alignment, config.head if config.head in FCN_HEADS else config.alignment)
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("scale", torch.tensor(scale))
        self.classes = classes
        self.trunk = _trunk(config)
        self.head = _head(config, self.trunk.channels, classes)

    def on(self, device: torch.device) -> "DeepLab":
        """This network, moved to the device; on a GPU in channels-last order, in which convolutions are faster."""
        self.to(device)
        if device.type == "cuda":
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self

    def forward(self, images: Tensor) -> Tensor | MSCScores:
        prepared = self.prepare(images)
        height, width = images.shape[1:3]
        if self.config.msc:
            fused = multiscale(self._single, prepared, self.alignment == "corners")
            if self.alignment == "corners":
                fused = fused.cut(grid_size(height), grid_size(width))
            return fused if self.training else fused.fused
        scores = self._single(prepared)
        if self.training and self.config.head in FCN_HEADS:
            return upsample_scores(scores, height, width, self.alignment)
        return scores

    def prepare(self, images: Tensor) -> Tensor:
        """What the trunk sees of N×H×W×3: normalised float32 N×3, padded to the network's grid."""
        normalised = normalise(images, self.mean, self.scale)
        if self.alignment != "corners":
            return normalised
        return pad_to_grid(normalised, GRID if self.config.msc else STRIDE)

    def _single(self, prepared: Tensor) -> Tensor:
        return self.head(self.trunk(prepared))


def _trunk(config: ModelConfig) -> VGG16Trunk | FCNTrunk | ResNetTrunk:
    if config.head in FCN_HEADS:
        return FCNTrunk()
    if config.backbone == "vgg16":
        return VGG16Trunk()
    resnet = resnet18 if config.backbone == "resnet18" else resnet101
    return resnet(config.strides)


def _head(config: ModelConfig, inputs: int, classes: int) -> nn.Module:
    if config.head in FCN_HEADS:
        return FCNHead(inputs, classes, config.head, config.dropout)
    if config.backbone == "vgg16":
        return VGGHead(inputs, classes, config.head, config.dropout)
    return ResNetHead(inputs, classes, config.head)


def resolve(config: ModelConfig) -> ModelConfig:
    """The config with every "auto" replaced by what a network made from it has."""
    from_file = config.weights not in ("torchvision", "torchvision-features", "random")
    if config.weights == "torchvision-features" or (config.backbone == "vgg16" and from_file):
        seen: InputConvention = "caffe" if from_file else "torchvision-features"
    else:
        seen = "torchvision"
    strides: Strides = "caffe" if config.weights == "random" else "torchvision"
    return replace(
        config,
        input=seen if config.input == "auto" else config.input,
        strides=strides if config.strides == "auto" else config.strides,
        alignment="corners" if config.alignment == "auto" else config.alignment,
    )
