"""Which label belongs to which image: the same path below the two folders, but for the ending and a suffix."""

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from deeplab_ray.datasets.base import Pair, match_pairs
from deeplab_ray.datasets.folder import coco_file
from deeplab_ray.errors import UserError
from deeplab_ray.inputs.folder import PATTERNS
from deeplab_ray.storage.location import Location

_PICTURES = tuple(pattern[1:] for pattern in PATTERNS)
_JSON = (".json",)
_ENDING = re.compile(r"(?<=[^/])\.[^./]*$")
_NAMED = 3


@dataclass(frozen=True)
class Matched:
    """Images and labels by their ids, and what there is to tell of them."""

    pairs: list[Pair]
    """Sorted by id. Those without a label, or without an image, are among them."""
    drawn: bool
    """Whether the labels are JSON, not pictures."""
    notes: list[str] = field(default_factory=list)


def match(images: Location, labels: Location, suffix: str) -> Matched:
    """Pair the images below a folder with their labels: files below another one (or the same), or a COCO JSON file.

    UserError if one of them is not there or holds nothing, two images have the same id, or no label fits an image.
    """
    is_file = labels.path.lower().endswith(_JSON) and labels.is_file()
    paths = _walk(images, None if is_file else labels, "--images")
    names = _Names(paths, _PICTURES)
    if is_file:
        return _match_coco(images, names, labels)
    beside = labels.path == images.path
    others = paths if beside else _walk(labels, images, "--labels")
    drawings = _Names(others, _JSON, suffix)
    pictures = _Names(others, _PICTURES, suffix)
    if beside and suffix:
        # What ends like a label's name is none of the images.
        names.drop(pictures.paths.values())
    elif beside:
        pictures.drop(list(pictures.paths.values()))
    drawn = len(drawings.paths.keys() & names.paths.keys()) > len(pictures.paths.keys() & names.paths.keys())
    chosen = drawings if drawn else pictures
    names.refuse_twice(images, "images")
    chosen.refuse_twice(labels, "labels")
    _refuse_nothing(images, names, "image")
    _refuse_unmatched(images, names, labels, chosen, suffix)
    lone = chosen.paths.keys() - names.paths.keys()
    unlabelled = names.paths.keys() - chosen.paths.keys()
    if beside:
        taken = {*names.paths.values(), *chosen.paths.values()}
        notes = _passed_over(images, [path for path in paths if path not in taken], "images or labels")
    else:
        notes = _passed_over(images, names.others, "images") + _passed_over(labels, chosen.others, "labels")
    return Matched(
        _pairs(images, names, labels, chosen), drawn, notes + _lonely(unlabelled, len(names.paths), lone, labels)
    )


class _Names:
    """Files of some kind by their ids: their paths without the ending and the suffix."""

    def __init__(self, paths: Iterable[str], endings: tuple[str, ...], suffix: str = "") -> None:
        self.paths: dict[str, str] = {}
        self.others: list[str] = []
        """What is not of this kind."""
        self.twice: list[tuple[str, str]] = []
        for path in paths:
            stem = _ENDING.sub("", path)
            if not path.lower().endswith(endings) or not stem.endswith(suffix):
                self.others.append(path)
            elif (other := self.paths.setdefault(stem.removesuffix(suffix), path)) != path:
                self.twice.append((other, path))

    def drop(self, paths: Iterable[str]) -> None:
        """Leave files out of these."""
        gone = set(paths)
        self.paths = {id: path for id, path in self.paths.items() if path not in gone}
        self.twice = [pair for pair in self.twice if not gone & set(pair)]

    def refuse_twice(self, folder: Location, what: str) -> None:
        if self.twice:
            one, other = self.twice[0]
            more = f", as do {len(self.twice) - 1} others" if len(self.twice) > 1 else ""
            raise UserError(
                f"two {what} below {folder} differ by their endings alone, {one} and {other}{more}: remove or rename "
                "one, or if one is a label of the other, give --label-suffix"
            )


def _walk(folder: Location, exclude: Location | None, flag: str) -> list[str]:
    """Paths of all files below a folder, sorted, but for those in another one in it."""
    inner = exclude if exclude and exclude.path.startswith(f"{folder.path.rstrip('/')}/") else None
    try:
        return sorted(path for page in folder.walk(inner) for path in page)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"there is no folder {folder}: {flag} is a folder or an s3:// URI") from None
    except PermissionError:
        raise UserError(f"{folder} may not be read: change its permissions, or give another {flag}") from None


def _refuse_nothing(folder: Location, names: _Names, what: str) -> None:
    if not names.paths:
        kinds = Counter(_ending(path) for path in names.others)
        there = f" ({_counts(kinds)})" if kinds else ""
        raise UserError(f"of {len(names.others)} files below {folder}{there} none is an {what}: {', '.join(_PICTURES)}")


