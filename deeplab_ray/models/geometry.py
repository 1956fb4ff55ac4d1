"""The stride-8 geometry of the paper: which sizes fit, and how scores come back to image size.

Sizes ≡ 1 (mod 8) put the centres of output cell k at pixel 8k exactly, so that a label at output stride is
`label[::8, ::8]` and the way back is bilinear interpolation with aligned corners.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

STRIDE = 8


def grid_size(size: int) -> int:
    """Cells at output stride for `size` pixels: 321 → 41, 1 → 1."""
    return (size + STRIDE - 2) // STRIDE + 1


def pad_to_grid(images: Tensor) -> Tensor:
    """Pad N×3×H×W at the right and at the bottom with zeros (the mean colour) to sizes ≡ 1 (mod 8)."""
    height, width = images.shape[-2:]
    down, right = (STRIDE * (grid_size(n) - 1) + 1 - n for n in (height, width))
    return F.pad(images, (0, right, 0, down)) if down or right else images


def upsample_scores(scores: Tensor, height: int, width: int) -> Tensor:
    """Scores N×C×h×w at output stride → N×C×height×width at image size.

    Bilinear with aligned corners onto the padded size, from which the padding is cut.
    Raises ValueError when h×w is not the grid of height×width.
    """
    h, w = scores.shape[-2:]
    if (h, w) != (grid_size(height), grid_size(width)):
        raise ValueError(f"scores of {h}×{w} do not belong to an image of {height}×{width}")
    padded = (STRIDE * (h - 1) + 1, STRIDE * (w - 1) + 1)
    return F.interpolate(scores, size=padded, mode="bilinear", align_corners=True)[..., :height, :width]


def labels_at_stride(labels: Tensor) -> Tensor:
    """Labels N×H×W (H, W ≡ 1 mod 8) at output stride: N×h×w, exactly every eighth pixel."""
    height, width = labels.shape[-2:]
    if height % STRIDE != 1 or width % STRIDE != 1:
        raise ValueError(f"a label of {height}×{width} does not fit the stride-8 grid: sizes must be ≡ 1 (mod 8)")
    return labels[..., ::STRIDE, ::STRIDE]


def normalise(images: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """uint8 RGB N×H×W×3 → float32 N×3×H×W, (x − mean) / scale per channel, in 0..255 units."""
    return ((images.to(torch.float32) - mean) / scale).permute(0, 3, 1, 2).contiguous()
