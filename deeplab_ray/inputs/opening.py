"""What lies at a URI: a prepared split, a folder of images, or an image."""

import os
from collections import Counter

import pyarrow as pa

from deeplab_ray.errors import UserError
from deeplab_ray.inputs.folder import PATTERNS, FolderInputs, matcher
from deeplab_ray.inputs.naming import with_ids
from deeplab_ray.inputs.protocol import Inputs
from deeplab_ray.inputs.split import SplitInputs, split_at
from deeplab_ray.shards import MANIFEST, open_split
from deeplab_ray.storage.location import Location, locate

_KINDS_NAMED = 5


def open_inputs(
    uri: str, split: str | None = None, pattern: str | None = None, exclude: Location | None = None
) -> Inputs:
    """What lies at `uri`: a prepared split, or with `split` one of a prepared set; else a folder, a prefix or a file.

    `pattern` and `exclude` as in FolderInputs. A folder is searched no further than to its first image. Raises
    UserError, with what to do, if there is none, if it is a prepared set and no split is named, and for a pattern
    that would have no effect.
    """
    try:
        uri.encode()
    except UnicodeEncodeError:
        raise UserError(f"{os.fsencode(uri)!r} is not UTF-8: rename the folder") from None
    place = locate(uri)
    if split is None:
        split = split_at(place)
    if split is not None:
        if pattern is not None:
            raise UserError(
                f"--pattern {pattern!r} is for a folder of images, and {uri} is a prepared set: leave it out"
            )
        return SplitInputs(open_split(uri, split))
    if not place.is_root and place.is_file():
        if pattern is not None:
            raise UserError(f"--pattern {pattern!r} is for a folder of images, and {uri} is a file: leave it out")
        return FolderInputs(place.parent, file=place.name)
    inputs = FolderInputs(place, (pattern,) if pattern else PATTERNS, exclude)
    takes, kinds, splits = matcher(inputs.patterns), Counter[str](), list[str]()
    try:
        for page in place.walk(exclude):
            if any(takes(path) and not path.endswith("/") for path in page):
                return inputs
            kinds.update(_kind(path) for path in page)
            splits += (path.split("/")[0] for path in page if path.endswith(f"/{MANIFEST}") and path.count("/") == 1)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"there is no folder {place}: give a folder of images, an image, or a prepared set with --split"
        ) from None
    except PermissionError:
        raise UserError(f"{place} may not be read: change its permissions, or give another folder") from None
    raise UserError(_nothing(place, pattern, kinds, [name for name in sorted(splits) if split_at(place / name)]))


def _kind(path: str) -> str:
    return "folders that may not be searched" if path.endswith("/") else os.path.splitext(path)[1] or "without ending"


def _nothing(place: Location, pattern: str | None, kinds: Counter[str], splits: list[str]) -> str:
    if splits:
        return f"{place} is a prepared set: name one of its splits ({', '.join(splits)}) by --split"
    if not kinds:
        return f"there is no file below {place}: give a folder of images, an image, or a prepared set with --split"
    named = [f"{count} {kind}" for kind, count in kinds.most_common(_KINDS_NAMED)]
    more = ", …" if len(kinds) > _KINDS_NAMED else ""
    wanted = f"matches --pattern {pattern!r}" if pattern else f"is an image ({', '.join(p[1:] for p in PATTERNS)})"
    hint = "give another pattern, in the right case" if pattern else "name what to take by --pattern"
    return f"of {kinds.total()} files below {place} none {wanted}: there are {', '.join(named)}{more}; {hint}"


def ids(inputs: Inputs, keys: pa.Array) -> pa.Array | None:
    """The ids of images, in the order of their keys; None if they are known when the images are read (of a split)."""
    return with_ids(keys) if isinstance(inputs, FolderInputs) else None
