"""Labels whose colours say what each pixel is."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deeplab_ray.datasets.colour_map import Colour
from deeplab_ray.datasets.formats import MOST_VALUES, Look, Value
from deeplab_ray.images import MAX_PIXELS, load

_READ = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
# Compression moves a colour by so much in a channel; smoothing, which goes further, is as wide as this.
_CLOSE = 16
_AROUND = 5
# A colour that is no class's and fills such squares is no border, but a class that was not named.
_SQUARE = 7
_FAR = 48


@dataclass(frozen=True)
class Colours:
    """Pictures in RGB, grey or with a palette, whose colours are looked up in a table. Transparency is dropped.

    With `snap` a pixel of another colour has the class of the nearest colour, if that is within 16 in each channel; if
    not, it takes the nearest of those colours which the 5×5 pixels around it have, so that a smoothed border between
    two classes does not become a line of a third.
    """

    train_ids: Mapping[Colour, int]
    """RGB → train id."""
    snap: bool = False

    @cached_property
    def _codes(self) -> NDArray[np.uint32]:
        """[K] the colours in rising order, each as one number."""
        return np.array(sorted(map(_code, self.train_ids)), np.uint32)

    @cached_property
    def _ids(self) -> NDArray[np.uint8]:
        """uint8 [K] their train ids."""
        return np.array([self.train_ids[_colour(int(code))] for code in self._codes], np.uint8)

    def look(self, data: bytes, height: int, width: int, drawn: Any) -> Look:
        kind, pixels = _read(data, height * width)
        rows, columns = pixels.shape[:2]
        runs, lengths = _runs(_codes_of(pixels))
        values, places = np.unique(runs, return_inverse=True)
        counts = np.bincount(places, lengths).astype(np.int64)
        order = np.argsort(-counts, kind="stable")[:MOST_VALUES]
        found: dict[Value, int] = {_colour(int(values[i])): int(counts[i]) for i in order}
        return Look(kind, rows, columns, found, len(values))

    def train_id(self, value: Value) -> int | None:
        return self.train_ids.get(value) if isinstance(value, tuple) else None

    def decode(self, data: bytes, height: int, width: int, drawn: Any) -> NDArray[np.uint8]:
        _, pixels = _read(data, height * width)
        codes = _codes_of(pixels)
        runs, lengths = _runs(codes)
        # [H, W] place among the K colours.
        places = np.searchsorted(self._codes, runs).clip(max=len(self._codes) - 1).repeat(lengths).reshape(codes.shape)
        other = self._codes[places] != codes
        if other.any():
            if not self.snap:
                values, counts = np.unique(codes[other], return_counts=True)
                raise ValueError(_unknown(values, counts))
            places[other] = self._snapped(pixels, codes, places, other)
        return self._ids[places]

    def _snapped(
        self, pixels: NDArray[np.uint8], codes: NDArray[np.uint32], places: NDArray[np.int64], other: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """[M] places among the K colours of the M pixels that have another colour."""
        colours = np.array([_colour(int(code)) for code in self._codes], np.int16)
        # [M, K] greatest difference in a channel, and the sum of squares.
        difference = np.abs(pixels[other].astype(np.int16)[:, None] - colours)
        greatest, squares = difference.max(axis=2), (difference.astype(np.int32) ** 2).sum(axis=2)
        nearest = squares.argmin(axis=1)
        is_close = greatest[np.arange(len(nearest)), nearest] <= _CLOSE
        _refuse_areas(codes, other, greatest.min(axis=1) > _FAR)
        settled = np.where(other, -1, places)
        settled[other] = np.where(is_close, nearest, -1)
        near = np.stack(
            [ndimage.maximum_filter(settled == place, _AROUND)[other] for place in range(len(colours))], axis=1
        )
        around = np.where(near, squares, np.iinfo(np.int32).max).argmin(axis=1)
        return np.where(is_close | ~near.any(axis=1), nearest, around)


def _refuse_areas(codes: NDArray[np.uint32], other: NDArray[np.bool_], is_far: NDArray[np.bool_]) -> None:
    """Raise ValueError if colours that are far from all classes fill areas."""
    far = other.copy()
    far[other] = is_far
    if not far.any():
        return
    even = ndimage.maximum_filter(codes, _SQUARE) == ndimage.minimum_filter(codes, _SQUARE)
    if (far & even).any():
        values, counts = np.unique(codes[far & even], return_counts=True)
        raise ValueError(f"{_unknown(values, counts)}, which fills areas and is no border")


def _unknown(values: NDArray[np.uint32], counts: NDArray[np.int64]) -> str:
    most = int(counts.argmax())
    red, green, blue = _colour(int(values[most]))
    more = f", nor are {len(values) - 1} other colours" if len(values) > 1 else ""
    return f"label colour #{red:02x}{green:02x}{blue:02x} ({counts[most]} pixels) is no class's{more}"


def _read(data: bytes, pixels: int) -> tuple[str, NDArray[np.uint8]]:
    """What kind of file it is, and its colours, uint8 H×W×3. It may be as large as its image is."""
    image = load(data, max(pixels, MAX_PIXELS))
    kind = f"{image.format} of mode {image.mode}"
    if image.mode not in _READ:
        raise ValueError(f"label is {kind}, which has no 8-bit colours")
    # With it Pillow warns that the alpha of a palette goes.
    image.info.pop("transparency", None)
    return kind, np.asarray(image.convert("RGB"))


def _codes_of(pixels: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Colours, uint8 H×W×3, as one number each, H×W."""
    red, green, blue = np.moveaxis(pixels.astype(np.uint32), 2, 0)
    return (red << np.uint32(16)) | (green << np.uint32(8)) | blue


def _runs(codes: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """The values of runs of equal pixels, row by row, and their lengths: of a label there are few."""
    flat = codes.ravel()
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    return flat[starts], np.diff(starts, append=flat.size)


def _code(colour: Colour) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _colour(code: int) -> Colour:
    return code >> 16, code >> 8 & 255, code & 255
