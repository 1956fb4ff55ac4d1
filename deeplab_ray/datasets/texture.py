"""How a picture looks, whatever its values mean: a label has even areas, a photograph has none."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deeplab_ray.datasets.formats import Value
from deeplab_ray.images import load

PHOTO_VALUES = 64
"""A photograph has more different values than this."""

# And its neighbours are equal by chance alone: a third of CamVid's, where 95 % of its labels' are; of labels that were
# saved as JPEG of quality 50, three quarters.
_FLAT = 0.5


@dataclass(frozen=True)
class Texture:
    """How a picture looks, whatever its values mean."""

    values: NDArray[np.generic]
    """[V] the different values, as `numbers` gives them."""
    pixels: NDArray[np.int64]
    """[V] how many pixels have each."""
    thin: NDArray[np.int64]
    """[V] how many of these differ from both neighbours on the same row, or on the same column."""
    flat: float
    """Share of pixels whose right-hand neighbour is the same."""
    colours: bool

    @property
    def is_photo(self) -> bool:
        return len(self.values) > PHOTO_VALUES and self.flat < _FLAT

    def lines(self) -> dict[Value, int]:
        """The values that make lines instead of areas, and their pixels."""
        found = 2 * self.thin >= self.pixels
        values, pixels = self.values[found].tolist(), self.pixels[found].tolist()
        if self.colours:
            values = [(value & 255, value >> 8 & 255, value >> 16 & 255) for value in values]
        return dict(zip(values, pixels, strict=True))


def texture_of(label: bytes, colours: bool = False) -> Texture | None:
    """None if it is no picture. `colours`: as RGB, a palette looked up."""
    try:
        picture = load(label)
    except ValueError:
        return None
    return texture(picture.convert("RGB") if colours and picture.mode != "RGB" else picture)


def numbers(picture: Image.Image) -> NDArray[np.generic]:
    """A picture as one number a pixel, H×W: its only channel, or red + green · 2⁸ + blue · 2¹⁶ + …"""
    array = np.asarray(picture)
    if array.ndim == 2:
        return array
    return (array.astype(np.uint32) << np.arange(0, 8 * array.shape[2], 8, dtype=np.uint32)).sum(axis=2)


def texture(picture: Image.Image) -> Texture:
    """How a loaded picture looks."""
    array = numbers(picture)
    across, down = array[:, 1:] == array[:, :-1], array[1:] == array[:-1]
    alone = np.ones((2, *array.shape), bool)
    alone[0, :, 1:] &= ~across
    alone[0, :, :-1] &= ~across
    alone[1, 1:] &= ~down
    alone[1, :-1] &= ~down
    values, place, pixels = np.unique(array, return_inverse=True, return_counts=True)
    thin = np.bincount(place.reshape(array.shape)[alone.any(axis=0)], minlength=len(values))
    return Texture(values, pixels, thin, float(across.mean()) if across.size else 1.0, len(picture.getbands()) > 1)


def looks_even(image: bytes) -> bool:
    """Whether an image looks like a label."""
    texture = texture_of(image)
    return texture is not None and not texture.is_photo
