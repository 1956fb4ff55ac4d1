"""Scoring of images: as they are, at several scales, mirrored, and in tiles.

Validation, evaluation and prediction all use it.

Shapes: N images, C classes, H×W pixels, h×w cells.
"""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from deeplab_ray.config.scoring import ScoringConfig
from deeplab_ray.models.grid import CornerGrid, Grid, sample_scores
from deeplab_ray.models.network import Network


def score_images(network: Network, images: Tensor, options: ScoringConfig) -> tuple[Tensor, Grid]:
    """Score images N×H×W×channels of any size; return scores N×C×h×w and the grid that they lie on.

    With several scales, mirror or tiles these are the mean over scales and mirror images, on the network's combined
    grid; otherwise the network's own scores. The network must be in evaluation mode.
    """
    if options.test_scales == (1.0,) and not options.test_mirror and not _tiled(images, options):
        return network(images), network.grid
    grid = network.grid.combined
    total = torch.zeros(())
    for scale in options.test_scales:
        scaled = _resize(images, scale)
        scores = _score_tiles(network, scaled, options)
        total = total.to(scores.device) + _to_unscaled(scores, scaled, images, grid)
    return total / len(options.test_scales), grid


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return the context of bfloat16 autocast on the device; for float32 one that does nothing."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def score_image(
    network: Network, image: NDArray[np.uint8], device: torch.device, precision: str, options: ScoringConfig
) -> tuple[Tensor, Grid]:
    """Score one image, uint8 H×W×channels; return scores float32 C×h×w on the device and the grid that they lie on."""
    scores, grid = score_batch(network, image[None], device, precision, options)
    return scores[0], grid


def score_batch(
    network: Network, images: NDArray[np.uint8], device: torch.device, precision: str, options: ScoringConfig
) -> tuple[Tensor, Grid]:
    """Score images of one size, uint8 N×H×W×channels; return scores float32 N×C×h×w on the device and their grid."""
    with torch.inference_mode(), autocast(device, precision):
        scores, grid = score_images(network, torch.from_numpy(images.copy()).to(device), options)
    return scores.float(), grid


def best_batch(score: Callable[[int], None], largest: int = 64) -> int:
    """Find out how many images to score at a time: 1, 2, 4 … while they fit and each doubling saves 5 % of the time.

    score: scores so many images, and raises torch.OutOfMemoryError if they do not fit. If one does not fit, it is 1.
    """
    best, fastest = 1, math.inf
    count = 1
    while count <= largest:
        try:
            score(count)  # the first call of a size also chooses its algorithms
            started = time.perf_counter()
            score(count)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            each = (time.perf_counter() - started) / count
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        if each > 0.95 * fastest:
            break
        best, fastest, count = count, each, 2 * count
    return best


def predict_labels(scores: Tensor, grid: Grid, height: int, width: int) -> NDArray[np.uint8]:
    """Return the most probable train id of every pixel, uint8 height×width, given scores float32 C×h×w."""
    return grid.to_image(scores[None], height, width)[0].argmax(0).to(torch.uint8).cpu().numpy()


def _resize(images: Tensor, scale: float) -> Tensor:
    if scale == 1:
        return images
    size = [max(1, round(n * scale)) for n in images.shape[1:3]]
    planes = images.permute(0, 3, 1, 2).float()
    # Shrinking smooths (antialias), as it does for training images.
    return F.interpolate(planes, size=size, mode="bilinear", align_corners=False, antialias=True).permute(0, 2, 3, 1)


def _to_unscaled(scores: Tensor, scaled: Tensor, images: Tensor, grid: CornerGrid) -> Tensor:
    """Interpolate scores on the grid of the scaled images at the cells of the original images' grid."""
    if scaled is images:
        return scores
    positions = []
    for small, large in zip(scaled.shape[1:3], images.shape[1:3], strict=True):
        pixels = grid.stride * torch.arange(grid.cells(large))
        positions.append(((pixels + 0.5) * small / large - 0.5) / grid.stride)
    # In bfloat16 the weights of the interpolation would lose what the scores have just gained as float32.
    with torch.autocast(scores.device.type, enabled=False):
        return sample_scores(scores, *positions)


def _tiled(images: Tensor, options: ScoringConfig) -> bool:
    return options.tile > 0 and max(images.shape[1:3]) > options.tile


def _score_tiles(network: Network, images: Tensor, options: ScoringConfig) -> Tensor:
    """Score on the combined grid, in overlapping tiles if the image is larger than one tile.

    Every tile starts at a cell of the whole image's grid. Where tiles overlap, each is weighted by the distance to its
    own edge, so that no border shows.
    """
    if not _tiled(images, options):
        return _score_mirrored(network, images, options.test_mirror)
    grid = network.grid.combined
    step = math.lcm(grid.stride, network.config.step)
    height, width = images.shape[1:3]
    total = weights = torch.zeros(())
    for top in _starts(height, step, options):
        for left in _starts(width, step, options):
            tile = images[:, top : top + options.tile, left : left + options.tile]
            scores = _score_mirrored(network, tile, options.test_mirror)
            if not total.ndim:
                total = scores.new_zeros((*scores.shape[:2], grid.cells(height), grid.cells(width)))
                weights = torch.zeros_like(total[:1, :1])
            h, w = scores.shape[-2:]
            row, column = top // grid.stride, left // grid.stride
            weight = (_ramp(h)[:, None] * _ramp(w)).to(scores)
            total[..., row : row + h, column : column + w] += scores * weight
            weights[..., row : row + h, column : column + w] += weight
    return total / weights


def _starts(size: int, step: int, options: ScoringConfig) -> list[int]:
    """Return the first pixels of the tiles along a side: multiples of `step`, evenly spaced; the last tile ends it."""
    last = step * -((options.tile - size) // step)
    if last <= 0:
        return [0]
    apart = max(step, (options.tile - 1 - options.tile_overlap) // step * step)
    count = -(-last // apart)
    return sorted({step * round(last * k / count / step) for k in range(count + 1)})


def _ramp(cells: int) -> Tensor:
    distance = torch.arange(1, cells + 1, dtype=torch.float32)
    return torch.minimum(distance, distance.flip(0))


def _score_mirrored(network: Network, images: Tensor, mirror: bool) -> Tensor:
    """Score on the combined grid; mirror: return the mean with the scores of the mirrored image.

    The padded image is mirrored, so that cells fall on cells.
    """
    height, width = images.shape[1:3]
    prepared = network.prepare(images)
    scores = network.grid.onto_combined(network.score(prepared).float(), height, width)
    if not mirror:
        return scores
    flipped = network.grid.onto_combined(network.score(prepared.flip(-1)).float(), height, width, mirrored=True)
    return (scores + flipped) / 2
