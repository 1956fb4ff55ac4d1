"""VGG-16's convolutions at output stride 8 (DeepLab v2's variant).

Against Simonyan & Zisserman's net: the pools are 3×3 with padding 1; pool4 and pool5 have stride 1, so that
conv5 runs at dilation 2 and what follows at a multiple of its own rates. Parameters are named
`features.K.weight|bias` with torchvision's K, so that its checkpoints load as they are.
"""

from torch import Tensor, nn

_CHANNELS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_POOL_STRIDES = (2, 2, 2, 1, 1)
_DILATIONS = (1, 1, 1, 1, 2)


class VGG16Trunk(nn.Module):
    """N×3×H×W → N×512×h×w."""

    channels = 512

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for block, stride, dilation in zip(_CHANNELS, _POOL_STRIDES, _DILATIONS, strict=True):
            for outputs in block:
                layers += [
                    nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation),
                    nn.ReLU(inplace=True),
                ]
                inputs = outputs
            layers.append(nn.MaxPool2d(3, stride, padding=1))
        self.features = nn.Sequential(*layers)
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        return self.features(images)
