"""What a dataset is: classes, colours, what the values in its label files mean, and where its files lie.

Datasets exist for preparing alone: a prepared set describes itself (see `deeplab_ray.shards`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from deeplab_ray.images import load
from deeplab_ray.labels import IGNORE, ClassTable
from deeplab_ray.storage.location import Location

# Where a PNG says how many bits a sample has.
_PNG_BIT_DEPTH = 24


@dataclass(frozen=True)
class Pair:
    """An image and its label, as paths relative to the dataset's folder."""

    id: str
    image: str
    label: str | None
    """None: the image has no label file."""


@dataclass(frozen=True)
class Dataset:
    """One dataset; the whole truth about its labels. Train ids are 0..C−1 and IGNORE."""

    name: str
    title: str
    """One line for --help."""
    classes: tuple[str, ...]
    """Name of each of the C train ids."""
    palette: tuple[tuple[int, int, int], ...]
    """RGB colour of each of the C train ids."""
    splits: tuple[str, ...]
    label_values: dict[int, int]
    """Value in a label file (0..255) → train id. Any other value is an error. Of several values with the same
    train id the first is the one that is written."""
    pairs: Callable[[Location, str], list[Pair]]
    """(folder, split) → the split's pairs, sorted by id; UserError if the split is not there."""
    unlabelled: tuple[str, ...] = ()
    """Splits whose labels are not public: their images are prepared without."""

    @cached_property
    def table(self) -> ClassTable:
        """The classes as a prepared set keeps them."""
        first = {train_id: raw for raw, train_id in reversed(self.label_values.items())}
        free = (value for value in range(255, -1, -1) if value not in self.label_values)
        return ClassTable(
            names=self.classes,
            colours=self.palette,
            values=tuple(first[train_id] for train_id in range(len(self.classes))),
            ignore_value=first[IGNORE] if IGNORE in first else next(free),
        )

    @cached_property
    def _train_ids(self) -> NDArray[np.int16]:
        """int16 [256]: value in a label file → train id, −1 if the table has none."""
        table = np.full(256, -1, np.int16)
        table[list(self.label_values)] = list(self.label_values.values())
        return table

    def decode_label(self, data: bytes) -> NDArray[np.uint8]:
        """A label file's bytes → train ids, uint8 H×W.

        Raises ValueError with a short reason: unreadable or truncated; no 8-bit single-channel or palette
        PNG; a value outside the table.
        """
        image = load(data)
        if image.format != "PNG" or image.mode not in ("L", "P"):
            raise ValueError(
                f"label is {image.format} of mode {image.mode}, not an 8-bit single-channel or palette PNG"
            )
        raw = np.asarray(image)
        if image.mode == "L":
            # Pillow stretches grey values of 2 or 4 bits to 0..255.
            raw = raw // (255 // (2 ** data[_PNG_BIT_DEPTH] - 1))
        train_ids = self._train_ids[raw]
        unknown = train_ids < 0
        if unknown.any():
            values, counts = np.unique(raw[unknown], return_counts=True)
            more = f", nor are {len(values) - 1} other values" if len(values) > 1 else ""
            found = f"label value {values[0]} ({counts[0]} pixels)"
            raise ValueError(f"{found} is not in {self.name}'s table{more}")
        return train_ids.astype(np.uint8)


def match_pairs(images: dict[str, str], labels: dict[str, str], image_of: Callable[[str], str]) -> list[Pair]:
    """Pair images with labels ({id: path} each). A label without image gets the path `image_of(id)` where its
    image should be, so that whoever reads it finds it missing."""
    ids = sorted(images.keys() | labels.keys())
    return [Pair(id, images.get(id) or image_of(id), labels.get(id)) for id in ids]
