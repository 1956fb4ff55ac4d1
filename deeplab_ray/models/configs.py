"""Options of the networks of this package, apart from the networks, so that a job's --help needs no PyTorch."""

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
"""The heads that fit each trunk."""


@dataclass(frozen=True, kw_only=True)
class _Pretrained(NetworkConfig):
    """Options that networks made from image classifiers share."""

    weights: str = "torchvision"
    """Weights to start from: "torchvision" (ImageNet, downloaded), "torchvision-features" (the same, VGG-16 as Caffe
    trained it), "random", or a path or s3:// URI of a .pth state dict, a .caffemodel or a checkpoint. A preset's
    "coco", "fcn32s" or "fcn16s" stands for weights that you have to name."""
    input: InputConvention = "auto"
    """Input that the weights were trained on. caffe: RGB 0..255 minus the mean; torchvision: that divided by a standard
    deviation; torchvision-features: as caffe, with the mean rounded; auto: as the weights need."""

    @property
    def classifier(self) -> str:
        return "vgg16"


@dataclass(frozen=True)
class DeepLabV2Config(_Pretrained):
    """DeepLab v2 (Chen et al., PAMI 2017)."""

    name: ClassVar[str] = "deeplab_v2"
    step: ClassVar[int] = 8
    remainder: ClassVar[int] = 1

    backbone: Backbone = "resnet101"
    """Trunk; its output stride is 8."""
    head: Head = "aspp-l"
    """plain: a 1×1 classifier; largefov: 3×3 at rate 12; k7r4, k4r4, k4r8: LargeFOV with that kernel size and rate;
    aspp-s: rates 2, 4, 8, 12; aspp-l: rates 6, 12, 18, 24."""
    msc: bool = False
    """Take the maximum of the scores at scales 1, 0.75 and 0.5, with a loss for each scale and one for the maximum."""
    strides: Strides = "auto"
    """Layout of ResNet's blocks. caffe: stride in the first 1×1 convolution, one dilation throughout res4 and res5;
    torchvision: stride in the 3×3, and the first 3×3 of res4 and res5 has the dilation of the stage before; auto: as
    the weights need."""
    alignment: Literal["auto", "corners", "centres"] = "auto"
    """What resampling aligns: corners, as in the paper, or the pixel centres of unpadded images, as in deeplab-pytorch;
    auto: as the weights need."""
    batch_norm: BatchNorm = "frozen"
    """ResNet's batch norms. frozen: statistics, scale and shift are constants, as in the paper; trained: each worker
    normalises by the statistics of its own crops; synchronised: by those of all workers' crops."""
    dropout: float | None = None
    """Dropout of VGG-16's fc6 and fc7 in training; unset: 0.5, as in the paper. 0 switches it off, for runs too short
    to overfit."""

    def __post_init__(self) -> None:
        super().__post_init__()
        fitting = HEADS[self.backbone]
        require(self.head in fitting, f"{self.backbone} takes no head {self.head}: choose from {', '.join(fitting)}")
        if self.backbone == "vgg16":
            require(self.strides == "auto", "vgg16 has no residual blocks: leave out --strides")
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
    """Stride of the scores: 32 from pool5 alone (32s), 16 with pool4 (16s), 8 with pool3, too (8s)."""
    dropout: float = 0.5
    """Dropout of fc6 and fc7 in training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.dropout < 1, f"dropout {self.dropout} must lie in [0, 1); the authors' is 0.5")