def _refuse_unmatched(images: Location, names: _Names, labels: Location, chosen: _Names, suffix: str) -> None:
    """Raise UserError if no label has the name of an image."""
    if chosen.paths.keys() & names.paths.keys():
        return
    if not chosen.paths and images.path == labels.path and not suffix:
        raise UserError(f"no image in {images} has a label beside it: give --label-suffix, or another --labels")
    if not chosen.paths:
        ends = f" whose name ends with {suffix}" if suffix else ""
        raise UserError(
            f"of {len(chosen.others)} files below {labels} none is a label{ends}: {', '.join((*_PICTURES, *_JSON))}"
        )
    id, label = min(names.paths), min(chosen.paths)
    # The ending that the labels of some images have in common.
    more = Counter(each.removeprefix(one) for one, each in zip(sorted(names.paths), sorted(chosen.paths), strict=False))
    hint, count = more.most_common(1)[0]
    fix = (
        f"give --label-suffix {hint}"
        if count > 1 and hint not in chosen.paths
        else "give --label-suffix if labels are called otherwise, and the folders that correspond"
    )
    raise UserError(
        f"no label below {labels} has the path of an image below {images}, such as {label!r} and {id!r}: {fix}"
    )


def _pairs(images: Location, names: _Names, labels: Location, chosen: _Names) -> list[Pair]:
    ending = Counter(_ending(path) for path in names.paths.values()).most_common(1)[0][0]
    return match_pairs(
        {id: (images / path).uri for id, path in names.paths.items()},
        {id: (labels / path).uri for id, path in chosen.paths.items()},
        lambda id: (images / f"{id}{ending}").uri,
    )


def _match_coco(images: Location, names: _Names, file: Location) -> Matched:
    names.refuse_twice(images, "images")
    _refuse_nothing(images, names, "image")
    known = {path: id for id, path in names.paths.items()}
    find = last_names(known)
    drawn = coco_file.read(file)
    ids = {name: id for name in drawn if (id := known.get(name) or find(name)) is not None}
    if not ids:
        raise UserError(
            f"no image below {images} is among those of {file}, such as {min(known)!r} and {min(drawn)!r}: give "
            "--images the folder that its file names are relative to"
        )
    name_of: dict[str, str] = {}
    for name, id in ids.items():
        if name_of.setdefault(id, name) != name:
            raise UserError(
                f"{name_of[id]!r} and {name!r} of {file} may both be the image {id}: give --images the folder that its "
                "file names are relative to"
            )
    drawn_of = {id: drawn[name] for id, name in name_of.items()}
    pairs = [Pair(id, (images / path).uri, None, drawn_of.get(id)) for id, path in names.paths.items()]
    lone = drawn.keys() - ids.keys()
    pairs += [Pair(_ENDING.sub("", name), (images / name).uri, None, drawn[name]) for name in lone]
    others = [path for path in names.others if (images / path).path != file.path]
    notes = _passed_over(images, others, "images")
    notes += _lonely(names.paths.keys() - drawn_of.keys(), len(names.paths), lone, file)
    return Matched(sorted(pairs, key=lambda pair: pair.id), True, notes)


def last_names(known: dict[str, str]) -> Callable[[str], str | None]:
    """A function from a path to the value of the only one of the known paths that has the same name at its end."""
    found: dict[str, list[str]] = {}
    for path, value in known.items():
        found.setdefault(os.path.basename(path), []).append(value)

    def find(path: str) -> str | None:
        values = found.get(os.path.basename(path.replace("\\", "/")), [])
        return values[0] if len(values) == 1 else None

    return find


def _passed_over(folder: Location, paths: list[str], what: str) -> list[str]:
    if not paths:
        return []
    counts = _counts(Counter(_ending(path) for path in paths))
    files = "1 file" if len(paths) == 1 else f"{len(paths)} files"
    return [f"{files} in {folder} passed over as no {what}: {counts}, such as {named(paths)}"]


def _lonely(unlabelled: Collection[str], images: int, lone: Collection[str], labels: Location) -> list[str]:
    """What there is to say of images without a label, and of labels without an image."""
    notes = []
    if unlabelled:
        notes.append(f"images without a label in {labels}: {len(unlabelled)} of {images}, such as {named(unlabelled)}")
    if lone:
        notes.append(f"labels in {labels} without an image: {len(lone)}, such as {named(lone)}")
    return notes


def named(what: Iterable[str]) -> str:
    """The first of many."""
    return ", ".join(sorted(what)[:_NAMED])


def _counts(kinds: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(_NAMED)) + ", …" * (len(kinds) > _NAMED)


def _ending(path: str) -> str:
    return "folders that may not be searched" if path.endswith("/") else os.path.splitext(path)[1] or "without ending"
