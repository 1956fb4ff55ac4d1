"""Pictures of single images beside their labels: for the page (data URIs) and for a README (one strip)."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deeplab_ray.labels import IGNORE, ClassTable
from deeplab_ray.report.scores import percent

PANELS = ("image", "truth", "network", "network + CRF")

STRIPE = (70, 70, 70)
"""Colour of the stripes that hatch ignored pixels on black."""


@dataclass(frozen=True)
class GalleryRow:
    """One image (uint8 RGB H×W×3), its labels (uint8 H×W train ids; crf None if none ran), its mean IoU.

    Mean IoU is in 0..1, over the classes of the image's truth, so that images can be ranked and compared.
    """

    id: str
    image: np.ndarray
    truth: np.ndarray
    network: np.ndarray
    crf: np.ndarray | None
    miou: float
    miou_crf: float | None

    @property
    def labels(self) -> list[tuple[np.ndarray, float | None]]:
        """Truth, network and, if it ran, CRF, each with its mean IoU in 0..1 (the truth has none)."""
        pairs: list[tuple[np.ndarray, float | None]] = [(self.truth, None), (self.network, self.miou)]
        return pairs if self.crf is None else [*pairs, (self.crf, self.miou_crf)]

    @property
    def final(self) -> float:
        """Mean IoU of the end result, after the CRF if it ran."""
        return self.miou if self.miou_crf is None else self.miou_crf

    @property
    def gain(self) -> float:
        """What the CRF added to the mean IoU; NaN if it did not run or there is no score."""
        return math.nan if self.miou_crf is None else self.miou_crf - self.miou


def worst_first(rows: Sequence[GalleryRow]) -> list[GalleryRow]:
    """The rows by rising score; those without one (nothing but ignored pixels) last."""
    return sorted(rows, key=lambda row: math.inf if math.isnan(row.final) else row.final)


def largest_loss_first(rows: Sequence[GalleryRow]) -> list[GalleryRow]:
    """The rows that the CRF lowered, by rising gain."""
    return sorted((row for row in rows if row.gain < 0), key=lambda row: row.gain)


def label_picture(train_ids: np.ndarray, classes: ClassTable, width: int | None = None) -> Image.Image:
    """Train ids, uint8 H×W, as a palette picture at most `width` pixels wide; ignored pixels are hatched."""
    ids = np.array(_shrunk(Image.fromarray(train_ids), width, Image.Resampling.NEAREST))
    y, x = np.indices(ids.shape)
    ids = np.where(ids == IGNORE, len(classes) + (x + y) // 4 % 2, ids).astype(np.uint8)
    picture = Image.fromarray(ids)
    picture.putpalette([value for colour in (*classes.colours, (0, 0, 0), STRIPE) for value in colour])
    return picture


def photograph(image: np.ndarray, width: int | None = None) -> Image.Image:
    """An image, uint8 H×W×3, at most `width` pixels wide."""
    return _shrunk(Image.fromarray(image), width, Image.Resampling.LANCZOS)


def data_uri(picture: Image.Image) -> str:
    """A palette picture as PNG, any other as JPEG, in a data URI."""
    data = io.BytesIO()
    if picture.mode == "P":
        picture.save(data, "PNG", optimize=True)
        kind = "png"
    else:
        picture.save(data, "JPEG", quality=85, optimize=True)
        kind = "jpeg"
    return file_uri(data.getvalue(), kind)


def file_uri(data: bytes, kind: str) -> str:
    """The bytes of a picture file of this kind ("png", "jpeg") in a data URI."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def gallery_strip(
    rows: Sequence[GalleryRow], classes: ClassTable, panel_width: int = 320, legend: bool = True
) -> Image.Image:
    """One RGB picture of the rows in their order: image | truth | network | network + CRF, with captions.

    The last column is left out if no row went through the CRF. panel_width: pixels of one panel.
    Raises ValueError without rows.
    """
    if not rows:
        raise ValueError("a strip needs at least one row")
    heads = PANELS[: 1 + max(len(row.labels) for row in rows)]
    gap, line = 8, 22
    heights = [round(panel_width * row.image.shape[0] / row.image.shape[1]) for row in rows]
    entries = [*zip(classes.names, classes.colours, strict=True), ("not counted", None)] if legend else []
    font = ImageFont.load_default(size=13)
    width = gap + len(heads) * (panel_width + gap)
    boxes = [22 + font.getlength(name) + 16 for name, _ in entries]
    places, legend_height = _flow(boxes, width - 2 * gap, line)

    strip = Image.new("RGB", (width, line + sum(heights) + line * len(rows) + gap + legend_height), "white")
    draw = ImageDraw.Draw(strip)
    columns = [gap + i * (panel_width + gap) for i in range(len(heads))]
    for x, title in zip(columns, heads, strict=True):
        draw.text((x, line // 2), title, "black", font, anchor="lm")
    top = line
    for row, height in zip(rows, heights, strict=True):
        panels = [(photograph(row.image), _fitted(row.id, font, panel_width))]
        for ids, miou in row.labels:
            panels.append((label_picture(ids, classes), "" if miou is None else f"IoU {percent(miou)} %"))
        for x, (panel, caption) in zip(columns, panels, strict=False):
            smooth = Image.Resampling.LANCZOS if panel.mode == "RGB" else Image.Resampling.NEAREST
            strip.paste(panel.resize((panel_width, height), smooth).convert("RGB"), (x, top))
            draw.text((x, top + height + line // 2), caption, (90, 90, 90), font, anchor="lm")
        top += height + line
    for (name, colour), (x, y) in zip(entries, places, strict=True):
        left, upper = gap + x, top + gap // 2 + y
        draw.rectangle((left, upper + 4, left + 14, upper + 18), colour or (0, 0, 0), (150, 150, 150))
        draw.text((left + 21, upper + 11), name, "black", font, anchor="lm")
    return strip


def _shrunk(picture: Image.Image, width: int | None, filter: Image.Resampling) -> Image.Image:
    if width is None or picture.width <= width:
        return picture
    return picture.resize((width, max(1, round(picture.height * width / picture.width))), filter)


def _fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text, its end cut off if it is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


def _flow(widths: Sequence[float], room: int, line: int) -> tuple[list[tuple[int, int]], int]:
    """Places (x, y) of boxes set like words in lines `room` wide, and the height of it all."""
    places, x, y = [], 0.0, 0
    for width in widths:
        if x and x + width > room:
            x, y = 0.0, y + line
        places.append((round(x), y))
        x += width
    return places, y + line + 4 if places else 0
