"""What the PASCAL VOC datasets have in common: classes, lists of ids, folders, and the labels of SBD.

SBD, the Semantic Boundaries Dataset (Hariharan et al., ICCV 2011): train.txt and val.txt, img/<id>.jpg, and
cls/<id>.mat, whose GTcls.Segmentation holds VOC's class numbers.
"""

from collections.abc import Iterable

from deeplab_ray.datasets.base import MissingSplitError, Pair
from deeplab_ray.datasets.by_content import ByContent
from deeplab_ray.datasets.colour_map import voc_colour
from deeplab_ray.datasets.formats import Index, LabelFormat
from deeplab_ray.datasets.matlab import Numbers
from deeplab_ray.errors import UserError
from deeplab_ray.labels import IGNORE
from deeplab_ray.storage.location import Location

CLASSES = (
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
PALETTE = tuple(voc_colour(i) for i in range(len(CLASSES)))
LABEL_VALUES = {**{i: i for i in range(len(CLASSES))}, 255: IGNORE}
SBD_PLACES = ("SBD", "benchmark_RELEASE/dataset")
"""Where SBD lies: below the dataset's folder, or beside it."""


def label_format(name: str) -> LabelFormat:
    """VOC's palette PNGs and SBD's `.mat` files."""
    sbd = Numbers(("GTcls", "Segmentation"), LABEL_VALUES, name)
    return ByContent({"png": Index(LABEL_VALUES, name), "mat": sbd})


def places(year: int) -> tuple[str, ...]:
    """Where VOC of a year lies below a folder, each with a / at its end."""
    return "", f"VOC{year}/", f"VOCdevkit/VOC{year}/", f"TrainVal/VOCdevkit/VOC{year}/"


def find(source: Location, candidates: Iterable[str]) -> str | None:
    """The first of these paths at which there is a file."""
    return next((path for path in candidates if (source / path).is_file()), None)


def mat_pairs(
    source: Location, year: int, ids: Iterable[str], label_folders: Iterable[str], missing: str
) -> tuple[str, list[Pair]]:
    """The folder in which the `.mat` labels lie, and the pairs of these ids: VOC's images of a year with them.

    label_folders: where labels may lie, below each place of VOC. Raises MissingSplitError with the text `missing` if
    there is no label anywhere.
    """
    tried = [f"{place}{name}" for place in places(year) for name in label_folders]
    found = ((folder, set((source / folder).files())) for folder in tried)
    folder, labels = next(((folder, labels) for folder, labels in found if labels), ("", set()))
    if not labels:
        raise MissingSplitError(missing)
    images = [f"{place}JPEGImages" for place in places(year)]
    where = next((each for each in images if (source / each).exists()), images[0])
    return folder, [
        Pair(id, f"{where}/{id}.jpg", f"{folder}/{id}.mat" if f"{id}.mat" in labels else None) for id in ids
    ]


def read_list(file: Location) -> list[str]:
    """The ids in a list, sorted, each once. UserError if it is none, or empty."""
    what = "it should list the split's images, one id a line"
    try:
        lines = file.read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{file} is no text: {what}") from None
    ids = sorted({line.strip() for line in lines} - {""})
    if not ids:
        raise UserError(f"{file} is empty: {what}")
    if wrong := next((id for id in ids if len(id.split()) > 1 or "/" in id), None):
        raise UserError(f"{file} has a line {wrong!r}: {what}")
    return ids


def find_sbd(source: Location) -> Location | None:
    """The folder of SBD, below the dataset's folder or beside it."""
    for start in (source, source.parent):
        for place in SBD_PLACES:
            if (start / place / "train.txt").is_file():
                return start / place
    return None


def read_sbd(sbd: Location) -> set[str]:
    """Ids of all images of SBD, its training and its validation set. UserError if a list is wrong or missing."""
    if not (sbd / "val.txt").is_file():
        raise UserError(f"{sbd} has train.txt, but no val.txt: copy SBD as a whole")
    return {*read_list(sbd / "train.txt"), *read_list(sbd / "val.txt")}
