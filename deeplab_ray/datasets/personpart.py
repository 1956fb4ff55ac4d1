"""PASCAL-Person-Part: six parts of persons and background, merged from PASCAL-Part's `.mat` files of VOC 2010.

Chen et al.: Detect what you can, CVPR 2014, whose 24 parts of a person are merged as in DeepLab's third paper (Chen et
al.: Attention to scale, CVPR 2016): 1,716 images to train, 1,817 to validate, those of VOC 2010's lists that show a
person with parts. Other objects, and persons of whom no part was drawn, are background. Later parts lie over earlier.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab_ray.datasets import matlab, voc
from deeplab_ray.datasets.base import Dataset, MissingSplitError, Pair
from deeplab_ray.datasets.colour_map import voc_colour
from deeplab_ray.datasets.formats import Look, Value
from deeplab_ray.labels import IGNORE
from deeplab_ray.storage.location import Location

PARTS = {
    "head": ("head", "hair", "leye", "reye", "lear", "rear", "lebrow", "rebrow", "nose", "mouth"),
    "torso": ("torso", "neck"),
    "upper arms": ("luarm", "ruarm"),
    "lower arms": ("llarm", "rlarm", "lhand", "rhand"),
    "upper legs": ("luleg", "ruleg"),
    "lower legs": ("llleg", "rlleg", "lfoot", "rfoot"),
}
"""Class → the parts of PASCAL-Part that it is merged of."""
_CLASSES = ("background", *PARTS)
_TRAIN_IDS = {part: train_id for train_id, parts in enumerate(PARTS.values(), start=1) for part in parts}
_LABELS = ("Annotations_Part", "trainval/Annotations_Part")
_LISTS = ("{split}_id.txt", "{split}.txt", "ImageSets/Person-Part/{split}.txt")


@dataclass(frozen=True)
class _Parts:
    """anno.objects[].parts[] with part_name and mask, of objects of the class "person"."""

    def look(self, data: bytes, height: int, width: int, drawn: Any) -> Look:
        ids = self.decode(data, height, width, drawn)
        values, counts = np.unique(ids, return_counts=True)
        found: dict[Value, int] = {int(values[i]): int(counts[i]) for i in np.argsort(-counts, kind="stable")}
        rows, columns = ids.shape
        return Look(matlab.KIND, rows, columns, found, len(values))

    def train_id(self, value: Value) -> int | None:
        return DATASET.label_values.get(value) if isinstance(value, int) else None

    def decode(self, data: bytes, height: int, width: int, drawn: Any) -> NDArray[np.uint8]:
        label: NDArray[np.uint8] | None = None
        for name, mask in _masks(matlab.read(data, "anno")):
            label = np.zeros(mask.shape, np.uint8) if label is None else label
            if mask.shape != label.shape:
                raise ValueError(
                    f"label has masks of two sizes, {label.shape[1]}×{label.shape[0]} and "
                    f"{mask.shape[1]}×{mask.shape[0]}"
                )
            if name is not None:
                if name not in _TRAIN_IDS:
                    raise ValueError(f"label has a part {name!r} of a person, which is none of PASCAL-Part's")
                label[mask] = _TRAIN_IDS[name]
        return np.zeros((height, width), np.uint8) if label is None else label


def _masks(anno: Any) -> list[tuple[str | None, NDArray[np.bool_]]]:
    """Masks, bool H×W, with the names of parts; None for whole objects, whose masks tell the label's size."""
    masks: list[tuple[str | None, NDArray[np.bool_]]] = []
    for thing in np.atleast_1d(matlab.get(anno, "objects")):
        masks.append((None, _mask(thing)))
        if matlab.get(thing, "class") == "person":
            for part in np.atleast_1d(matlab.get(thing, "parts")):
                masks.append((str(matlab.get(part, "part_name")), _mask(part)))
    return masks


def _mask(struct: Any) -> NDArray[np.bool_]:
    mask = np.atleast_2d(matlab.get(struct, "mask"))
    if mask.ndim != 2 or not np.issubdtype(mask.dtype, np.number):
        raise ValueError("label has a mask that is no matrix")
    return mask.astype(bool)


def _pairs(source: Location, split: str) -> list[Pair]:
    places = voc.places(2010)
    listing = voc.find(source, (f"{place}{name.format(split=split)}" for place in places for name in _LISTS))
    if listing is None:
        raise MissingSplitError(
            f"no {split}_id.txt below {source}: --source is the folder that holds VOC2010/ (or VOCdevkit/), "
            f"Annotations_Part/ and PASCAL-Person-Part's lists train_id.txt and val_id.txt"
        )
    return voc.mat_pairs(
        source,
        2010,
        voc.read_list(source / listing),
        _LABELS,
        f"no Annotations_Part/*.mat below {source}: --source is the folder that holds VOC2010/ (or VOCdevkit/) and "
        "Annotations_Part/",
    )[1]


DATASET = Dataset(
    name="personpart",
    title="PASCAL-Person-Part, 6 parts and background: VOC2010/ + Annotations_Part/*.mat + train_id.txt, val_id.txt",
    classes=_CLASSES,
    palette=tuple(voc_colour(i) for i in range(len(_CLASSES))),
    splits=("train", "val"),
    label_values={**{train_id: train_id for train_id in range(len(_CLASSES))}, 255: IGNORE},
    pairs=_pairs,
    published={"train": 1716, "val": 1817},
    format=_Parts(),
)
