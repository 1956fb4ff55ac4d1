"""Scoring one image at several scales, mirrored, and in tiles."""

import torch
from torch import Tensor
from torch.nn import functional as F

from deeplab_ray.config.recipe import TestConfig
from deeplab_ray.models.grid import STRIDE, Alignment, grid_size, sample_scores, upsample_scores
from deeplab_ray.models.networks.deeplab_v2 import DeepLab


def score_images(model: DeepLab, images: Tensor, options: TestConfig) -> tuple[Tensor, Alignment]:
    """RGB images N×H×W×3 of any size → scores N×C×h×w, and where they lie (for `upsample_scores`).

    Without options what the model gives; else the mean over scales and mirror images, on the grid at output stride.
    The model must be in evaluation mode.
    """
    if options.test_scales == (1.0,) and not options.test_mirror and not _tiled(images, options):
        return model(images), model.alignment
    total = torch.zeros(())
    for scale in options.test_scales:
        scaled = _resize(images, scale)
        scores = _score_tiles(model, scaled, options)
        if options.test_mirror:
            mirrored = _score_tiles(model, scaled.flip(2), options)
            scores = (scores + _mirror_back(mirrored, scaled.shape[2])) / 2
        total = total.to(scores.device) + _to_grid(scores, scaled, images)
    return total / len(options.test_scales), "corners"


def _resize(images: Tensor, scale: float) -> Tensor:
    if scale == 1:
        return images
    size = [max(1, round(n * scale)) for n in images.shape[1:3]]
    planes = images.permute(0, 3, 1, 2).float()
    # Smoothed where it shrinks, as training images are.
    return F.interpolate(planes, size=size, mode="bilinear", align_corners=False, antialias=True).permute(0, 2, 3, 1)


def _mirror_back(scores: Tensor, width: int) -> Tensor:
    """Scores of a mirrored image on the grid of the image itself: cell k at pixel 8k was at width − 1 − 8k."""
    columns = (width - 1 - STRIDE * torch.arange(scores.shape[-1])) / STRIDE
    return sample_scores(scores, torch.arange(scores.shape[-2]), columns)


def _to_grid(scores: Tensor, scaled: Tensor, images: Tensor) -> Tensor:
    """Scores on the grid of the scaled image, interpolated on that of the image."""
    if scaled is images:
        return scores
    positions = []
    for small, large in zip(scaled.shape[1:3], images.shape[1:3], strict=True):
        pixels = STRIDE * torch.arange(grid_size(large))
        positions.append(((pixels + 0.5) * small / large - 0.5) / STRIDE)
    return sample_scores(scores, *positions)


def _tiled(images: Tensor, options: TestConfig) -> bool:
    return options.tile > 0 and max(images.shape[1:3]) > options.tile


def _score_tiles(model: DeepLab, images: Tensor, options: TestConfig) -> Tensor:
    """Scores on the grid at output stride, of overlapping tiles where the image is larger than one.

    Every tile starts at a cell of the whole image's grid. Where tiles overlap, each counts by its distance to its
    own edge, so that no tile's border shows.
    """
    if not _tiled(images, options):
        return _on_grid(model, images)
    height, width = images.shape[1:3]
    total = weights = torch.zeros(())
    for top in _starts(height, options):
        for left in _starts(width, options):
            tile = images[:, top : top + options.tile, left : left + options.tile]
            scores = _on_grid(model, tile)
            if not total.ndim:
                total = scores.new_zeros((*scores.shape[:2], grid_size(height), grid_size(width)))
                weights = torch.zeros_like(total[:1, :1])
            h, w = scores.shape[-2:]
            row, column = top // STRIDE, left // STRIDE
            weight = (_ramp(h)[:, None] * _ramp(w)).to(scores)
            total[..., row : row + h, column : column + w] += scores * weight
            weights[..., row : row + h, column : column + w] += weight
    return total / weights


def _starts(size: int, options: TestConfig) -> list[int]:
    """First pixels of the tiles along one side: multiples of the stride, evenly apart, the last tile at the end."""
    if size <= options.tile:
        return [0]
    last = STRIDE * (grid_size(size) - 1) - (options.tile - 1)
    step = (options.tile - 1 - options.tile_overlap) // STRIDE * STRIDE
    count = -(-last // step)
    return sorted({STRIDE * round(last * k / count / STRIDE) for k in range(count + 1)})


def _ramp(cells: int) -> Tensor:
    distance = torch.arange(1, cells + 1, dtype=torch.float32)
    return torch.minimum(distance, distance.flip(0))


def _on_grid(model: DeepLab, images: Tensor) -> Tensor:
    scores: Tensor = model(images)
    if model.alignment == "corners":
        return scores.float()
    height, width = images.shape[1:3]
    # Wherever the network has its cells: its scores at the grid's pixels, the nearest where padding would be.
    full = upsample_scores(scores.float(), height, width, model.alignment)
    rows, columns = ((STRIDE * torch.arange(grid_size(n))).clamp(max=n - 1) for n in (height, width))
    return full[..., rows, :][..., columns]
