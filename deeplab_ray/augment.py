"""Random scale, mirror and crop: a pure function of (seed, epoch, sample id).

Which worker augments a sample, in which attempt and in what company makes no difference.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deeplab_ray.config.recipe import AugmentConfig
from deeplab_ray.labels import IGNORE

_MEAN_COLOUR = (123, 117, 104)


def sample_rng(seed: int, epoch: int, sample_id: str) -> np.random.Generator:
    """The generator from which this sample's augmentation in this epoch is drawn."""
    digest = hashlib.sha256(f"{seed}\0{epoch}\0{sample_id}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def epoch_order(seed: int, epoch: int, size: int) -> NDArray[np.int64]:
    """The order in which an epoch visits `size` samples: a permutation that depends on seed and epoch alone."""
    return sample_rng(seed, epoch, "order").permutation(size)


def augment(
    image: NDArray[np.uint8], label: NDArray[np.uint8], config: AugmentConfig, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Scale by a random factor, mirror with probability ½, cut a random square.

    image uint8 H×W×3 and label uint8 H×W → uint8 crop×crop×3 and uint8 crop×crop. Where the scaled image is
    smaller than the crop, it is padded at the right and at the bottom with the mean colour and with ignore.
    The image is interpolated linearly (with antialiasing when it shrinks), the label by nearest neighbour.
    """
    height, width = label.shape
    factor = rng.uniform(config.scale_min, config.scale_max)
    mirror = bool(rng.random() < 0.5) and config.mirror
    sizes = [max(1, round(n * factor)) for n in (height, width)]
    top, left = (int(rng.integers(0, max(0, size - config.crop) + 1)) for size in sizes)
    rows, columns = (min(config.crop, size) for size in sizes)

    # Only the window that becomes the crop is resampled.
    y, x = height / sizes[0], width / sizes[1]
    window = (left * x, top * y, min(width, (left + columns) * x), min(height, (top + rows) * y))
    size = (columns, rows)
    picture = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, box=window))
    truth = np.asarray(Image.fromarray(label).resize(size, Image.Resampling.NEAREST, box=window))
    if mirror:
        picture, truth = picture[:, ::-1], truth[:, ::-1]

    out_image = np.empty((config.crop, config.crop, 3), np.uint8)
    out_image[:] = _MEAN_COLOUR
    out_label = np.full((config.crop, config.crop), IGNORE, np.uint8)
    out_image[:rows, :columns], out_label[:rows, :columns] = picture, truth
    return out_image, out_label
