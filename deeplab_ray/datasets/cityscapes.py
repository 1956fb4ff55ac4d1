"""Cityscapes, fine annotations: one table of labels, and the reader of its folder layout.

Where an image has no _labelIds.png its _polygons.json is drawn, as the dataset's own scripts do it.

Cordts et al.: The Cityscapes dataset for semantic urban scene understanding, CVPR 2016. Label ids are what
the label files hold and the benchmark takes; train ids are what a network learns.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from deeplab_ray.datasets.base import Dataset, MissingSplitError, Pair, match_pairs, name_unused, walk
from deeplab_ray.datasets.by_content import ByContent
from deeplab_ray.datasets.formats import Index, Look, Value
from deeplab_ray.errors import UserError, quote
from deeplab_ray.labels import IGNORE
from deeplab_ray.storage.location import Location


class Label(NamedTuple):
    name: str
    id: int
    train_id: int
    colour: tuple[int, int, int]


LABELS = (
    Label("unlabeled", 0, IGNORE, (0, 0, 0)),
    Label("ego vehicle", 1, IGNORE, (0, 0, 0)),
    Label("rectification border", 2, IGNORE, (0, 0, 0)),
    Label("out of roi", 3, IGNORE, (0, 0, 0)),
    Label("static", 4, IGNORE, (0, 0, 0)),
    Label("dynamic", 5, IGNORE, (111, 74, 0)),
    Label("ground", 6, IGNORE, (81, 0, 81)),
    Label("road", 7, 0, (128, 64, 128)),
    Label("sidewalk", 8, 1, (244, 35, 232)),
    Label("parking", 9, IGNORE, (250, 170, 160)),
    Label("rail track", 10, IGNORE, (230, 150, 140)),
    Label("building", 11, 2, (70, 70, 70)),
    Label("wall", 12, 3, (102, 102, 156)),
    Label("fence", 13, 4, (190, 153, 153)),
    Label("guard rail", 14, IGNORE, (180, 165, 180)),
    Label("bridge", 15, IGNORE, (150, 100, 100)),
    Label("tunnel", 16, IGNORE, (150, 120, 90)),
    Label("pole", 17, 5, (153, 153, 153)),
    Label("polegroup", 18, IGNORE, (153, 153, 153)),
    Label("traffic light", 19, 6, (250, 170, 30)),
    Label("traffic sign", 20, 7, (220, 220, 0)),
    Label("vegetation", 21, 8, (107, 142, 35)),
    Label("terrain", 22, 9, (152, 251, 152)),
    Label("sky", 23, 10, (70, 130, 180)),
    Label("person", 24, 11, (220, 20, 60)),
    Label("rider", 25, 12, (255, 0, 0)),
    Label("car", 26, 13, (0, 0, 142)),
    Label("truck", 27, 14, (0, 0, 70)),
    Label("bus", 28, 15, (0, 60, 100)),
    Label("caravan", 29, IGNORE, (0, 0, 90)),
    Label("trailer", 30, IGNORE, (0, 0, 110)),
    Label("train", 31, 16, (0, 80, 100)),
    Label("motorcycle", 32, 17, (0, 0, 230)),
    Label("bicycle", 33, 18, (119, 11, 32)),
    Label("license plate", -1, IGNORE, (0, 0, 142)),
)
"""All labels, in the order of their ids, as in the benchmark's own table (its license plate has train id −1,
which is never learnt or measured either, and as a byte its id is 255)."""

LABEL_OF_NAME = {label.name: label for label in LABELS}
LABEL_OF_TRAIN_ID = {label.train_id: label for label in reversed(LABELS)}
"""Train id → label; IGNORE → unlabeled, the first of the void ones."""

_IMAGE = "_leftImg8bit.png"
_IDS, _POLYGONS = "_labelIds.png", "_polygons.json"
# What else the label folders hold.
_OTHERS = ("_color.png", "_instanceIds.png", "_labelTrainIds.png", "_instanceTrainIds.png", _IDS, _POLYGONS)
_GROUP = "group"


@dataclass(frozen=True)
class Polygons:
    """JSON files of polygons with labels' names, drawn one over the other; what none covers is "unlabeled"."""

    def look(self, data: bytes, height: int, width: int, drawn: Any) -> Look:
        ids = _draw(data)
        values, counts = np.unique(ids, return_counts=True)
        found: dict[Value, int] = {int(values[i]): int(counts[i]) for i in np.argsort(-counts, kind="stable")}
        rows, columns = ids.shape
        return Look("Cityscapes JSON", rows, columns, found, len(values))

    def train_id(self, value: Value) -> int | None:
        return LABEL_VALUES.get(value) if isinstance(value, int) else None

    def decode(self, data: bytes, height: int, width: int, drawn: Any) -> NDArray[np.uint8]:
        return _TRAIN_IDS[_draw(data)]


