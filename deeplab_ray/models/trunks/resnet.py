"""ResNet-101 and ResNet-18 at output stride 8, with frozen or trained batch norms.

Unlike in the image classifiers, the first pool is padded at the far side (ceil), and res4 and res5 have no stride but
dilations 2 and 4. Parameters and buffers have torchvision's names, so that its checkpoints load as they are.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from deeplab_ray.models.atrous import AtrousConv2d
from deeplab_ray.models.norm import batch_norm

# Initial scale of the last norm of a residual branch: a network with random weights then starts close to the shallow
# network of its shortcuts and learns faster, as with the zero scale of Goyal et al. (2017). A frozen norm could never
# leave zero.
_BRANCH_SCALE = 0.2


@dataclass(frozen=True)
class _Steps:
    """Stride and dilations of one block."""

    stride: int
    first_dilation: int
    """Dilation of the block's first 3×3 convolution."""
    dilation: int
    """Dilation of the second 3×3 convolution, in a block that has two."""
    stride_in_3x3: bool
    """Whether a bottleneck strides in its 3×3, as in torchvision, or in the 1×1 before, as in the original (MSRA)."""


def _conv3x3(inputs: int, outputs: int, stride: int, dilation: int) -> nn.Conv2d:
    kind = AtrousConv2d if stride == 1 and dilation > 1 else nn.Conv2d
    return kind(inputs, outputs, 3, stride, padding=dilation, dilation=dilation, bias=False)


class _Basic(nn.Module):
    """A block of two 3×3 convolutions (ResNet-18)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, steps: _Steps, norm: str) -> None:
        super().__init__()
        self.conv1 = _conv3x3(inputs, width, steps.stride, steps.first_dilation)
        self.bn1 = batch_norm(norm, width)
        self.conv2 = _conv3x3(width, width, 1, steps.dilation)
        self.bn2 = batch_norm(norm, width)
        _scale(self.bn2, _BRANCH_SCALE)
        self.downsample = _shortcut(inputs, width * self.expansion, steps.stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class _Bottleneck(nn.Module):
    """A block of 1×1, 3×3 and 1×1 convolutions (ResNet-101)."""

    expansion = 4

    def __init__(self, inputs: int, width: int, steps: _Steps, norm: str) -> None:
        super().__init__()
        before, within = (1, steps.stride) if steps.stride_in_3x3 else (steps.stride, 1)
        self.conv1 = nn.Conv2d(inputs, width, 1, before, bias=False)
        self.bn1 = batch_norm(norm, width)
        self.conv2 = _conv3x3(width, width, within, steps.first_dilation)
        self.bn2 = batch_norm(norm, width)
        self.conv3 = nn.Conv2d(width, width * 4, 1, bias=False)
        self.bn3 = batch_norm(norm, width * 4)
        _scale(self.bn3, _BRANCH_SCALE)
        self.downsample = _shortcut(inputs, width * self.expansion, steps.stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


def _scale(norm: nn.Module, factor: float) -> None:
    nn.init.constant_(norm.weight, factor)  # type: ignore[arg-type]


def _shortcut(inputs: int, outputs: int, stride: int, norm: str) -> nn.Sequential | None:
    if inputs == outputs and stride == 1:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), batch_norm(norm, outputs))


class ResNetTrunk(nn.Module):
    """A ResNet without its classifier: N×channels×H×W → N×`self.channels`×h×w.

    blocks: the numbers of blocks in res2 … res5. strides: "caffe": the first block of res4 and res5 has the dilation of
    those after it; "torchvision": the first 3×3 of res4 and res5 has the dilation of the stage before. torchvision's
    networks have their stride in that 3×3, so only so does the dense network compute what theirs do.
    """

    def __init__(
        self,
        block: type[_Basic] | type[_Bottleneck],
        blocks: tuple[int, ...],
        strides: str = "caffe",
        norm: str = "frozen",
        channels: int = 3,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 7, 2, padding=3, bias=False)
        self.bn1 = batch_norm(norm, 64)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)
        self.channels = 64
        torchvisions = strides == "torchvision"
        previous = 1
        for number, (width, stride, dilation) in enumerate(((64, 1, 1), (128, 2, 1), (256, 1, 2), (512, 1, 4)), 1):
            layers = []
            for index in range(blocks[number - 1]):
                first = index == 0
                steps = _Steps(
                    stride if first else 1, previous if first and torchvisions else dilation, dilation, torchvisions
                )
                layers.append(block(self.channels, width, steps, norm))
                self.channels = width * block.expansion
            previous = dilation
            self.add_module(f"layer{number}", nn.Sequential(*layers))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        x = self.maxpool(F.relu(self.bn1(self.conv1(images))))
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
        return x


BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet101": (3, 4, 23, 3)}
"""Numbers of blocks in res2, res3, res4 and res5."""


def resnet(name: str, strides: str = "caffe", norm: str = "frozen", channels: int = 3) -> ResNetTrunk:
    """Make the trunk "resnet18" or "resnet101" for images of `channels`; strides, norm: see `DeepLabV2Config`."""
    return ResNetTrunk(_Basic if name == "resnet18" else _Bottleneck, BLOCKS[name], strides, norm, channels)
