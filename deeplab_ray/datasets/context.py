"""PASCAL-Context: 59 classes and background, `.mat` labels of 459 classes on the images of VOC 2010.

Mottaghi et al.: The role of context for object detection and semantic segmentation in the wild, CVPR 2014. What is none
of the 59 is background, as FCN and DeepLab took it. Classes are in the order of the dataset's own 59_labels.txt, whose
diningtable, bedcloth and clothes are called table, bedclothes and cloth in its labels.txt. The PNGs that are handed
round are not read here: some have this order, others the alphabetical one, and nothing in them says which.
"""

from deeplab_ray.datasets import voc
from deeplab_ray.datasets.base import Dataset, MissingSplitError, Pair
from deeplab_ray.datasets.colour_map import voc_colour
from deeplab_ray.datasets.matlab import Numbers
from deeplab_ray.errors import UserError
from deeplab_ray.labels import IGNORE
from deeplab_ray.storage.location import Location

NUMBERS = {
    "aeroplane": 2,
    "bicycle": 23,
    "bird": 25,
    "boat": 31,
    "bottle": 34,
    "bus": 45,
    "car": 59,
    "cat": 65,
    "chair": 72,
    "cow": 98,
    "table": 397,
    "dog": 113,
    "horse": 207,
    "motorbike": 258,
    "person": 284,
    "pottedplant": 308,
    "sheep": 347,
    "sofa": 368,
    "train": 416,
    "tvmonitor": 427,
    "bag": 9,
    "bed": 18,
    "bench": 22,
    "book": 33,
    "building": 44,
    "cabinet": 46,
    "ceiling": 68,
    "cloth": 80,
    "computer": 85,
    "cup": 104,
    "door": 115,
    "fence": 144,
    "floor": 158,
    "flower": 159,
    "food": 162,
    "grass": 187,
    "ground": 189,
    "keyboard": 220,
    "light": 232,
    "mountain": 259,
    "mouse": 260,
    "curtain": 105,
    "platform": 296,
    "sign": 355,
    "plate": 295,
    "road": 324,
    "rock": 326,
    "shelves": 349,
    "sidewalk": 354,
    "sky": 360,
    "snow": 366,
    "bedclothes": 19,
    "track": 415,
    "tree": 420,
    "truck": 424,
    "wall": 440,
    "water": 445,
    "window": 454,
    "wood": 458,
}
"""Class → its number in LabelMap, as labels.txt has it."""
_ALL = 459
_CLASSES = ("background", *NUMBERS)
_LABELS = ("trainval", "context/trainval", "pascal-context/trainval", "PASCAL-Context/trainval")


def _pairs(source: Location, split: str) -> list[Pair]:
    places = voc.places(2010)
    lists = ("ImageSets/SegmentationContext", "ImageSets/Main")
    candidates = [f"{split}.txt", *(f"{place}{folder}/{split}.txt" for place in places for folder in lists)]
    listing = voc.find(source, candidates)
    if listing is None:
        raise MissingSplitError(
            f"no ImageSets/Main/{split}.txt below {source}: --source is the folder that holds VOC2010/ (or VOCdevkit/) "
            "and trainval/ with PASCAL-Context's .mat files"
        )
    folder, pairs = voc.mat_pairs(
        source,
        2010,
        voc.read_list(source / listing),
        _LABELS,
        f"no trainval/*.mat below {source}: --source is the folder that holds VOC2010/ (or VOCdevkit/) and trainval/ "
        "with PASCAL-Context's .mat files",
    )
    _check_numbers(source / f"{folder.removesuffix('trainval')}labels.txt")
    return pairs


def _check_numbers(file: Location) -> None:
    """UserError if the labels.txt beside the labels (lines "2: aeroplane") numbers the classes otherwise."""
    if not file.is_file():
        return
    lines = (
        line.split(":", 1) for line in file.read_bytes().decode("utf-8-sig", "replace").splitlines() if ":" in line
    )
    theirs = {name.strip(): number.strip() for number, name in lines}
    for name, number in NUMBERS.items():
        if theirs.get(name, "") != str(number):
            raise UserError(
                f"{file} does not say that {name} is {number}: take the labels and the labels.txt of PASCAL-Context"
            )


DATASET = Dataset(
    name="context",
    title="PASCAL-Context, 59 classes and background: VOC2010/ (or VOCdevkit/VOC2010/) + trainval/*.mat",
    classes=_CLASSES,
    palette=tuple(voc_colour(i) for i in range(len(_CLASSES))),
    splits=("train", "val"),
    label_values={**{train_id: train_id for train_id in range(len(_CLASSES))}, 255: IGNORE},
    pairs=_pairs,
    published={"train": 4998, "val": 5105},
    format=Numbers(
        ("LabelMap",),
        {
            **dict.fromkeys(range(_ALL + 1), 0),
            **{number: train_id for train_id, number in enumerate(NUMBERS.values(), start=1)},
        },
        "context",
    ),
)
