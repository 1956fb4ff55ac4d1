"""Where the cells of a network's scores lie on the image, and how scores come back to image size.

The paper's: sizes ≡ 1 (mod 8) put the centre of cell k at pixel 8k exactly, so that a label at output stride is
`label[::8, ::8]` and the way back is bilinear interpolation with aligned corners (`CornerGrid`). The fully
convolutional networks and the port deeplab-pytorch put their cells elsewhere.

Shapes: N images, C classes, H×W pixels, h×w cells.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


class Grid(ABC):
    """Places of score cells on an image. Small and picklable: scores travel with it; `str()` and `parse` as text."""

    @property
    @abstractmethod
    def combined(self) -> "CornerGrid":
        """The grid on which scores of several scales, mirror images and tiles are added up."""

    @abstractmethod
    def to_image(self, scores: Tensor, height: int, width: int) -> Tensor:
        """Scores N×C×h×w as the network gives them → N×C×height×width at image size.

        Raises ValueError if h×w does not belong to height×width.
        """

    def onto_combined(self, scores: Tensor, height: int, width: int, mirrored: bool = False) -> Tensor:
        """Scores N×C×h×w of a prepared image → those of height×width pixels on the grid `combined`.

        mirrored: they are of the mirrored prepared image, and are mirrored back.
        """
        full = self.to_image(scores, height, width)
        full = full.flip(-1) if mirrored else full
        stride = self.combined.stride
        rows, columns = ((stride * torch.arange(self.combined.cells(n))).clamp(max=n - 1) for n in (height, width))
        return full[..., rows, :][..., columns]


@dataclass(frozen=True)
class CornerGrid(Grid):
    """Cell k at pixel stride·k; stride 1 is a score at every pixel."""

    stride: int = 8

    def __str__(self) -> str:
        return f"corners {self.stride}"

    @property
    def combined(self) -> "CornerGrid":
        return self

    def cells(self, pixels: int) -> int:
        """Cells for so many pixels, the last at or behind the last pixel: 321 → 41 and 1 → 1 at stride 8."""
        return (pixels + self.stride - 2) // self.stride + 1

    def labels(self, labels: Tensor) -> Tensor:
        """Labels N×H×W at the cells: N×h×w, exactly every stride-th pixel.

        Raises ValueError unless H and W are ≡ 1 (mod stride): cells would lie behind the last pixel.
        """
        if any((size - 1) % self.stride for size in labels.shape[-2:]):
            height, width = labels.shape[-2:]
            raise ValueError(
                f"a label of {height}×{width} does not fit the stride-{self.stride} grid: "
                f"sizes must be ≡ 1 (mod {self.stride})"
            )
        return labels[..., :: self.stride, :: self.stride]

    def to_image(self, scores: Tensor, height: int, width: int) -> Tensor:
        """Bilinear with aligned corners onto the padded size, from which the padding is cut."""
        h, w = scores.shape[-2:]
        # While a network is traced for ONNX, sizes are symbols.
        if not torch.jit.is_tracing() and (h, w) != (self.cells(height), self.cells(width)):
            raise ValueError(f"scores of {h}×{w} do not belong to an image of {height}×{width}")
        if self.stride == 1:
            return scores
        padded = [self.stride * (n - 1) + 1 for n in (h, w)]
        return F.interpolate(scores, size=padded, mode="bilinear", align_corners=True)[..., :height, :width]

    def onto_combined(self, scores: Tensor, height: int, width: int, mirrored: bool = False) -> Tensor:
        # Of an image whose padded sides are ≡ 1 (mod stride), cells fall on cells when it is mirrored.
        scores = scores.flip(-1) if mirrored else scores
        return scores[..., : self.cells(height), : self.cells(width)]


@dataclass(frozen=True)
class CentreGrid(Grid):
    """Cells evenly over the image's area: pixel centres are aligned, as in deeplab-pytorch."""

    def __str__(self) -> str:
        return "centres"

    @property
    def combined(self) -> CornerGrid:
        return CornerGrid(8)

    def to_image(self, scores: Tensor, height: int, width: int) -> Tensor:
        """Bilinear with aligned pixel centres."""
        return F.interpolate(scores, size=(height, width), mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class DeconvolvedGrid(Grid):
    """The paddings of FCN: scores are deconvolved by `stride`, and cut from row and column `offset` on."""

    stride: int
    offset: int

    def __str__(self) -> str:
        return f"deconvolved {self.stride} {self.offset}"

    @property
    def combined(self) -> CornerGrid:
        return CornerGrid(1)

    def to_image(self, scores: Tensor, height: int, width: int) -> Tensor:
        """Bilinear deconvolution, cropped as the original's."""
        h, w = scores.shape[-2:]
        inner = slice(self.offset, self.offset + height), slice(self.offset, self.offset + width)
        full = deconvolve(scores, self.stride)[(..., *inner)]
        if not torch.jit.is_tracing() and full.shape[-2:] != (height, width):
            raise ValueError(f"scores of {h}×{w} are too few for an image of {height}×{width}")
        return full


def parse(text: str) -> Grid:
    """The grid that `str()` made this text of; ValueError for any other text."""
    kind, *numbers = text.split()
    kinds: dict[str, type[Grid]] = {"corners": CornerGrid, "centres": CentreGrid, "deconvolved": DeconvolvedGrid}
    if kind not in kinds:
        raise ValueError(f"{text!r} is no grid")
    return kinds[kind](*map(int, numbers))


def pad_to(images: Tensor, step: int, remainder: int) -> Tensor:
    """Pad N×3×H×W at the right and at the bottom with zeros (the mean colour) to sizes ≡ remainder (mod step)."""
    height, width = images.shape[-2:]
    return F.pad(images, (0, (remainder - width) % step, 0, (remainder - height) % step))


def deconvolve(scores: Tensor, factor: int) -> Tensor:
    """Bilinear deconvolution with a fixed filter of side 2·factor at stride `factor`: h → (h + 1)·factor."""
    ramp = [1 - abs(k - factor + 0.5) / factor for k in range(2 * factor)]
    # A plane at a time, and from numbers, so that its shape is known while a network is traced for ONNX.
    weight = torch.tensor([[[[a * b for a in ramp] for b in ramp]]], dtype=scores.dtype, device=scores.device)
    planes = F.conv_transpose2d(scores.flatten(0, 1)[:, None], weight, stride=factor)
    return planes.view(*scores.shape[:2], *planes.shape[-2:])


def sample_scores(scores: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Bilinear interpolation of N×C×h×w at all pairs of `rows` (in cells, a) and `columns` (b): N×C×a×b.

    Positions outside take the nearest cell's value.
    """
    h, w = scores.shape[-2:]
    return _hat(rows, h, scores) @ scores @ _hat(columns, w, scores).T


def _hat(positions: Tensor, cells: int, like: Tensor) -> Tensor:
    """Linear interpolation as a matrix, positions × cells."""
    positions = positions.to(like).clamp(0, cells - 1)
    return (1 - (positions[:, None] - torch.arange(cells).to(like)).abs()).clamp_min(0)


def normalise(images: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """N×H×W×channels, uint8 or float → float32 N×channels×H×W, (x − mean) / scale per channel, in 0..255 units."""
    return ((images.to(torch.float32) - mean) / scale).permute(0, 3, 1, 2).contiguous()
