"""PASCAL VOC 2012 segmentation: 20 classes and background, palette PNG labels, 255 = void.

Everingham et al.: The PASCAL visual object classes challenge, IJCV 2015. The split `trainaug` (10,582 images,
labels of Hariharan et al., ICCV 2011) is there where its list ImageSets/Segmentation/trainaug.txt is; its
labels lie in SegmentationClassAug, as usually handed round, or with the others in SegmentationClass.
"""

from deeplab_ray.datasets.base import Dataset, Pair
from deeplab_ray.errors import UserError
from deeplab_ray.labels import IGNORE
from deeplab_ray.storage.location import Location

_CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
_PLACES = ("", "VOC2012", "VOCdevkit/VOC2012")


def _colour(index: int) -> tuple[int, int, int]:
    """VOC's colour map: bits 0, 3, 6 of the index are red's highest bits, 1, 4, 7 green's, 2, 5, 8 blue's."""
    red, green, blue = (
        sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)
    )
    return red, green, blue


def _pairs(source: Location, split: str) -> list[Pair]:
    for place in _PLACES:
        prefix = f"{place}/" if place else ""
        listing = source / f"{prefix}ImageSets/Segmentation/{split}.txt"
        if listing.is_file():
            break
    else:
        raise UserError(
            f"no ImageSets/Segmentation/{split}.txt below {source}: --source is the folder VOCdevkit/VOC2012"
        )
    try:
        lines = listing.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise UserError(f"{listing} is no text: it should list the split's images, one id a line") from None
    ids = sorted({line.strip() for line in lines} - {""})
    if not ids:
        raise UserError(f"{listing} is empty: it should list the split's images, one id a line")
    if wrong := next((id for id in ids if len(id.split()) > 1), None):
        raise UserError(f"{listing} has a line {wrong!r}: it should list the split's images, one id a line")
    folder = f"{prefix}SegmentationClass"
    labels = set((source / folder).files())
    if split == "trainaug" and (more := (source / f"{folder}Aug").files()):
        folder, labels = f"{folder}Aug", set(more)
    return [
        Pair(id, f"{prefix}JPEGImages/{id}.jpg", f"{folder}/{id}.png" if f"{id}.png" in labels else None) for id in ids
    ]


DATASET = Dataset(
    name="voc12",
    title="PASCAL VOC 2012, 21 classes: JPEGImages/ + SegmentationClass/; train, val, trainval, trainaug",
    classes=_CLASSES,
    palette=tuple(_colour(i) for i in range(len(_CLASSES))),
    splits=("train", "val", "trainval", "trainaug"),
    label_values={**{i: i for i in range(len(_CLASSES))}, 255: IGNORE},
    pairs=_pairs,
)
