"""What a batch prediction reads: a prepared split, or a folder of images as people have them.

The driver lists the keys of all images once, and sends each worker those of its part, with the inputs themselves,
which are small. A key is enough to read an image anywhere.
"""

import errno
import fnmatch
import json
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deeplab_ray.errors import UserError, first_sentence
from deeplab_ray.shards import MANIFEST, Sample, Shard, Split, open_split, read_shard
from deeplab_ray.storage.location import Location, locate
from deeplab_ray.storage.patience import lasting, with_patience

PATTERNS = tuple(f"*{ending}" for ending in (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".gif"))
"""What is taken for an image in a folder, in any case."""

# Shards up to this size are read whole, and a process keeps so many of them.
_WHOLE_BYTES = 16 * 2**20
_WHOLE_KEPT = 4
_LARGEST_FILE = 2**31 - 1
_KINDS_NAMED = 5
# Names at a time; what is made of them in Python takes some hundred bytes each.
_PART = 2**18
_ENDING = r"([^/])\.[^./]*$"


class Inputs(Protocol):
    """Images with a key each. Picklable; of a folder's files it holds nothing. May be read by many threads."""

    @property
    def uri(self) -> str:
        """Where they come from, as the user would type it."""

    def keys(self) -> pa.Array:
        """The keys of all images (large_string), each once, always in the same order. Takes a listing of the folder."""

    def read(self, key: str) -> Sample:
        """Read an image. Height and width are 0 where they are not known before it is decoded.

        Storage that fails is waited for. Raises FileNotFoundError, or ValueError with a short reason, for what is wrong
        with this image alone; UserError naming the shard if that is damaged or missing; JobError if storage goes on
        failing, and OSError if it fails in a way that waiting does not change.
        """

    def id_of(self, key: str) -> str | None:
        """The image's id if the key alone tells it; None if the image has to be read, or all keys seen (`ids`)."""


@dataclass(frozen=True)
class SplitInputs:
    """The images of a prepared split, with their labels; keys are their numbers in it, as text."""

    split: Split
    labelled_only: bool = False
    """Leave out those without a label."""

    @property
    def uri(self) -> str:
        return self.split.folder.uri

    def keys(self) -> pa.Array:
        numbers = self.split.labelled() if self.labelled_only else range(len(self.split))
        array = np.arange(len(numbers)) if isinstance(numbers, range) else np.asarray(numbers, np.int64)
        return pa.array(array, pa.int64()).cast(pa.large_string())

    def read(self, key: str) -> Sample:
        """As `Inputs.read`; a key that is no image's number raises ValueError.

        Neighbours are often read by different processes, each of which would fetch a large shard whole for a few of
        its images. So only small shards are read whole, and kept for the next ones; of a large one each image is a
        range read. Both are verified: a damaged shard raises UserError, which names it.
        """
        try:
            shard, row = self.split.place(int(key))
        except (ValueError, IndexError):
            raise ValueError(f"there is no image {key!r} in {self.uri}") from None
        small = shard.bytes <= _WHOLE_BYTES
        action = partial(_from_whole, self.split.folder, shard, row) if small else partial(self.split.read, int(key))
        return with_patience(action, self.split.folder / shard.path)

    def id_of(self, key: str) -> str | None:
        return None


def _from_whole(folder: Location, shard: Shard, row: int) -> Sample:
    return _whole(folder, shard)[row]


@lru_cache(maxsize=_WHOLE_KEPT)
def _whole(folder: Location, shard: Shard) -> list[Sample]:
    return read_shard(folder, shard)


@dataclass(frozen=True)
class FolderInputs:
    """The image files below a folder or prefix; keys are their paths relative to it.

    Not searched are hidden files and folders (.…), and `exclude`. A folder that may not be searched is a key of its
    own, with a / at its end, and a link that dangles is one as well, so that reading them gives the reason.
    """

    folder: Location
    patterns: tuple[str, ...] = PATTERNS
    """In the shell's way; * stands for slashes, too. One with a slash is held against the path relative to the folder,
    one without against the name. Upper and lower case count, but not in those of PATTERNS."""
    exclude: Location | None = None
    """A folder below this one that is not searched, such as that of the output."""
    file: str | None = None
    """The name of the only file that is meant."""

    @property
    def uri(self) -> str:
        return (self.folder / self.file if self.file else self.folder).uri

    def keys(self) -> pa.Array:
        if self.file:
            return pa.array([self.file], pa.large_string())
        takes = _matcher(self.patterns)
        parts, names = [], list[str]()
        for page in self.folder.walk(self.exclude):
            names += filter(takes, page)
            if len(names) >= _PART:
                parts.append(pa.array(names, pa.large_string()))
                names = []
        parts.append(pa.array(names, pa.large_string()))
        listed = pa.chunked_array(parts)
        del parts
        listed = listed.take(pc.sort_indices(listed)).combine_chunks()
        # They differ, unless a file's name looks as if one that is not UTF-8 had been made readable.
        twice = pc.any(pc.equal(listed[1:], listed[:-1])).as_py()
        return pc.unique(listed) if twice else listed

    def read(self, key: str) -> Sample:
        """As `Inputs.read`. The sample's id is the key, or what `id_of` gives: in a folder it is `ids` that counts."""
        if key.endswith("/"):
            raise ValueError("this folder may not be searched by this user: what lies in it is missing")
        if {"", ".", ".."} & set(key.split("/")):
            raise ValueError("its path has a part that is empty, . or ..")
        reader = self._read_object if self.folder.is_s3 else self._read_file
        return Sample(self.id_of(key) or key, with_patience(partial(reader, key), self.folder), None, 0, 0)

    def id_of(self, key: str) -> str | None:
        return _without_ending(key) if self.file else None

    def _read_file(self, key: str) -> bytes:
        path = self.folder.local_path(key)
        try:
            # Opening a pipe would wait for somebody who writes.
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise ValueError("it is no file, but a device, a pipe or a socket")
            with open(path, "rb") as file:
                _check_size(os.fstat(file.fileno()).st_size)
                return file.read()
        except FileNotFoundError:
            raise FileNotFoundError(f"{key} is missing" + (": a link to nothing" * os.path.islink(path))) from None
        except OSError as error:
            # A disk's bad sector is one file's, and no reason to end all.
            if lasting(error) or error.errno == errno.EIO:
                raise ValueError(f"it cannot be read: {error.strerror}") from None
            raise

    def _read_object(self, key: str) -> bytes:
        location = self.folder / key
        try:
            with location.filesystem.open_input_file(location.path) as file:
                _check_size(file.size())
                return file.read()
        except FileNotFoundError:
            raise FileNotFoundError(f"{key} is missing") from None
        except OSError as error:
            if lasting(error):
                raise ValueError(f"it cannot be read: {first_sentence(str(error))}") from None
            raise


