"""Where the cells of a network's scores lie on the image, and how scores come back to image size.

In the paper sizes are ≡ 1 (mod 8), so that cell k lies exactly at pixel 8k, a label at output stride is
`label[::8, ::8]`, and scores return to image size by bilinear interpolation with aligned corners (`CornerGrid`). FCN
and the port deeplab-pytorch put their cells elsewhere.

Shapes: N images, C classes, H×W pixels, h×w cells.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


class Grid(ABC):
    """Where score cells lie on an image. It is small and goes with the scores, pickled or as text (`str`, `parse`)."""

    @property
    @abstractmethod
    def combined(self) -> "CornerGrid":
        """The grid on which scores of several scales, mirror images and tiles are summed."""

    @abstractmethod
    def to_image(self, scores: Tensor, height: int, width: int) -> Tensor:
        """Resample the network's scores N×C×h×w to image size, N×C×height×width.

        Raises ValueError if h×w does not belong to height×width.
        """

    def onto_combined(self, scores: Tensor, height: int, width: int, mirrored: bool = False) -> Tensor:
        """Resample scores N×C×h×w of a prepared image to the grid `combined` of its height×width pixels.

        mirrored: the scores are of the mirrored prepared image, and are mirrored back.
        """
        full = self.to_image(scores, height, width)
        full = full.flip(-1) if mirrored else full
        stride = self.combined.stride
        rows, columns = ((stride * torch.arange(self.combined.cells(n))).clamp(max=n - 1) for n in (height, width))
        return full[..., rows, :][..., columns]


@dataclass(frozen=True)
class CornerGrid(Grid):
    """A grid with cell k at pixel stride·k; stride 1 has a score at every pixel."""

    stride: int = 8

    def __str__(self) -> str:
        return f"corners {self.stride}"

    @property
    def combined(self) -> "CornerGrid":
        return self

    def cells(self, pixels: int) -> int:
        """Return the number of cells for these pixels, the last at or behind the last pixel: 321 → 41 at stride 8."""
        return (pixels + self.stride - 2) // self.stride + 1

    def labels(self, labels: Tensor) -> Tensor:
        """Return labels N×H×W at the cells, N×h×w: exactly every stride-th pixel.

        Raises ValueError unless H and W are ≡ 1 (mod stride), since cells would lie behind the last pixel.
        """
        if any((size - 1) % self.stride for size in labels.shape[-2:]):
            height, width = labels.shape[-2:]
            raise ValueError(
                f"a label of {height}×{width} does not fit the stride-{self.stride} grid: "
                f"sizes must be ≡ 1 (mod {self.stride})"
            )
        return labels[..., :: self.stride, :: self.stride]

    def to_image(self, scores: Tensor, height: int, width: int) -> Tensor:
        """Interpolate bilinearly with aligned corners to the padded size, then cut the padding off."""
        h, w = scores.shape[-2:]
        # While a network is traced for ONNX, sizes are symbols.
        if not torch.jit.is_tracing() and (h, w) != (self.cells(height), self.cells(width)):
            raise ValueError(f"scores of {h}×{w} do not belong to an image of {height}×{width}")
        if self.stride == 1:
            return scores
        padded = [self.stride * (n - 1) + 1 for n in (h, w)]
        return F.interpolate(scores, size=padded, mode="bilinear", align_corners=True)[..., :height, :width]

    def onto_combined(self, scores: Tensor, height: int, width: int, mirrored: bool = False) -> Tensor:
        # Padded sides are ≡ 1 (mod stride), so cells fall on cells when the padded image is mirrored.
        scores = scores.flip(-1) if mirrored else scores
        return scores[..., : self.cells(height), : self.cells(width)]


@dataclass(frozen=True)
class CentreGrid(Grid):
    """A grid with cells spread evenly over the image's area: pixel centres are aligned, as in deeplab-pytorch."""

    def __str__(self) -> str:
        return "centres"

    @property
    def combined(self) -> CornerGrid:
        return CornerGrid(8)

    def to_image(self, scores: Tensor, height: int, width: int) -> Tensor:
        """Interpolate bilinearly with aligned pixel centres."""
        return F.interpolate(scores, size=(height, width), mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class DeconvolvedGrid(Grid):
    """FCN's grid: scores are deconvolved by `stride`, and cropped from row and column `offset` on."""

    stride: int
    offset: int

    def __str__(self) -> str:
        return f"deconvolved {self.stride} {self.offset}"

    @property
    def combined(self) -> CornerGrid:
        return CornerGrid(1)

    def to_image(self, scores: Tensor, height: int, width: int) -> Tensor:
        """Deconvolve bilinearly, and crop as the original does."""
        h, w = scores.shape[-2:]
        inner = slice(self.offset, self.offset + height), slice(self.offset, self.offset + width)
        full = deconvolve(scores, self.stride)[(..., *inner)]
        if not torch.jit.is_tracing() and full.shape[-2:] != (height, width):
            raise ValueError(f"scores of {h}×{w} are too few for an image of {height}×{width}")
        return full


def parse(text: str) -> Grid:
    """Return the grid from which `str()` made this text. Raises ValueError for any other text."""
    kinds: dict[str, type[Grid]] = {"corners": CornerGrid, "centres": CentreGrid, "deconvolved": DeconvolvedGrid}
    try:
        kind, *numbers = text.split()
        return kinds[kind](*map(int, numbers))
    except (KeyError, ValueError, TypeError):
        raise ValueError(f"{text!r} is not a grid") from None


def pad_to(images: Tensor, step: int, remainder: int) -> Tensor:
    """Pad N×C×H×W at the right and the bottom with zeros (the mean colour) to sizes ≡ remainder (mod step)."""
    height, width = images.shape[-2:]
    return F.pad(images, (0, (remainder - width) % step, 0, (remainder - height) % step))


def deconvolve(scores: Tensor, factor: int) -> Tensor:
    """Deconvolve N×C×h×w bilinearly, with a fixed filter of side 2·factor at stride `factor`: h → (h + 1)·factor."""
    ramp = [1 - abs(k - factor + 0.5) / factor for k in range(2 * factor)]
    # One plane at a time, with a filter made of numbers, so that its shape is known while a network is traced for ONNX.
    weight = torch.tensor([[[[a * b for a in ramp] for b in ramp]]], dtype=scores.dtype, device=scores.device)
    planes = F.conv_transpose2d(scores.flatten(0, 1)[:, None], weight, stride=factor)
    return planes.view(*scores.shape[:2], *planes.shape[-2:])


def sample_scores(scores: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Interpolate N×C×h×w bilinearly at all pairs of `rows` (a positions, in cells) and `columns` (b): N×C×a×b.

    Positions outside take the value of the nearest cell.
    """
    h, w = scores.shape[-2:]
    return _hat(rows, h, scores) @ scores @ _hat(columns, w, scores).T


def _hat(positions: Tensor, cells: int, like: Tensor) -> Tensor:
    """Return linear interpolation at the positions as a matrix, positions × cells."""
    positions = positions.to(like).clamp(0, cells - 1)
    return (1 - (positions[:, None] - torch.arange(cells).to(like)).abs()).clamp_min(0)


def normalise(images: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Normalise N×H×W×channels, uint8 or float, to float32 N×channels×H×W: (x − mean) / scale, in 0..255 units."""
    return ((images.to(torch.float32) - mean) / scale).permute(0, 3, 1, 2).contiguous()
