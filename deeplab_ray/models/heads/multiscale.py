"""MSC: one network on the image at three scales, fused by the maximum (Chen et al., CVPR 2016)."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

GRID = 32
"""Image sizes are ≡ 1 (mod this), so that they stay ≡ 1 (mod 8) at ×0.75 and ×0.5: 321 → 241, 161."""
# Fractions, so that sizes stay integers, even while a network is traced for ONNX.
_SCALES = ((3, 4), (1, 2))


class MSCScores(NamedTuple):
    """The scores that the four losses are computed on; N×C×h×w except for `half`."""

    fused: Tensor
    """Element-wise maximum over the scales."""
    full: Tensor
    """Scores of the image as it is."""
    three_quarters: Tensor
    """Scores of the image at ×0.75, upsampled to h×w."""
    half: Tensor
    """Scores of the image at ×0.5, at their own size: a cell every 16 pixels of the image."""


def multiscale(network: Callable[[Tensor], Tensor], images: Tensor, corners: bool) -> MSCScores:
    """Score N×3×H×W at three scales, and take the maximum.

    corners: sizes are ≡ 1 (mod 32), and resampling aligns corners, as in the original; otherwise it aligns pixel
    centres, as in deeplab-pytorch.
    """
    full = network(images)
    native = [network(_resize(images, scale, corners)) for scale in _SCALES]
    three_quarters, half = (
        F.interpolate(scores, size=full.shape[-2:], mode="bilinear", align_corners=corners) for scores in native
    )
    return MSCScores(torch.maximum(torch.maximum(full, three_quarters), half), full, three_quarters, native[1])


def _resize(images: Tensor, scale: tuple[int, int], corners: bool) -> Tensor:
    above, below = scale
    if corners:
        size = [(n - 1) * above // below + 1 for n in images.shape[-2:]]
        return F.interpolate(images, size=size, mode="bilinear", align_corners=True)
    # A side of one pixel stays one pixel.
    height, width = images.shape[-2:]
    images = F.pad(images, (0, 1 // width, 0, 1 // height), mode="replicate")
    # By the scale, not the size: pixels lie 1/scale apart even if the size is not a multiple of that.
    return F.interpolate(images, scale_factor=above / below, mode="bilinear", align_corners=False)
