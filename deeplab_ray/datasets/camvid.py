"""CamVid in both of its layouts, 11 classes.

Brostow, Fauqueur, Cipolla: Semantic object classes in video, 2009. As SegNet has it (Badrinarayanan et al., PAMI 2017):
<split>/*.png beside <split>annot/*.png of 0..10, 11 = void. As first published: 701_StillsRaw_full/<id>.png and
LabeledApproved_full/<id>_L.png in the colours of 32 classes, merged here to SegNet's 11; its splits are SegNet's by
frames, or those of lists train.txt, val.txt and test.txt where these are there. The colours of the 11 are CamVid's own
for the first of the merged classes.
"""

from collections.abc import Sequence

from deeplab_ray.datasets.base import Dataset, MissingSplitError, Pair, match_pairs, name_unused, walk
from deeplab_ray.datasets.by_content import ByContent
from deeplab_ray.datasets.colour_map import Colour
from deeplab_ray.datasets.folder.colours import Colours
from deeplab_ray.datasets.formats import Index
from deeplab_ray.datasets.voc import read_list
from deeplab_ray.labels import IGNORE
from deeplab_ray.storage.location import Location

MERGED: dict[str, dict[str, Colour]] = {
    "sky": {"Sky": (128, 128, 128)},
    "building": {
        "Building": (128, 0, 0),
        "Archway": (192, 0, 128),
        "Bridge": (0, 128, 64),
        "Tunnel": (64, 0, 64),
        "Wall": (64, 192, 0),
    },
    "pole": {"Column_Pole": (192, 192, 128), "TrafficCone": (0, 0, 64)},
    "road": {"Road": (128, 64, 128), "LaneMkgsDriv": (128, 0, 192), "LaneMkgsNonDriv": (192, 0, 64)},
    "pavement": {"Sidewalk": (0, 0, 192), "ParkingBlock": (64, 192, 128), "RoadShoulder": (128, 128, 192)},
    "tree": {"Tree": (128, 128, 0), "VegetationMisc": (192, 192, 0)},
    "sign symbol": {"SignSymbol": (192, 128, 128), "Misc_Text": (128, 128, 64), "TrafficLight": (0, 64, 64)},
    "fence": {"Fence": (64, 64, 128)},
    "car": {
        "Car": (64, 0, 128),
        "SUVPickupTruck": (64, 128, 192),
        "Truck_Bus": (192, 128, 192),
        "Train": (192, 64, 128),
        "OtherMoving": (128, 64, 64),
    },
    "pedestrian": {
        "Pedestrian": (64, 64, 0),
        "Child": (192, 128, 64),
        "CartLuggagePram": (64, 0, 192),
        "Animal": (64, 128, 64),
    },
    "bicyclist": {"Bicyclist": (0, 128, 192), "MotorcycleScooter": (192, 0, 192)},
}
"""The 11 classes, and the 31 of the first layout that each is merged of, with their colours."""
VOID: Colour = (0, 0, 0)
_IMAGES, _LABELS, _LABEL = "701_StillsRaw_full", "LabeledApproved_full", "_L.png"
# Frames of 0001TP up to this one are for training, the rest for testing.
_LAST_TRAINED = 8520
# Of 0016E5 the odd ones of these, which were labelled at 15 a second, are for validation.
_VALIDATION = range(7959, 8160, 2)


def split_of(id: str) -> str:
    """SegNet's split of a frame, by its name such as 0016E5_07959."""
    sequence, _, frame = id.partition("_")
    number = int("".join(filter(str.isdigit, frame)) or 0)
    if sequence == "0001TP":
        return "train" if number <= _LAST_TRAINED else "test"
    if sequence == "0016E5":
        return "val" if number in _VALIDATION else "train"
    return "train" if sequence == "0006R0" else "test"


def _pairs(source: Location, split: str) -> list[Pair]:
    if (source / _IMAGES).exists() or (source / _LABELS).exists():
        return _first_layout(source, split)
    images, labels = _pngs(source, split), _pngs(source, f"{split}annot")
    if not images and not labels:
        raise MissingSplitError(
            f"no {split}/*.png below {source}: --source is the folder that holds {split}/ and {split}annot/ "
            f"(the SegNet layout), or {_IMAGES}/ and {_LABELS}/"
        )
    return match_pairs(images, labels, lambda id: f"{split}/{id}.png")


def _first_layout(source: Location, split: str) -> list[Pair]:
    images = _pngs(source, _IMAGES)
    labels = {id.removesuffix("_L"): path for id, path in _pngs(source, _LABELS).items()}
    listing = source / f"{split}.txt"
    if listing.is_file():
        members = {id.removesuffix(".png") for id in read_list(listing)}
        # What is not there is missed by who reads it.
        images |= {id: f"{_IMAGES}/{id}.png" for id in members - images.keys()}
    else:
        members = {id for id in images.keys() | labels.keys() if split_of(id) == split}
    if not members:
        raise MissingSplitError(f"no frame of {split} in {source / _IMAGES}: it should hold all 701 of CamVid")
    return match_pairs(
        {id: path for id, path in images.items() if id in members},
        {id: path for id, path in labels.items() if id in members},
        lambda id: f"{_IMAGES}/{id}.png",
    )


def _pngs(source: Location, folder: str) -> dict[str, str]:
    """Name → path of the PNGs right in a folder."""
    files = [file for file in walk(source / folder) if file.lower().endswith(".png") and "/" not in file]
    return {file[: -len(".png")]: f"{folder}/{file}" for file in files}


def _unused(source: Location, split: str, pairs: Sequence[Pair]) -> list[str]:
    # In the first layout the folders hold all splits.
    return name_unused(source, (split, f"{split}annot"), pairs)


_LABEL_VALUES = {**{i: i for i in range(len(MERGED))}, len(MERGED): IGNORE}
_COLOURS = {colour: train_id for train_id, parts in enumerate(MERGED.values()) for colour in parts.values()}

DATASET = Dataset(
    name="camvid",
    title="CamVid, 11 classes: train/ + trainannot/ and so on (the SegNet layout), or 701_StillsRaw_full/ + "
    "LabeledApproved_full/",
    classes=tuple(MERGED),
    palette=tuple(next(iter(parts.values())) for parts in MERGED.values()),
    splits=("train", "val", "test"),
    label_values=_LABEL_VALUES,
    pairs=_pairs,
    published={"train": 367, "val": 101, "test": 233},
    format=ByContent({"png": Index(_LABEL_VALUES, "camvid"), "colours": Colours({**_COLOURS, VOID: IGNORE})}),
    unused=_unused,
)
