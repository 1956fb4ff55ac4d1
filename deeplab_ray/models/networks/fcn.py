"""FCN-32s, FCN-16s and FCN-8s on VGG-16 (Long, Shelhamer & Darrell, CVPR 2015)."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from deeplab_ray.config.network import NetworkConfig
from deeplab_ray.models.configs import FCNConfig, InputConvention
from deeplab_ray.models.grid import DeconvolvedGrid
from deeplab_ray.models.heads.fcn import FCNHead
from deeplab_ray.models.network import Network, Target, register
from deeplab_ray.models.trunks.vgg import FCNTrunk
from deeplab_ray.models.weights import imagenet
from deeplab_ray.models.weights.mapping import Line

# Stride of the scores, and the first row and column of their deconvolution that is kept.
_GRIDS = {"32s": DeconvolvedGrid(32, 19), "16s": DeconvolvedGrid(16, 27), "8s": DeconvolvedGrid(8, 31)}


@register(FCNConfig)
class FCN(Network):
    """FCN: RGB images N×H×W×3 of any size → scores N×C×h×w at stride 32, 16 or 8; in training at full size."""

    config: FCNConfig

    def __init__(self, config: FCNConfig, classes: int) -> None:
        config = resolve(config)
        super().__init__(config, classes, config.input)
        self.grid = _GRIDS[config.variant]
        self.trunk = FCNTrunk(config.channels)
        self.head = FCNHead(self.trunk.channels, classes, config.variant, config.dropout)

    def score(self, prepared: Tensor) -> Tensor:
        return self.head(self.trunk(prepared))

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        scores = self.score(self.prepare(images))
        return (self.grid.to_image(scores, *images.shape[1:3]),) if self.training else scores

    def targets(self, labels: Tensor) -> tuple[Target, ...]:
        return (Target(labels.long()),)

    def classifiers(self) -> Sequence[nn.Module]:
        return self.head.last_layers

    def field_of_view(self) -> int:
        """Return the side in pixels that fc6 spans: its outer taps lie 6 cells of 32 pixels apart, plus one cell."""
        return 32 * (self.head.fc6.kernel_size[0] - 1) + 32

    @classmethod
    def pretrained(cls, config: NetworkConfig, classes: int, file: object) -> tuple[Network, list[Line]]:
        assert isinstance(config, FCNConfig)
        return imagenet.fcn(config, classes, file, cls)


def resolve(config: FCNConfig) -> FCNConfig:
    """Replace every "auto" in the options by what a network made from them has."""
    if config.input != "auto":
        return config
    conventions: dict[str, InputConvention] = {
        "torchvision": "torchvision",
        "random": "torchvision",
        "torchvision-features": "torchvision-features",
    }
    return replace(config, input=conventions.get(config.weights, "caffe"))
