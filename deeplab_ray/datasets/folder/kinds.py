"""What label pictures are, numbers or colours, by the first of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from deeplab_ray.datasets.colour_map import Colour
from deeplab_ray.images import load
from deeplab_ray.storage.location import Location
from deeplab_ray.storage.patience import with_patience

_LOOKED_AT = 8
# Greys that are further apart were chosen as colours, such as black and white.
_APART = 16


@dataclass(frozen=True)
class Kind:
    """What the first label pictures are."""

    modes: Counter[str] = field(default_factory=Counter)
    """Labels of each of Pillow's modes; RGB that is grey, of numbers as they are counted, is L."""
    palette: dict[int, Colour] = field(default_factory=dict)
    """What the palettes say of the numbers."""

    @property
    def is_coloured(self) -> bool:
        """Whether most have colours and no numbers."""
        coloured = sum(self.modes[mode] for mode in ("RGB", "RGBA", "CMYK", "YCbCr"))
        return 2 * coloured > self.modes.total()

    def has_colours(self, colours: Sequence[Colour | None]) -> bool:
        """Whether these may be what tells classes apart, though the labels hold numbers: they are in the palettes, or
        they are greys."""
        if self.palette:
            return bool(set(self.palette.values()) & (set(colours) - {(0, 0, 0)}))
        return all(colour is not None and len(set(colour)) == 1 for colour in colours)


def look(labels: Sequence[Location]) -> Kind:
    """Look at some label pictures, evenly spread; what cannot be read is passed over: it is told when all are read."""
    kind = Kind()
    for at in range(0, len(labels), -(-len(labels) // _LOOKED_AT) if labels else 1):
        try:
            picture = load(with_patience(labels[at].read_bytes, labels[at]))
        except (OSError, ValueError):
            continue
        kind.modes[_mode(picture)] += 1
        if picture.mode == "P":
            colours = np.array(picture.getpalette("RGB") or []).reshape(-1, 3).tolist()
            for number, (red, green, blue) in enumerate(colours):
                kind.palette.setdefault(number, (red, green, blue))
    return kind


def _mode(picture: Image.Image) -> str:
    if picture.mode != "RGB":
        return picture.mode
    red, green, blue = (np.asarray(band) for band in picture.split())
    greys = np.unique(red)
    counted = len(greys) > 1 and np.diff(greys).min() < _APART
    return "L" if counted and (red == green).all() and (green == blue).all() else "RGB"
