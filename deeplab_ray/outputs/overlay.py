"""The format for people: an image with its labels over it, and a legend of their colours."""

import io
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from deeplab_ray.labels import ClassTable
from deeplab_ray.outputs.names import safe_name
from deeplab_ray.outputs.prediction import Prediction
from deeplab_ray.storage.location import Location

BORDER = (255, 255, 255)
"""Colour of the lines between classes."""
LEGEND = "legend.png"
"""Beside the images, whose names all end with .jpg."""

_QUALITY = 90
_LARGEST = 65_500
# An image of so many rows has lines of two pixels, half of it on either side; a smaller one of one pixel.
_LARGE = 600
_ROWS = 24
_FONT_SIZE, _LINE, _GAP = 16, 28, 14
_SWATCH = (36, 20)


@dataclass(frozen=True)
class Overlay:
    """JPEG of the image with the classes' colours at half opacity, H×W, and a line along the classes' borders.

    Ignored pixels, and those of no class, show the image alone.
    """

    classes: ClassTable
    name = "overlay"

    def path(self, id: str) -> str:
        return f"{self.name}/{safe_name(id)}.jpg"

    def encode(self, prediction: Prediction) -> bytes:
        """Raises ValueError if the labels are not of the image's size, or larger than JPEG's 65,500 pixels a side."""
        image, labels = prediction.image, prediction.labels
        if image.shape != (*labels.shape, 3):
            raise ValueError(f"labels of {labels.shape} do not fit an image of {image.shape}")
        if max(labels.shape) > _LARGEST:
            raise ValueError(f"an image of {labels.shape} is too large for a JPEG, which has {_LARGEST} pixels a side")
        file = io.BytesIO()
        Image.fromarray(draw(image, labels, self.classes)).save(file, "JPEG", quality=_QUALITY)
        return file.getvalue()

    def finish(self, output: Location) -> str:
        """Write the legend, `overlay/legend.png`."""
        file = io.BytesIO()
        legend(self.classes).save(file, "PNG")
        target = output / self.name / LEGEND
        target.write_bytes(file.getvalue())
        return target.uri


def draw(image: NDArray[np.uint8], labels: NDArray[np.uint8], classes: ClassTable) -> NDArray[np.uint8]:
    """An image, uint8 RGB H×W×3, with labels, uint8 H×W train ids, over it as `Overlay` says."""
    blended = ((image.astype(np.uint16) + classes.colourise(labels) + 1) // 2).astype(np.uint8)
    pixels = np.where((labels < len(classes))[..., None], blended, image)
    pixels[_borders(labels)] = BORDER
    return pixels


def _borders(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return bool H×W: the pixels whose class is not that of the pixel above or to the left of them.

    In a large image those are taken, too, whose class is not that of the pixel below or to the right.
    """
    across, along = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    borders = np.zeros(labels.shape, np.bool_)
    borders[1:] |= across
    borders[:, 1:] |= along
    if labels.shape[0] >= _LARGE:
        borders[:-1] |= across
        borders[:, :-1] |= along
    return borders


def legend(classes: ClassTable) -> Image.Image:
    """Return an RGB picture of the classes' names beside their colours, in columns of at most 24, on white."""
    font = ImageFont.load_default(size=_FONT_SIZE)
    names = [" ".join(name.split()) for name in classes.names]
    rows = math.ceil(len(names) / math.ceil(len(names) / _ROWS))
    columns = [range(start, min(start + rows, len(names))) for start in range(0, len(names), rows)]
    wide, tall = _SWATCH
    widths = [wide + 10 + math.ceil(max(font.getlength(names[index]) for index in column)) for column in columns]
    picture = Image.new("RGB", (sum(widths) + (len(widths) + 1) * _GAP, rows * _LINE + 2 * _GAP), "white")
    draw = ImageDraw.Draw(picture)
    left = _GAP
    for column, width in zip(columns, widths, strict=True):
        for row, index in enumerate(column):
            top = _GAP + row * _LINE + (_LINE - tall) // 2
            draw.rectangle((left, top, left + wide - 1, top + tall - 1), classes.colours[index], (150, 150, 150))
            draw.text((left + wide + 10, top + tall // 2), names[index], "black", font, anchor="lm")
        left += width + _GAP
    return picture
