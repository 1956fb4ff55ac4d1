"""Labels that are drawn: shapes with names, in LabelMe's JSON files or in a COCO file. Later ones lie over earlier."""

import base64
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pycocotools import mask as rle

from deeplab_ray.datasets.formats import Look, Value
from deeplab_ray.images import load
from deeplab_ray.labels import IGNORE

BACKGROUND = "background"
"""What lies below all shapes. If no class is called so, it is ignored."""

# What LabelMe itself calls it, and how thick it draws what has no area, in pixels.
_LABELME_BACKGROUND = "_background_"
_LINE_WIDTH, _POINT_RADIUS = 10, 5


class _Area(NamedTuple):
    name: str
    mask: NDArray[np.bool_]
    """H×W"""


@dataclass(frozen=True)
class _Named(ABC):
    """Labels made of areas with names."""

    train_ids: Mapping[str, int]
    """Name → train id; empty while the classes are still to be found."""

    kind = ""

    @cached_property
    def _known(self) -> dict[str, int]:
        below = {BACKGROUND: IGNORE} if self.train_ids else {}
        return below | {_plain(name): train_id for name, train_id in self.train_ids.items()}

    def look(self, data: bytes, height: int, width: int, drawn: Any) -> Look:
        names, places = self._draw(data, height, width, drawn)
        counts = np.bincount(places.ravel(), minlength=len(names))
        found: dict[Value, int] = {names[i]: int(counts[i]) for i in np.argsort(-counts, kind="stable") if counts[i]}
        rows, columns = places.shape
        return Look(self.kind, rows, columns, found, len(found))

    def train_id(self, value: Value) -> int | None:
        return self._known.get(value) if isinstance(value, str) else None

    def decode(self, data: bytes, height: int, width: int, drawn: Any) -> NDArray[np.uint8]:
        names, places = self._draw(data, height, width, drawn)
        counts = np.bincount(places.ravel(), minlength=len(names))
        unknown = [i for i, name in enumerate(names) if counts[i] and name not in self._known]
        if unknown:
            more = f", nor are {len(unknown) - 1} others" if len(unknown) > 1 else ""
            raise ValueError(f"{names[unknown[0]]!r} ({counts[unknown[0]]} pixels) is not among the classes{more}")
        return np.array([self._known.get(name, IGNORE) for name in names], np.uint8)[places]

    def _draw(self, data: bytes, height: int, width: int, drawn: Any) -> tuple[list[str], NDArray[np.int32]]:
        """Names, and the place among them of each pixel's, H×W."""
        height, width, areas = self._areas(data, height, width, drawn)
        names, places = {BACKGROUND: 0}, np.zeros((height, width), np.int32)
        for area in areas:
            places[area.mask] = names.setdefault(_plain(area.name), len(names))
        return list(names), places

    @abstractmethod
    def _areas(self, data: bytes, height: int, width: int, drawn: Any) -> tuple[int, int, Iterator[_Area]]:
        """The label's own height and width, and its areas in the order in which they are drawn."""


class LabelMe(_Named):
    """A JSON file of LabelMe for each image, drawn by Pillow as LabelMe itself does.

    Polygons, rectangles, circles and masks are filled; lines are 10 pixels wide, points have a radius of 5.
    """

    kind = "LabelMe JSON"

    def _areas(self, data: bytes, height: int, width: int, drawn: Any) -> tuple[int, int, Iterator[_Area]]:
        try:
            given = json.loads(data)
        except ValueError as error:
            raise ValueError(f"label is no JSON: {error}") from None
        if not isinstance(given, dict) or not isinstance(given.get("shapes"), list):
            hint = ": it looks like COCO's, give --labels FILE" if isinstance(given, dict) and "images" in given else ""
            raise ValueError(f"label is a JSON file without LabelMe's shapes{hint}")
        try:
            height, width = int(given.get("imageHeight") or height), int(given.get("imageWidth") or width)
        except (TypeError, ValueError):
            raise ValueError("label has an imageHeight or imageWidth that is no number") from None
        return height, width, (_labelme_area(shape, height, width) for shape in given["shapes"])


class Coco(_Named):
    """Polygons and run lengths of a COCO file, drawn by pycocotools; `drawn` is what `coco_file.read` makes of it."""

    kind = "COCO JSON"

    def _areas(self, data: bytes, height: int, width: int, drawn: Any) -> tuple[int, int, Iterator[_Area]]:
        height, width = drawn["size"]
        return (
            height,
            width,
            (_Area(name, _coco_mask(segmentation, height, width)) for name, segmentation in drawn["shapes"]),
        )


def _plain(name: str) -> str:
    return BACKGROUND if name == _LABELME_BACKGROUND else name


def _labelme_area(shape: Any, height: int, width: int) -> _Area:
    try:
        name, kind = str(shape["label"]), shape.get("shape_type") or "polygon"
        points = [(float(x), float(y)) for x, y in shape["points"]]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValueError("label has a shape without a label or points") from None
    picture = Image.new("1", (width, height))
    draw = ImageDraw.Draw(picture)
    if kind == "polygon" and len(points) >= 3:
        draw.polygon(points, fill=1, outline=1)
    elif kind == "rectangle" and len(points) >= 2:
        xs, ys = zip(*points, strict=True)
        draw.rectangle((min(xs), min(ys), max(xs), max(ys)), fill=1, outline=1)
    elif kind == "circle" and len(points) == 2:
        draw.ellipse(_square(points[0], math.dist(*points)), fill=1, outline=1)
    elif kind in ("line", "linestrip") and len(points) >= 2:
        draw.line(points, fill=1, width=_LINE_WIDTH)
    elif kind == "point" and len(points) == 1:
        draw.ellipse(_square(points[0], _POINT_RADIUS), fill=1, outline=1)
    elif kind == "mask" and points:
        picture.paste(_stored_mask(shape.get("mask")), (round(points[0][0]), round(points[0][1])))
    else:
        raise ValueError(f"label has a shape {kind!r} of {len(points)} points ({name!r}), which cannot be drawn")
    return _Area(name, np.asarray(picture))


def _square(centre: tuple[float, float], radius: float) -> tuple[float, float, float, float]:
    x, y = centre
    return x - radius, y - radius, x + radius, y + radius


def _stored_mask(text: Any) -> Image.Image:
    try:
        return load(base64.b64decode(text)).convert("1")
    except (TypeError, ValueError):
        raise ValueError("label has a mask that is no picture") from None


def _coco_mask(segmentation: Any, height: int, width: int) -> NDArray[np.bool_]:
    try:
        if isinstance(segmentation, dict):
            if list(segmentation["size"]) != [height, width]:
                raise ValueError(f"run lengths for {segmentation['size']} pixels")
            packed = isinstance(segmentation["counts"], str | bytes)
            codes = segmentation if packed else rle.frPyObjects(segmentation, height, width)
        else:
            codes = rle.merge(rle.frPyObjects(segmentation, height, width))
        return rle.decode(codes).astype(bool)
    except Exception as error:  # broken run lengths raise almost anything in pycocotools
        raise ValueError(f"a segmentation cannot be drawn: {str(error) or type(error).__name__}") from error
