"""A whole network: input convention, trunk and head."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from deeplab_ray.config import Backbone, ModelConfig
from deeplab_ray.models.geometry import normalise, pad_to_grid
from deeplab_ray.models.heads import ResNetHead, VGGHead
from deeplab_ray.models.resnet import resnet18, resnet101
from deeplab_ray.models.vgg import VGG16Trunk

_TRUNKS: dict[Backbone, Callable[[], nn.Module]] = {
    "vgg16": VGG16Trunk,
    "resnet18": resnet18,
    "resnet101": resnet101,
}

# RGB mean and divisor in 0..255 units, of the ImageNet training sets of Caffe and of torchvision.
_INPUT = {
    "caffe": ((122.675, 116.669, 104.008), (1.0, 1.0, 1.0)),
    "torchvision": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
}


class DeepLab(nn.Module):
    """uint8 RGB images N×H×W×3 of any size → scores N×C×h×w at output stride 8, float.

    The mean and the divisor of the input are part of the state dict, so that a checkpoint carries the
    convention of the weights it started from.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, config: ModelConfig, classes: int) -> None:
        super().__init__()
        mean, scale = _INPUT[_convention(config)]
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("scale", torch.tensor(scale))
        self.classes = classes
        self.trunk = _TRUNKS[config.backbone]()
        head = VGGHead if config.backbone == "vgg16" else ResNetHead
        self.head = head(int(self.trunk.channels), classes, config.head)  # type: ignore[arg-type]
        # The faster layout for convolutions, on CPUs too.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.trunk(self.prepare(images)))

    def prepare(self, images: Tensor) -> Tensor:
        """What the trunk sees of uint8 N×H×W×3: normalised float32 N×3, padded to sizes ≡ 1 (mod 8)."""
        return pad_to_grid(normalise(images, self.mean, self.scale))


def _convention(config: ModelConfig) -> str:
    if config.input != "auto":
        return config.input
    from_file = config.weights not in ("torchvision", "random")
    return "caffe" if config.backbone == "vgg16" and from_file else "torchvision"
