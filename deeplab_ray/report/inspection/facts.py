"""What prepared splits hold, by their manifests, their columns of ids and sizes, and a few of their samples."""

from collections.abc import Sequence
from dataclasses import dataclass

from deeplab_ray.errors import UserError
from deeplab_ray.inputs import split_at
from deeplab_ray.report.inspection.columns import Columns, read_columns
from deeplab_ray.report.inspection.samples import Look, look_at_samples
from deeplab_ray.report.inspection.verification import Problem
from deeplab_ray.shards import Manifest, Split, open_split
from deeplab_ray.storage.location import Location, locate


@dataclass(frozen=True)
class Facts:
    """What is known of a split."""

    split: Split
    columns: Columns
    looks: Sequence[Look]

    @property
    def name(self) -> str:
        return self.manifest.split

    @property
    def manifest(self) -> Manifest:
        return self.split.manifest

    @property
    def bytes(self) -> int:
        return sum(shard.bytes for shard in self.manifest.shards)

    @property
    def labelled_pixels(self) -> int:
        return sum(self.manifest.pixels)

    @property
    def complete(self) -> bool:
        """Whether the columns are those of all images."""
        return self.columns.images == self.manifest.images

    @property
    def problems(self) -> Sequence[Problem]:
        """Shards that were found damaged or missing on the way."""
        return [*self.columns.problems, *(look.shard for look in self.looks if look.shard)]


@dataclass(frozen=True)
class ClassRow:
    """A class, and how much of it there is in each of some splits."""

    name: str
    colour: tuple[int, int, int]
    value: int
    pixels: tuple[int | None, ...]
    """None: not a class of that split."""
    shares: tuple[float | None, ...]
    """Of the split's labelled pixels, in 0..1. None: not its class, or the split has no labelled pixel."""


def open_set(uri: str, split: str | None = None, against: str | None = None) -> list[Split]:
    """Open the splits that are meant: of a set's folder all, the largest first, or `split` alone; of a split's folder
    that split. With `against`, a split of the same set, two: the one that is meant, and that.

    Raises UserError, with what to do, if there is no prepared set, no such split, or a manifest is broken; and if it is
    not clear which split is compared.
    """
    place = locate(uri)
    own = split_at(place)
    if own is not None:
        meant = [open_split(place.uri, split or own)]
        known = meant if against is None else _all(place.parent)
    else:
        known = _all(place)
        meant = known if split is None else [_named(known, split)]
    if against is None:
        return meant
    other = _named(known, against)
    rest = [each for each in meant if each.folder != other.folder]
    if not rest:
        raise UserError(f"--against {against} is the split itself: name another one of {_names(known)}")
    if len(rest) > 1:
        raise UserError(f"--against {against}: which split is compared with it? Name one by --split ({_names(rest)})")
    return [*rest, other]


def _all(place: Location) -> list[Split]:
    try:
        names = [name for name in place.folders() if split_at(place / name) is not None]
    except NotADirectoryError:
        raise UserError(f"{place} is a file: give the folder that jobs/prepare.py wrote") from None
    if not names:
        raise UserError(f"{place} is no prepared set: give the folder that jobs/prepare.py wrote (its --output)")
    return sorted(
        (open_split(place.uri, name) for name in names), key=lambda split: (-len(split), split.manifest.split)
    )


def _named(known: Sequence[Split], name: str) -> Split:
    for split in known:
        if split.manifest.split == name:
            return split
    raise UserError(f"there is no split {name!r} at {known[0].folder.parent}: it has {_names(known)}")


def _names(splits: Sequence[Split]) -> str:
    return ", ".join(split.manifest.split for split in splits)


def examine(split: Split, samples: int, seed: int, at_most: int | None = None) -> Facts:
    """Read what a split holds without reading all of it: the manifest, ids and sizes, and so many samples.

    at_most: images whose ids and sizes are read; of a larger split shards are drawn by `seed`. Unset: READ_AT_MOST of
    `columns`. Storage that fails is waited for; raises JobError if it goes on failing.
    """
    return Facts(split, read_columns(split, seed, at_most), look_at_samples(split, samples, seed) if samples else [])


def class_rows(facts: Sequence[Facts]) -> list[ClassRow]:
    """The classes of all splits, in the order of their train ids; those of another table, by name, follow."""
    tables = [each.manifest.classes for each in facts]
    first = {
        name: (table.colours[place], table.values[place])
        for table in reversed(tables)
        for place, name in enumerate(table.names)
    }
    names = dict.fromkeys(name for table in tables for name in table.names)
    counts = [dict(zip(each.manifest.classes.names, each.manifest.pixels, strict=True)) for each in facts]
    totals = [each.labelled_pixels for each in facts]
    rows = []
    for name in names:
        pixels = tuple(count.get(name) for count in counts)
        shares = tuple(
            None if number is None or not total else number / total
            for number, total in zip(pixels, totals, strict=True)
        )
        rows.append(ClassRow(name, *first[name], pixels, shares))
    return rows
