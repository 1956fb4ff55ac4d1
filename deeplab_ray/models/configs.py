"""Options of the networks of this package. They stand apart from the networks, so that no job needs PyTorch to
explain its flags."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from deeplab_ray.checks import require
from deeplab_ray.config.network import NetworkConfig

Backbone = Literal["vgg16", "resnet18", "resnet101"]
InputConvention = Literal["auto", "caffe", "torchvision", "torchvision-features"]
Strides = Literal["auto", "caffe", "torchvision"]
BatchNorm = Literal["frozen", "trained", "synchronised"]
Head = Literal["plain", "largefov", "k7r4", "k4r4", "k4r8", "aspp-s", "aspp-l"]
Variant = Literal["32s", "16s", "8s"]

_RESNET_HEADS: tuple[Head, ...] = ("plain", "largefov", "aspp-s", "aspp-l")
HEADS: dict[Backbone, tuple[Head, ...]] = {
    "vgg16": ("largefov", "k7r4", "k4r4", "k4r8", "aspp-s", "aspp-l"),
    "resnet18": _RESNET_HEADS,
    "resnet101": _RESNET_HEADS,
}
"""Which heads go on which trunk."""


@dataclass(frozen=True, kw_only=True)
class _Pretrained(NetworkConfig):
    """What networks made from image classifiers have in common."""

    weights: str = "torchvision"
    """Start: "torchvision" (ImageNet, downloaded), "torchvision-features" (the same for VGG-16 as Caffe trained it),
    "random", or a path or s3:// URI of a .pth state dict, a .caffemodel, or a checkpoint; "coco", "fcn32s" and
    "fcn16s" stand for the network that a preset starts from, which has to be named."""
    input: InputConvention = "auto"
    """What the weights saw: caffe: RGB 0..255 minus the mean; torchvision: divided by a standard deviation, too;
    torchvision-features: caffe's with the mean rounded; auto: as the weights say."""

    @property
    def classifier(self) -> str:
        """The image classifier that the trunk was made from, by torchvision's name."""
        return "vgg16"


@dataclass(frozen=True)
class DeepLabV2Config(_Pretrained):
    """DeepLab v2 (Chen et al., PAMI 2017)."""

    name: ClassVar[str] = "deeplab_v2"
    step: ClassVar[int] = 8
    remainder: ClassVar[int] = 1

    backbone: Backbone = "resnet101"
    """Trunk, at output stride 8."""
    head: Head = "aspp-l"
    """plain: a 1×1 classifier; largefov: 3×3 at rate 12; k7r4, k4r4, k4r8: the LargeFOV variants of that kernel and
    rate; aspp-s: rates 2, 4, 8, 12; aspp-l: rates 6, 12, 18, 24."""
    msc: bool = False
    """Maximum over the scores of the image at ×1, ×0.75 and ×0.5, with a loss for each and one for the maximum."""
    strides: Strides = "auto"
    """ResNet's blocks: caffe: stride in the first 1×1, one dilation throughout res4 and res5; torchvision: stride in
    the 3×3, whose first in res4 and res5 keeps the dilation before; auto: as the weights say."""
    alignment: Literal["auto", "corners", "centres"] = "auto"
    """What resampling aligns: the paper's corners, or pixel centres on unpadded images, as deeplab-pytorch's; auto:
    as the weights say."""
    batch_norm: BatchNorm = "frozen"
    """ResNet's batch norms: frozen: statistics, scale and shift are constants, as the paper's; trained: each worker
    normalises by its own crops; synchronised: by those of all workers."""
    dropout: float | None = None
    """Dropout of VGG-16's fc6 and fc7 in training; unset: 0.5, the paper's. 0 leaves it out, for runs too short to
    overfit."""

    def __post_init__(self) -> None:
        super().__post_init__()
        fitting = HEADS[self.backbone]
        require(self.head in fitting, f"no head {self.head} on {self.backbone}: it takes {', '.join(fitting)}")
        if self.backbone == "vgg16":
            require(self.strides == "auto", "vgg16 has no blocks to stride in: leave out --strides")
            require(self.batch_norm == "frozen", "vgg16 has no batch norms: leave out --batch-norm")
            require(0 <= (self.dropout or 0) < 1, f"dropout {self.dropout} must lie in [0, 1); the paper's is 0.5")
        else:
            require(self.dropout is None, f"{self.backbone} has no dropout: leave out --dropout")

    @property
    def classifier(self) -> str:
        return self.backbone

    def shares_classifier(self, other: NetworkConfig) -> bool:
        return isinstance(other, DeepLabV2Config) and other.head == self.head


@dataclass(frozen=True)
class FCNConfig(_Pretrained):
    """FCN-32s, FCN-16s and FCN-8s on VGG-16 (Long, Shelhamer & Darrell, CVPR 2015)."""

    name: ClassVar[str] = "fcn"

    variant: Variant = "8s"
    """How fine its scores are: by pool5 alone (32s), by pool4 (16s) and by pool3, too (8s)."""
    dropout: float = 0.5
    """Dropout of fc6 and fc7 in training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.dropout < 1, f"dropout {self.dropout} must lie in [0, 1); the authors' is 0.5")