def _check_size(size: int) -> None:
    if size > _LARGEST_FILE:
        raise ValueError(f"the file has {size / 1e9:.1f} GB, which is more than an image's 2.1")


def _matcher(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    """Whether a relative path is an image's, by FolderInputs.patterns; a folder that may not be searched is taken."""
    if patterns == PATTERNS:
        endings = (*(pattern[1:] for pattern in PATTERNS), "/")
        return lambda path: path.lower().endswith(endings)
    tests = [(re.compile(fnmatch.translate(pattern)).match, "/" in pattern) for pattern in patterns]

    def takes(path: str) -> bool:
        name = path[path.rfind("/") + 1 :]
        return not name or any(test(path if whole else name) for test, whole in tests)

    return takes


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
        split = _split_at(place)
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
    takes, kinds, splits = _matcher(inputs.patterns), Counter[str](), list[str]()
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
    raise UserError(_nothing(place, pattern, kinds, [name for name in sorted(splits) if _split_at(place / name)]))


def _split_at(folder: Location) -> str | None:
    """Name of the prepared split in this very folder, by its manifest, be that broken; None if there is none."""
    try:
        text = (folder / MANIFEST).read_bytes()
    except OSError:  # which a listing will tell better
        return None
    try:
        fields = json.loads(text)
    except ValueError:
        return folder.name if b'"shards"' in text else None
    # Other programs have files of that name.
    return str(fields.get("split", folder.name)) if isinstance(fields, dict) and "shards" in fields else None


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


def with_ids(keys: pa.Array) -> pa.Array:
    """The ids (large_string) of files, in the order of `keys`, all the keys of a folder: no id comes twice.

    An id is the path without the name's ending. But files that have it in common, or differ in upper and lower case
    or in how Unicode composes letters alone, all keep their whole path, and so do others whose id that would be. 10
    million sorted keys took 10 to 13 s on two busy cores (41 s with letters beyond ASCII in each) and 0.8 GB beside
    their own memory.
    """
    keys = keys.cast(pa.large_string())
    parts = [keys[at : at + _PART] for at in range(0, len(keys), _PART)]
    folded = pa.chunked_array([_folded(_without_endings(part)) for part in parts], pa.large_string())
    shared = _shared(folded)
    # Only what has an ending still, such as a.jpg of a.jpg.png, may be the whole path of another.
    dotted = np.concatenate(
        [np.zeros(0, np.int64)]
        + [
            np.flatnonzero(pc.match_substring_regex(part, r"\.[^/]*$").to_numpy(zero_copy_only=False)) + i * _PART
            for i, part in enumerate(folded.chunks)
        ]
    )
    if len(dotted) and shared.any():
        candidates = folded.take(dotted)
        while True:
            kept = _folded(keys.filter(pa.array(shared)))
            hit = pc.is_in(candidates, value_set=kept.filter(pc.is_in(kept, value_set=candidates.combine_chunks())))
            new = dotted[np.asarray(hit)]
            if shared[new].all():
                break
            shared[new] = True
    del folded
    chosen = [
        pc.if_else(pa.array(shared[i * _PART : (i + 1) * _PART]), part, _without_endings(part))
        for i, part in enumerate(parts)
    ]
    return pa.chunked_array(chosen, pa.large_string()).combine_chunks()


def _without_endings(paths: pa.Array) -> pa.Array:
    return pc.replace_substring_regex(paths, _ENDING, r"\1")


def _without_ending(path: str) -> str:
    return _without_endings(pa.array([path], pa.large_string()))[0].as_py()


def _folded(paths: pa.Array) -> pa.Array:
    """As file systems compare that do not tell upper from lower case."""
    if pc.all(pc.string_is_ascii(paths)).as_py() is not False:
        return pc.ascii_lower(paths)
    names = (unicodedata.normalize("NFC", path.casefold()) for path in paths.to_pylist())
    return pa.array(names, pa.large_string())


def _shared(names: pa.ChunkedArray) -> NDArray[np.bool_]:
    """bool [n]: whether there is another one that is equal."""
    order = pc.sort_indices(names).to_numpy()
    shared = np.zeros(len(order), bool)
    for window in _windows(len(order)):
        sorted_names = names.take(order[window]).combine_chunks()
        same = pc.equal(sorted_names[1:], sorted_names[:-1]).to_numpy(zero_copy_only=False)
        shared[order[window][1:][same]] = True
        shared[order[window][:-1][same]] = True
    return shared


def _windows(count: int) -> Iterator[slice]:
    """Slices of 0..count, each of which has its first in common with the one before."""
    return (slice(at, at + _PART + 1) for at in range(0, count, _PART))
