"""What a dataset is: classes, colours, what its label files mean, and where its files lie.

Datasets exist for preparing alone: a prepared set describes itself (see `deeplab_ray.shards`).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from deeplab_ray.datasets.formats import Index, LabelFormat
from deeplab_ray.errors import UserError
from deeplab_ray.labels import IGNORE, ClassTable
from deeplab_ray.storage.location import Location

_ENDINGS = 3


class MissingSplitError(UserError):
    """Raised if a folder does not hold a split at all. What is there but wrong is another UserError."""


@dataclass(frozen=True)
class Pair:
    """An image and its label. Paths are relative to the dataset's folder, or absolute, or s3:// URIs."""

    id: str
    image: str
    label: str | None
    """None: there is no label file of this image's own."""
    drawn: Any = None
    """What the label is made of beside or instead of a file, such as the polygons of this image out of a file for all.
    Small and picklable. None: there is nothing."""

    @property
    def has_label(self) -> bool:
        return self.label is not None or self.drawn is not None


def _no_lines(source: Location, split: str, pairs: Sequence[Pair]) -> list[str]:
    return []


@dataclass(frozen=True)
class Dataset:
    """One dataset; the whole truth about its labels. Train ids are 0..C−1 and IGNORE."""

    name: str
    title: str
    """One line for --help."""
    classes: tuple[str, ...]
    """Name of each of the C train ids."""
    palette: tuple[tuple[int, int, int], ...]
    """RGB colour of each of the C train ids."""
    splits: tuple[str, ...]
    label_values: Mapping[int, int]
    """Value (0..255) that a label file may hold → train id. Of several values with the same train id the first is the
    one that is written on the way out."""
    pairs: Callable[[Location, str], list[Pair]]
    """(folder, split) → the split's pairs, sorted by id. MissingSplitError if the split is not there, UserError if what
    is there is wrong."""
    unlabelled: tuple[str, ...] = ()
    """Splits whose labels are not public: their images are prepared without."""
    published: Mapping[str, int] = field(default_factory=dict)
    """Number of images of a split, as published."""
    format: LabelFormat | None = None
    """How labels are kept, if not as 8-bit PNGs of `label_values`."""
    unused: Callable[[Location, str, Sequence[Pair]], list[str]] = _no_lines
    """(folder, split, pairs) → a line for each folder with files that look like the split's and are in no pair."""

    @cached_property
    def table(self) -> ClassTable:
        """The classes as a prepared set keeps them."""
        first = {train_id: raw for raw, train_id in reversed(tuple(self.label_values.items()))}
        free = (value for value in range(255, -1, -1) if value not in self.label_values)
        return ClassTable(
            names=self.classes,
            colours=self.palette,
            values=tuple(first[train_id] for train_id in range(len(self.classes))),
            ignore_value=first[IGNORE] if IGNORE in first else next(free),
        )

    @cached_property
    def labels(self) -> LabelFormat:
        """How to read its labels."""
        return self.format or Index(self.label_values, self.name)


def resolve(source: Location, path: str) -> Location:
    """Where a file of a pair lies: its path is relative to the dataset's folder, or absolute, or an s3:// URI."""
    if path.startswith("s3://"):
        return Location(path, path.removeprefix("s3://"))
    return Location(path, path) if path.startswith("/") else source / path


def match_pairs(images: dict[str, str], labels: dict[str, str], image_of: Callable[[str], str]) -> list[Pair]:
    """Pair images with labels ({id: path} each). A label without image gets the path `image_of(id)` where its
    image should be, so that whoever reads it finds it missing."""
    ids = sorted(images.keys() | labels.keys())
    return [Pair(id, images.get(id) or image_of(id), labels.get(id)) for id in ids]


def walk(folder: Location) -> list[str]:
    """Paths of all files below a folder, relative to it, sorted; empty if there is none.

    Unlike `Location.files` it gives dangling links, too, and ends where folders link into themselves.
    """
    try:
        return sorted(path for page in folder.walk() for path in page)
    except (FileNotFoundError, NotADirectoryError):
        return []


def name_unused(
    source: Location, folders: Iterable[str], pairs: Sequence[Pair], known: tuple[str, ...] = ()
) -> list[str]:
    """A line for each of the folders below `source` in which there are files of no pair, but for those whose names end
    with something `known`."""
    taken = {path for pair in pairs for path in (pair.image, pair.label)}
    lines = []
    for folder in folders:
        others = [
            path for path in walk(source / folder) if f"{folder}/{path}" not in taken and not path.endswith(known)
        ]
        if others:
            kinds = Counter(_ending(path) for path in others)
            counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(_ENDINGS))
            more = ", …" if len(kinds) > _ENDINGS else ""
            files = "1 file is" if len(others) == 1 else f"{len(others)} files are"
            lines.append(f"{files} passed over in {source / folder}: {counts}{more}, such as {others[0]}")
    return lines


def _ending(path: str) -> str:
    name = path.rsplit("/", 1)[-1]
    return f".{name.rsplit('.', 1)[-1]}" if "." in name else "without ending"
