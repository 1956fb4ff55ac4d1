"""How label files say what each pixel is: reading them, and looking at them without knowing what they should hold."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deeplab_ray.images import MAX_PIXELS, load

Value = int | str | tuple[int, int, int]
"""What a label file holds for a pixel: a number, the name of a class, or an RGB colour."""

MOST_VALUES = 256
"""So many different values of a label are kept by `Look`, the most frequent."""

# Where a PNG says how many bits a sample has.
_PNG_BIT_DEPTH = 24


@dataclass(frozen=True)
class Look:
    """What a label file holds, whatever that means."""

    kind: str
    """What kind of file it is, such as "PNG of mode P"."""
    height: int
    """In pixels."""
    width: int
    counts: dict[Value, int]
    """Pixels of each value: of the MOST_VALUES most frequent ones, in falling order."""
    distinct: int
    """Number of different values."""


class LabelFormat(Protocol):
    """A way to keep labels. Picklable: it goes to the workers that prepare.

    `data` is the content of the pair's label file (empty if it has none of its own), `height` and `width` are those of
    its upright image in pixels, `drawn` is the pair's (see `base.Pair`).
    """

    def look(self, data: bytes, height: int, width: int, drawn: Any) -> Look:
        """Tell what a label holds. Raises ValueError with a short reason if it cannot be read at all."""

    def train_id(self, value: Value) -> int | None:
        """The train id that a value means (IGNORE among them); None if it means nothing here."""

    def decode(self, data: bytes, height: int, width: int, drawn: Any) -> NDArray[np.uint8]:
        """Read a label as train ids, uint8 H×W, of its own size.

        Raises ValueError with a short reason: it cannot be read, or it holds a value that means nothing here.
        """


def takes_nearest(format: LabelFormat) -> bool:
    """Whether values that mean nothing get the meaning of the nearest one, as far as they are borders: `snap`."""
    return bool(getattr(format, "snap", False))


@dataclass(frozen=True)
class Index:
    """PNGs of one channel of up to 8 bits, or with a palette, whose numbers are looked up in a table."""

    values: Mapping[int, int]
    """Value (0..255) → train id. Any other value is an error."""
    name: str = ""
    """Whose table it is, for messages."""

    @cached_property
    def _train_ids(self) -> NDArray[np.int16]:
        """int16 [256]: value → train id, −1 if the table has none."""
        table = np.full(256, -1, np.int16)
        table[list(self.values)] = list(self.values.values())
        return table

    def look(self, data: bytes, height: int, width: int, drawn: Any) -> Look:
        kind, raw = _index(data, height * width)
        counts = np.bincount(raw.ravel(), minlength=256)
        order = [int(value) for value in np.argsort(-counts, kind="stable") if counts[value]]
        rows, columns = raw.shape
        return Look(kind, rows, columns, {value: int(counts[value]) for value in order}, len(order))

    def train_id(self, value: Value) -> int | None:
        return self.values.get(value) if isinstance(value, int) else None

    def decode(self, data: bytes, height: int, width: int, drawn: Any) -> NDArray[np.uint8]:
        _, raw = _index(data, height * width)
        train_ids = self._train_ids[raw]
        unknown = train_ids < 0
        if unknown.any():
            values, counts = np.unique(raw[unknown], return_counts=True)
            more = f", nor are {len(values) - 1} other values" if len(values) > 1 else ""
            raise ValueError(f"label value {values[0]} ({counts[0]} pixels) is not in {self.name}'s table{more}")
        return train_ids.astype(np.uint8)


def _index(data: bytes, pixels: int) -> tuple[str, NDArray[np.uint8]]:
    """What kind of file it is, and the numbers that it stores, uint8 H×W. It may be as large as its image is."""
    image = load(data, max(pixels, MAX_PIXELS))
    kind = f"{image.format} of mode {image.mode}"
    if image.format != "PNG" or image.mode not in ("1", "L", "P"):
        raise ValueError(f"label is {kind}, not an 8-bit single-channel or palette PNG")
    raw = np.asarray(image).astype(np.uint8)
    if image.mode == "L":
        # Pillow stretches grey values of 2 or 4 bits to 0..255.
        raw = raw // (255 // (2 ** data[_PNG_BIT_DEPTH] - 1))
    return kind, raw