def _draw(data: bytes) -> NDArray[np.uint8]:
    """Ids, uint8 H×W. ValueError if it is no such file."""
    try:
        given = json.loads(data)
        height, width, things = int(given["imgHeight"]), int(given["imgWidth"]), given["objects"]
        picture = Image.new("L", (width, height), LABEL_OF_NAME["unlabeled"].id)
        draw = ImageDraw.Draw(picture)
        for thing in things:
            name = thing["label"] if thing["label"] in LABEL_OF_NAME else thing["label"].removesuffix(_GROUP)
            if name not in LABEL_OF_NAME:
                raise ValueError(f"label has a polygon {name!r}, which is none of Cityscapes' labels")
            # The license plate, whose id is negative, is not drawn.
            if not thing.get("deleted") and LABEL_OF_NAME[name].id >= 0:
                draw.polygon([(x, y) for x, y in thing["polygon"]], fill=LABEL_OF_NAME[name].id)
    except json.JSONDecodeError as error:
        raise ValueError(f"label is no JSON: {error}") from None
    except (KeyError, TypeError, AttributeError, MemoryError, OverflowError) as error:
        raise ValueError(f"label is no JSON file of Cityscapes' polygons ({quote(error)})") from None
    return np.asarray(picture)


def read_pairs(source: Location, split: str, kind: str = "gtFine") -> list[Pair]:
    """leftImg8bit/<split>/<city>/<id>_leftImg8bit.png and gtFine/<split>/<city>/<id>_gtFine_labelIds.png, or
    …_polygons.json where that is missing. kind: gtFine or gtCoarse."""
    images = _files(source, "leftImg8bit", split, _IMAGE)
    labels = _files(source, kind, split, f"_{kind}{_POLYGONS}") | _files(source, kind, split, f"_{kind}{_IDS}")
    if not images and not labels:
        raise MissingSplitError(
            f"no leftImg8bit/{split}/<city>/*{_IMAGE} below {source}: --source is the folder that holds "
            f"leftImg8bit/ and {kind}/"
        )
    return match_pairs(images, labels, lambda id: f"leftImg8bit/{split}/{id.split('_')[0]}/{id}{_IMAGE}")


def _files(source: Location, tree: str, split: str, ending: str) -> dict[str, str]:
    """Id → path."""
    found: dict[str, str] = {}
    for file in walk(source / tree / split):
        if file.endswith(ending):
            id, path = file.rsplit("/", 1)[-1].removesuffix(ending), f"{tree}/{split}/{file}"
            if id in found:
                raise UserError(f"{found[id]} and {path} below {source} have one name: give each image its own")
            found[id] = path
    return found


def unused(source: Location, split: str, pairs: Sequence[Pair], kind: str = "gtFine") -> list[str]:
    """A line for each folder with files that are in no pair."""
    folders = (f"leftImg8bit/{split}", f"{kind}/{split}")
    return name_unused(source, folders, pairs, tuple(f"_{kind}{ending}" for ending in _OTHERS))


def _pairs(source: Location, split: str) -> list[Pair]:
    pairs = read_pairs(source, split)
    # The labels of the test images, which are there, say nothing.
    return [Pair(pair.id, pair.image, None) for pair in pairs] if split == "test" else pairs


_CLASSES = [LABEL_OF_TRAIN_ID[train_id] for train_id in range(19)]
CLASSES = tuple(label.name for label in _CLASSES)
PALETTE = tuple(label.colour for label in _CLASSES)
LABEL_VALUES = {label.id % 256: label.train_id for label in LABELS}
_TRAIN_IDS = np.full(256, IGNORE, np.uint8)
_TRAIN_IDS[list(LABEL_VALUES)] = list(LABEL_VALUES.values())
FORMAT = ByContent({"png": Index(LABEL_VALUES, "cityscapes"), "json": Polygons()})

DATASET = Dataset(
    name="cityscapes",
    title="Cityscapes fine, 19 classes: leftImg8bit/ + gtFine/ (labels of test are not public)",
    classes=CLASSES,
    palette=PALETTE,
    splits=("train", "val", "test"),
    label_values=LABEL_VALUES,
    pairs=_pairs,
    unlabelled=("test",),
    published={"train": 2975, "val": 500, "test": 1525},
    format=FORMAT,
    unused=unused,
)
