"""VGG-16's convolutions: at output stride 8 (DeepLab v2's variant) and at stride 32 (FCN's).

Parameters have torchvision's names, `features.K.weight|bias`, so that its checkpoints load as they are.
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
    """VGG-16 at output stride 8: images N×channels×H×W → N×512×h×w.

    Unlike in Simonyan & Zisserman's network, pools are 3×3 with padding 1, and pool4 and pool5 have stride 1. To make
    up for that, conv5 has dilation 2, and the rates of what follows are multiplied.
    """

    channels = 512

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        pools: list[nn.Module] = [nn.MaxPool2d(3, stride, padding=1) for stride in _POOL_STRIDES]
        self.features = _features(pools, _DILATIONS, channels)

    def forward(self, images: Tensor) -> Tensor:
        return self.features(images)


class FCNTrunk(nn.Module):
    """VGG-16 at output stride 32: images N×channels×H×W → pool3, pool4 and pool5 at strides 8, 16 and 32.

    It differs from VGG-16 in two ways (Long et al., CVPR 2015): the first convolution pads by 100, so that fc6's 7×7
    fits on an image of any size, and pools round sizes up, as Caffe does.
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
