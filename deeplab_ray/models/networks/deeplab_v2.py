"""DeepLab v2: a dense trunk under LargeFOV or ASPP, on one scale or three (Chen et al., PAMI 2017)."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from deeplab_ray.config.network import NetworkConfig
from deeplab_ray.models.configs import DeepLabV2Config, InputConvention, Strides
from deeplab_ray.models.grid import CentreGrid, CornerGrid, normalise, pad_to
from deeplab_ray.models.heads.branches import ResNetHead, VGGHead
from deeplab_ray.models.heads.multiscale import GRID, MSCScores, multiscale
from deeplab_ray.models.network import Network, Target, register
from deeplab_ray.models.norm import calibrate_frozen_norms
from deeplab_ray.models.trunks.resnet import ResNetTrunk, resnet
from deeplab_ray.models.trunks.vgg import VGG16Trunk
from deeplab_ray.models.weights import imagenet
from deeplab_ray.models.weights.mapping import Line

STRIDE = 8


@register(DeepLabV2Config)
class DeepLabV2(Network):
    """DeepLab v2: RGB images N×H×W×3 of any size → scores N×C×h×w at output stride 8.

    In training it returns the scores that the losses are computed on: one, or MSC's four.
    """

    config: DeepLabV2Config

    def __init__(self, config: DeepLabV2Config, classes: int) -> None:
        config = resolve(config)
        super().__init__(config, classes, config.input)
        self.grid = CornerGrid(STRIDE) if config.alignment == "corners" else CentreGrid()
        self.trunk: VGG16Trunk | ResNetTrunk
        self.head: VGGHead | ResNetHead
        if config.backbone == "vgg16":
            assert config.dropout is not None
            self.trunk = VGG16Trunk(config.channels)
            self.head = VGGHead(self.trunk.channels, classes, config.head, config.dropout)
        else:
            self.trunk = resnet(config.backbone, config.strides, config.batch_norm, config.channels)
            self.head = ResNetHead(self.trunk.channels, classes, config.head)

    def prepare(self, images: Tensor) -> Tensor:
        if isinstance(self.grid, CentreGrid):
            return normalise(images, self.mean, self.scale)
        return pad_to(normalise(images, self.mean, self.scale), GRID if self.config.msc else STRIDE, 1)

    def score(self, prepared: Tensor) -> Tensor:
        return self._scales(prepared).fused if self.config.msc else self._single(prepared)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        if not (self.training and self.config.msc):
            return super().forward(images)
        height, width = images.shape[1:3]
        *fine, half = self._scales(self.prepare(images))
        fine = [self.cut(scores, height, width) for scores in fine]
        if isinstance(self.grid, CornerGrid):
            # The cells at ×0.5 lie on every second cell of the others.
            half = half[..., : (fine[0].shape[-2] + 1) // 2, : (fine[0].shape[-1] + 1) // 2]
        return (*fine, half)

    def targets(self, labels: Tensor) -> tuple[Target, ...]:
        at_cells = CornerGrid(STRIDE).labels(labels).long()
        if not self.config.msc:
            return (Target(at_cells),)
        return (*[Target(at_cells)] * 3, Target(at_cells[..., ::2, ::2]))

    def classifiers(self) -> Sequence[nn.Module]:
        return self.head.last_layers

    def calibrate(self, images: Tensor) -> None:
        calibrate_frozen_norms(self.trunk, self.prepare(images))

    def field_of_view(self) -> int:
        """Return the side in pixels that the head's (largest) kernel spans, as the paper counts.

        The outer taps of a k×k kernel at rate r on cells 8 pixels apart lie 8·r·(k − 1) pixels apart; to that is added
        one cell, 32 pixels, of the image classifier that the trunk was made from. 7×7 at rate 4: 8·4·6 + 32.
        """
        looking = self.head.looking_layers
        return max(layer.dilation[0] * (layer.kernel_size[0] - 1) * STRIDE + 32 for layer in looking)

    @classmethod
    def pretrained(cls, config: NetworkConfig, classes: int, file: object) -> tuple[Network, list[Line]]:
        assert isinstance(config, DeepLabV2Config)
        return imagenet.deeplab_v2(config, classes, file, cls)

    def _single(self, prepared: Tensor) -> Tensor:
        return self.head(self.trunk(prepared))

    def _scales(self, prepared: Tensor) -> MSCScores:
        return multiscale(self._single, prepared, isinstance(self.grid, CornerGrid))


def resolve(config: DeepLabV2Config) -> DeepLabV2Config:
    """Replace every "auto" in the options by what a network made from them has."""
    from_file = config.weights not in ("torchvision", "torchvision-features", "random")
    seen: InputConvention = "torchvision"
    if config.weights == "torchvision-features" or (config.backbone == "vgg16" and from_file):
        seen = "caffe" if from_file else "torchvision-features"
    on_resnet: Strides = "caffe" if config.weights == "random" else "torchvision"
    on_vgg = config.backbone == "vgg16"
    return replace(
        config,
        input=seen if config.input == "auto" else config.input,
        strides=on_resnet if config.strides == "auto" and not on_vgg else config.strides,
        alignment="corners" if config.alignment == "auto" else config.alignment,
        dropout=0.5 if config.dropout is None and on_vgg else config.dropout,
    )
