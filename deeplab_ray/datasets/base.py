"""What a dataset is: classes, colours, what the values in its label files mean, and where its files lie."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from deeplab_ray.storage.location import Location

IGNORE = 255
"""Train id of pixels that take no part in training and measuring."""

# Where a PNG says how many bits a sample has, and how it ends.
_PNG_BIT_DEPTH, _PNG_END = 24, b"IEND\xaeB`\x82"


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
    """(folder, split) → the split's pairs, sorted by id; UserError where the split is not there."""
    unlabelled: tuple[str, ...] = ()
    """Splits whose labels are not public."""

    @cached_property
    def _train_ids(self) -> np.ndarray:
        """int16 [256]: value in a label file → train id, −1 where the table has none."""
        table = np.full(256, -1, np.int16)
        table[list(self.label_values)] = list(self.label_values.values())
        return table

    @cached_property
    def _raw_values(self) -> np.ndarray:
        """int16 [256]: train id → value in a label file, −1 where the table has none."""
        table = np.full(256, -1, np.int16)
        for raw, train_id in reversed(self.label_values.items()):
            table[train_id] = raw
        return table

    @cached_property
    def _colours(self) -> np.ndarray:
        table = np.zeros((256, 3), np.uint8)
        table[: len(self.palette)] = self.palette
        return table

    def decode_label(self, data: bytes) -> np.ndarray:
        """A label file's bytes → train ids, uint8 H×W.

        Raises ValueError with a short reason: unreadable or truncated; no 8-bit single-channel or palette
        PNG; a value outside the table.
        """
        image = _load(data)
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

    def encode_label(self, train_ids: np.ndarray) -> bytes:
        """Train ids, uint8 H×W → a single-channel PNG in the dataset's own values (what a benchmark takes).

        IGNORE becomes the dataset's own void. Raises ValueError for a train id that is no class of it.
        """
        raw = self._raw_values[train_ids]
        if (raw < 0).any():
            raise ValueError(f"train id {train_ids[raw < 0][0]} is no class of {self.name}")
        file = io.BytesIO()
        Image.fromarray(raw.astype(np.uint8)).save(file, "PNG")
        return file.getvalue()

    def colourise(self, train_ids: np.ndarray) -> np.ndarray:
        """Train ids, uint8 H×W → uint8 RGB H×W×3 in the dataset's palette; IGNORE is black."""
        return self._colours[train_ids]


def decode_image(data: bytes) -> np.ndarray:
    """An image file's bytes → uint8 RGB H×W×3. ValueError with a short reason if unreadable or truncated."""
    image = _load(data)
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"image has more than 8 bits a channel (mode {image.mode})")
    return np.asarray(image.convert("RGB"))


def _load(data: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except Image.UnidentifiedImageError:
        raise ValueError(f"not an image ({len(data)} bytes)") from None
    except Exception as error:  # broken bytes raise almost anything in Pillow's decoders
        raise ValueError(f"unreadable: {error}") from error
    # Pillow does without the end.
    if image.format == "PNG" and data.rfind(_PNG_END) < 0:
        raise ValueError(f"unreadable: PNG of {len(data)} bytes is truncated")
    return image


def match_pairs(images: dict[str, str], labels: dict[str, str], image_of: Callable[[str], str]) -> list[Pair]:
    """Pair images with labels ({id: path} each). A label without image gets the path `image_of(id)` where its
    image should be, so that whoever reads it finds it missing."""
    ids = sorted(images.keys() | labels.keys())
    return [Pair(id, images.get(id) or image_of(id), labels.get(id)) for id in ids]
