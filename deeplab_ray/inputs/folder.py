"""The image files below a folder or prefix, as people have them."""

import errno
import fnmatch
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from deeplab_ray.errors import first_sentence
from deeplab_ray.inputs.naming import PART, without_ending
from deeplab_ray.shards import Sample
from deeplab_ray.storage.location import Location
from deeplab_ray.storage.patience import lasting, with_patience

PATTERNS = tuple(f"*{ending}" for ending in (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".gif"))
"""What is taken for an image in a folder, in any case."""

_LARGEST_FILE = 2**31 - 1


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
        takes = matcher(self.patterns)
        parts, names = [], list[str]()
        for page in self.folder.walk(self.exclude):
            names += filter(takes, page)
            if len(names) >= PART:
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
        return without_ending(key) if self.file else None

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


def matcher(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    """Whether a relative path is an image's, by FolderInputs.patterns; a folder that may not be searched is taken."""
    if patterns == PATTERNS:
        endings = (*(pattern[1:] for pattern in PATTERNS), "/")
        return lambda path: path.lower().endswith(endings)
    tests = [(re.compile(fnmatch.translate(pattern)).match, "/" in pattern) for pattern in patterns]

    def takes(path: str) -> bool:
        name = path[path.rfind("/") + 1 :]
        return not name or any(test(path if whole else name) for test, whole in tests)

    return takes
