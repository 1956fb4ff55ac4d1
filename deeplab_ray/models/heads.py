"""Heads on top of a stride-8 trunk: LargeFOV and atrous spatial pyramid pooling (Fig. 4 and 7 of the paper)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deeplab_ray.config import Head

RATES: dict[Head, tuple[int, ...]] = {
    "largefov": (12,),
    "aspp-s": (2, 4, 8, 12),
    "aspp-l": (6, 12, 18, 24),
}
_FC_CHANNELS = 1024


def init_classifier(layer: nn.Conv2d) -> nn.Conv2d:
    """N(0, 0.01) weights and zero bias, as the original."""
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


class _FullyConvolutional(nn.Module):
    """One VGG-16 branch: 3×3 at `rate` (fc6) → 1×1 (fc7) → classifier (fc8), dropout 0.5 after fc6 and fc7."""

    def __init__(self, inputs: int, classes: int, rate: int) -> None:
        super().__init__()
        self.fc6 = nn.Conv2d(inputs, _FC_CHANNELS, 3, padding=rate, dilation=rate)
        self.fc7 = nn.Conv2d(_FC_CHANNELS, _FC_CHANNELS, 1)
        self.classifier = init_classifier(nn.Conv2d(_FC_CHANNELS, classes, 1))
        for layer in (self.fc6, self.fc7):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(F.relu(self.fc6(x)), 0.5, self.training)
        x = F.dropout(F.relu(self.fc7(x)), 0.5, self.training)
        return self.classifier(x)


class VGGHead(nn.Module):
    """Sum of one branch of fc6, fc7 and fc8 for each rate; N×512×h×w → N×C×h×w."""

    def __init__(self, inputs: int, classes: int, head: Head) -> None:
        super().__init__()
        self.branches = nn.ModuleList(_FullyConvolutional(inputs, classes, rate) for rate in RATES[head])

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([branch(x) for branch in self.branches]).sum(0)


class ResNetHead(nn.Module):
    """Sum of one 3×3 convolution straight to the classes for each rate; N×channels×h×w → N×C×h×w."""

    def __init__(self, inputs: int, classes: int, head: Head) -> None:
        super().__init__()
        self.classifiers = nn.ModuleList(
            init_classifier(nn.Conv2d(inputs, classes, 3, padding=rate, dilation=rate)) for rate in RATES[head]
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([classifier(x) for classifier in self.classifiers]).sum(0)
