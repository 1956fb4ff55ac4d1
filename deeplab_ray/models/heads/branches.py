"""Heads on a stride-8 trunk: LargeFOV and atrous spatial pyramid pooling (Fig. 4 and 7 of the paper)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deeplab_ray.models.atrous import AtrousConv2d
from deeplab_ray.models.configs import Head


@dataclass(frozen=True)
class Branch:
    """A branch of a head: a convolution of kernel × kernel at an atrous rate."""

    kernel: int
    rate: int
    channels: int = 1024
    """Output channels of VGG-16's fc6 and fc7."""
    taps: tuple[int, ...] = (0, 3, 6)
    """Rows and columns of ImageNet's 7×7 fc6 that become this kernel. The taps of fc6 lie 32 pixels apart; at stride 8,
    those of 3×3 at rate 12, 4×4 at rate 8 and 7×7 at rate 4 stay exactly where they were."""

    def convolution(self, inputs: int, outputs: int) -> nn.Conv2d:
        """Make the convolution, padded to keep the size: N×inputs×h×w → N×outputs×h×w."""
        padding = self.rate * (self.kernel - 1) // 2
        return AtrousConv2d(inputs, outputs, self.kernel, padding=padding, dilation=self.rate)


BRANCHES: dict[Head, tuple[Branch, ...]] = {
    "plain": (Branch(1, 1),),
    "largefov": (Branch(3, 12),),
    "k7r4": (Branch(7, 4, 4096, (0, 1, 2, 3, 4, 5, 6)),),
    "k4r4": (Branch(4, 4, 4096, (1, 2, 3, 4)),),
    "k4r8": (Branch(4, 8, 4096, (0, 2, 4, 6)),),
    "aspp-s": tuple(Branch(3, rate) for rate in (2, 4, 8, 12)),
    "aspp-l": tuple(Branch(3, rate) for rate in (6, 12, 18, 24)),
}


def init_classifier(layer: nn.Conv2d) -> nn.Conv2d:
    """Draw weights from N(0, 0.01²) and set the bias to zero, as the original does."""
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.get_parameter("bias"))
    return layer


def init_hidden(layer: nn.Conv2d) -> nn.Conv2d:
    """Apply He initialisation, with zero bias."""
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.get_parameter("bias"))
    return layer


class _FullyConvolutional(nn.Module):
    """A branch on VGG-16: fc6 at its rate → 1×1 (fc7) → classifier (fc8), with dropout after fc6 and fc7."""

    def __init__(self, inputs: int, classes: int, branch: Branch, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.fc6 = init_hidden(branch.convolution(inputs, branch.channels))
        self.fc7 = init_hidden(nn.Conv2d(branch.channels, branch.channels, 1))
        self.classifier = init_classifier(nn.Conv2d(branch.channels, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout(F.relu(self.fc6(x)), self.dropout, self.training)
        x = F.dropout(F.relu(self.fc7(x)), self.dropout, self.training)
        return self.classifier(x)


class VGGHead(nn.Module):
    """The head on VGG-16: the sum of its branches of fc6, fc7 and fc8; N×512×h×w → N×C×h×w."""

    def __init__(self, inputs: int, classes: int, head: Head, dropout: float = 0.5) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            _FullyConvolutional(inputs, classes, branch, dropout) for branch in BRANCHES[head]
        )

    @property
    def last_layers(self) -> list[nn.Conv2d]:
        """The layers with an output for every class."""
        return [branch.get_submodule("classifier") for branch in self.branches]  # type: ignore[misc]

    @property
    def looking_layers(self) -> list[nn.Conv2d]:
        """The layers that see more than one cell."""
        return [branch.get_submodule("fc6") for branch in self.branches]  # type: ignore[misc]

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([branch(x) for branch in self.branches]).sum(0)


class ResNetHead(nn.Module):
    """The head on ResNet: the sum of its branches, each one convolution to the classes; N×channels×h×w → N×C×h×w."""

    def __init__(self, inputs: int, classes: int, head: Head) -> None:
        super().__init__()
        self.classifiers = nn.ModuleList(
            init_classifier(branch.convolution(inputs, classes)) for branch in BRANCHES[head]
        )

    @property
    def last_layers(self) -> list[nn.Conv2d]:
        """The layers with an output for every class."""
        return list(self.classifiers)  # type: ignore[arg-type]

    looking_layers = last_layers

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([classifier(x) for classifier in self.classifiers]).sum(0)
