"""VGG-16's convolutions: at output stride 8 (DeepLab v2's variant) and at stride 32 (FCN's).

Parameters are named `features.K.weight|bias` with torchvision's K, so that its checkpoints load as they are.
"""

from torch import Tensor, nn

_CHANNELS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_POOL_STRIDES = (2, 2, 2, 1, 1)
_DILATIONS = (1, 1, 1, 1, 2)
_FCN_PADDING = 100


def _features(pools: list[nn.Module], dilations: tuple[int, ...], inputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for block, pool, dilation in zip(_CHANNELS, pools, dilations, strict=True):
        for outputs in block:
            layers += [
                nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation),
                nn.ReLU(inplace=True),
            ]
            inputs = outputs
        layers.append(pool)
    features = nn.Sequential(*layers)
    for module in features:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.get_parameter("bias"))
    return features


class VGG16Trunk(nn.Module):
    """Images N×3×H×W (or other `channels` than 3) → N×512×h×w.

    Against Simonyan & Zisserman's net: the pools are 3×3 with padding 1; pool4 and pool5 have stride 1, so that
    conv5 runs at dilation 2 and what follows at a multiple of its own rates.
    """

    channels = 512

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        pools: list[nn.Module] = [nn.MaxPool2d(3, stride, padding=1) for stride in _POOL_STRIDES]
        self.features = _features(pools, _DILATIONS, channels)

    def forward(self, images: Tensor) -> Tensor:
        return self.features(images)


class FCNTrunk(nn.Module):
    """Images N×3×H×W (or other `channels` than 3) → pool3, pool4 and pool5 at strides 8, 16 and 32.

    VGG-16 as it is, but that the first convolution pads by 100, so that an image of any size leaves fc6's 7×7 a
    window, and that pools round up, as Caffe's (Long et al., CVPR 2015).
    """

    channels = 512

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.features = _features([nn.MaxPool2d(2, 2, ceil_mode=True) for _ in range(5)], (1,) * 5, channels)
        first = self.features[0]
        assert isinstance(first, nn.Conv2d)
        first.padding = (_FCN_PADDING, _FCN_PADDING)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pool3 = self.features[:17](images)
        pool4 = self.features[17:24](pool3)
        return pool3, pool4, self.features[24:](pool4)
