"""The geometry of the paper: which sizes fit, and how scores come back to image size.

Sizes ≡ 1 (mod 8) put the centres of output cell k at pixel 8k exactly, so that a label at output stride is
`label[::8, ::8]` and the way back is bilinear interpolation with aligned corners. The fully convolutional networks
and the port deeplab-pytorch put their cells elsewhere: `Alignment` says where.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

STRIDE = 8

Alignment = Literal["corners", "centres", "fcn32s", "fcn16s", "fcn8s"]
"""Where score cells lie on the image: at pixels 8k; evenly over its area; where FCN's paddings put them."""

# FCN: stride of the scores, and the first row and column that is kept of their deconvolution.
_FCN: dict[str, tuple[int, int]] = {"fcn32s": (32, 19), "fcn16s": (16, 27), "fcn8s": (8, 31)}


def grid_size(size: int) -> int:
    """Cells at output stride for `size` pixels: 321 → 41, 1 → 1."""
    return (size + STRIDE - 2) // STRIDE + 1


def pad_to_grid(images: Tensor, multiple: int = STRIDE) -> Tensor:
    """Pad N×3×H×W at the right and at the bottom with zeros (the mean colour) to sizes ≡ 1 (mod `multiple`)."""
    height, width = images.shape[-2:]
    return F.pad(images, (0, (1 - width) % multiple, 0, (1 - height) % multiple))


def upsample_scores(scores: Tensor, height: int, width: int, alignment: Alignment = "corners") -> Tensor:
    """Scores N×C×h×w as a network gives them → N×C×height×width at image size.

    corners: bilinear with aligned corners onto the padded size, from which the padding is cut. centres: bilinear
    with aligned pixel centres. fcn…: bilinear deconvolution, cropped as the original's.
    Raises ValueError when h×w does not belong to height×width.
    """
    h, w = scores.shape[-2:]
    if alignment == "centres":
        return F.interpolate(scores, size=(height, width), mode="bilinear", align_corners=False)
    if alignment != "corners":
        stride, offset = _FCN[alignment]
        full = deconvolve(scores, stride)[..., offset : offset + height, offset : offset + width]
        if full.shape[-2:] != (height, width):
            raise ValueError(f"scores of {h}×{w} are too few for an image of {height}×{width}")
        return full
    if (h, w) != (grid_size(height), grid_size(width)):
        raise ValueError(f"scores of {h}×{w} do not belong to an image of {height}×{width}")
    padded = (STRIDE * (h - 1) + 1, STRIDE * (w - 1) + 1)
    return F.interpolate(scores, size=padded, mode="bilinear", align_corners=True)[..., :height, :width]


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


def labels_at_stride(labels: Tensor, stride: int = STRIDE) -> Tensor:
    """Labels N×H×W (H, W ≡ 1 mod 8) at output stride: N×h×w, exactly every eighth pixel (or `stride`th)."""
    height, width = labels.shape[-2:]
    if height % STRIDE != 1 or width % STRIDE != 1:
        raise ValueError(f"a label of {height}×{width} does not fit the stride-8 grid: sizes must be ≡ 1 (mod 8)")
    return labels[..., ::stride, ::stride]


def normalise(images: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """RGB N×H×W×3, uint8 or float → float32 N×3×H×W, (x − mean) / scale per channel, in 0..255 units."""
    return ((images.to(torch.float32) - mean) / scale).permute(0, 3, 1, 2).contiguous()
