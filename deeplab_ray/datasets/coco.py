"""COCO's instances, drawn as VOC's 20 classes and background: what networks are trained on before VOC.

Lin et al.: Microsoft COCO, ECCV 2014. Polygons and run lengths are drawn by pycocotools; 20 of the 80 things are VOC's,
the other 60 are background. Pixels that things of two classes claim are ignored, as in torchvision's reference, and so
are regions of crowds (iscrowd) where no single thing was drawn: these are only roughly what they are called.
`prepare.py coco --min-object-pixels 1000` leaves out images with little in them, as that reference does.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from deeplab_ray.datasets import coco_json, voc
from deeplab_ray.datasets.base import Dataset, MissingSplitError, Pair
from deeplab_ray.datasets.formats import Look, Value
from deeplab_ray.errors import UserError, quote
from deeplab_ray.labels import IGNORE
from deeplab_ray.storage.location import Location

CATEGORIES = {
    1: ("person", "person"),
    2: ("bicycle", "bicycle"),
    3: ("car", "car"),
    4: ("motorcycle", "motorbike"),
    5: ("airplane", "aeroplane"),
    6: ("bus", "bus"),
    7: ("train", "train"),
    9: ("boat", "boat"),
    16: ("bird", "bird"),
    17: ("cat", "cat"),
    18: ("dog", "dog"),
    19: ("horse", "horse"),
    20: ("sheep", "sheep"),
    21: ("cow", "cow"),
    44: ("bottle", "bottle"),
    62: ("chair", "chair"),
    63: ("couch", "sofa"),
    64: ("potted plant", "pottedplant"),
    67: ("dining table", "diningtable"),
    72: ("tv", "tvmonitor"),
}
"""COCO's number of a category → its name there and in VOC."""
_TRAIN_IDS = {number: voc.CLASSES.index(name) for number, (_, name) in CATEGORIES.items()}
_PLACES = ("", "images/")


@dataclass(frozen=True)
class _Things:
    """What is drawn: {"size": (height, width), "things": [(train id, run lengths as pycocotools packs them), …]}.

    IGNORE stands for a crowd; a text instead of run lengths says why a thing cannot be drawn.
    """

    def look(self, data: bytes, height: int, width: int, drawn: Any) -> Look:
        label = self.decode(data, height, width, drawn)
        counts = np.bincount(label.ravel(), minlength=256)
        order = [int(value) for value in np.argsort(-counts, kind="stable") if counts[value]]
        found: dict[Value, int] = {value: int(counts[value]) for value in order}
        rows, columns = label.shape
        return Look("COCO JSON", rows, columns, found, len(found))

    def train_id(self, value: Value) -> int | None:
        return voc.LABEL_VALUES.get(value) if isinstance(value, int) else None

    def decode(self, data: bytes, height: int, width: int, drawn: Any) -> NDArray[np.uint8]:
        label, crowds, claimed_twice = (np.zeros(drawn["size"], kind) for kind in (np.uint8, bool, bool))
        for train_id, runs in drawn["things"]:
            mask = _unpack(runs, drawn["size"])
            if train_id == IGNORE:
                crowds |= mask
            else:
                claimed_twice |= mask & (label != 0) & (label != train_id)
                label[mask] = train_id
        label[(crowds & (label == 0)) | claimed_twice] = IGNORE
        return label


def _unpack(runs: bytes | str, size: tuple[int, int]) -> NDArray[np.bool_]:
    if isinstance(runs, str):
        raise ValueError(runs)
    try:
        return rle.decode({"size": list(size), "counts": runs}).astype(bool)
    except Exception as error:  # broken run lengths raise almost anything in pycocotools
        raise ValueError(f"a segmentation cannot be drawn ({quote(error)})") from None


def _pack(segmentation: Any, height: int, width: int) -> bytes | str:
    """A thing's polygons or run lengths as pycocotools packs them: some 100 bytes. A text: why that cannot be."""
    try:
        if not isinstance(segmentation, dict):
            packed = rle.merge(rle.frPyObjects(segmentation, height, width))
        elif list(segmentation["size"]) != [height, width]:
            return f"a segmentation is for {segmentation['size']} pixels, not [{height}, {width}]"
        elif isinstance(segmentation["counts"], list):
            packed = rle.frPyObjects(segmentation, height, width)
        else:
            packed = segmentation
        runs = packed["counts"]
        return runs.encode() if isinstance(runs, str) else runs
    except Exception as error:  # broken polygons raise almost anything in pycocotools
        return f"a segmentation cannot be drawn ({quote(error)})"


def _pairs(year: int, source: Location, split: str) -> list[Pair]:
    file = source / f"annotations/instances_{split}{year}.json"
    if not file.is_file():
        raise MissingSplitError(
            f"no annotations/instances_{split}{year}.json below {source}: --source is the folder that holds "
            f"annotations/ and {split}{year}/"
        )
    folders = [f"{place}{split}{year}" for place in _PLACES]
    folder = next((folder for folder in folders if (source / folder).exists()), folders[0])
    try:
        names, drawn = _read(file.read_bytes().decode())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is no list of COCO's instances ({quote(error)}): copy it again") from None
    pairs = [Pair(name.rsplit(".", 1)[0], f"{folder}/{name}", None, drawn[id]) for id, name in names.items()]
    return sorted(pairs, key=lambda pair: pair.id)


def _read(text: str) -> tuple[dict[Any, str], dict[Any, dict[str, Any]]]:
    """File names and what is drawn, by the ids of images."""
    names: dict[Any, str] = {}
    drawn: dict[Any, dict[str, Any]] = {}
    early = []
    for key, element in coco_json.elements(text):
        if key == "images":
            names[element["id"]] = str(element["file_name"])
            drawn[element["id"]] = {"size": (int(element["height"]), int(element["width"])), "things": []}
        elif key == "categories":
            _check_category(element)
        elif key == "annotations" and element["category_id"] in _TRAIN_IDS:
            if element["image_id"] in drawn:
                _add(drawn, element)
            else:
                early.append(element)
    for element in early:
        _add(drawn, element)
    if not names:
        raise ValueError("it has no images")
    return names, drawn


def _add(drawn: Mapping[Any, dict[str, Any]], annotation: Mapping[str, Any]) -> None:
    image = drawn[annotation["image_id"]]
    train_id = IGNORE if annotation.get("iscrowd") else _TRAIN_IDS[annotation["category_id"]]
    image["things"].append((train_id, _pack(annotation["segmentation"], *image["size"])))


def _check_category(category: Mapping[str, Any]) -> None:
    """ValueError if one of COCO's numbers stands for another category than there."""
    expected = CATEGORIES.get(category["id"])
    if expected and category["name"] != expected[0]:
        raise ValueError(f"category {category['id']} is {category['name']!r}, not {expected[0]!r}")


def dataset(name: str, year: int, published: Mapping[str, int]) -> Dataset:
    """COCO of a year."""
    pairs: Callable[[Location, str], list[Pair]] = partial(_pairs, year)
    return Dataset(
        name=name,
        title=f"COCO {year} as VOC's 21 classes: train{year}/, val{year}/ + annotations/instances_*{year}.json",
        classes=voc.CLASSES,
        palette=voc.PALETTE,
        splits=("train", "val"),
        label_values=voc.LABEL_VALUES,
        pairs=pairs,
        published=published,
        format=_Things(),
    )


DATASET = dataset("coco", 2017, {"train": 118287, "val": 5000})
