"""Shards: Parquet files of encoded images and labels, and the manifest that says which of them count.

    OUTPUT/<split>/manifest.json
    OUTPUT/<split>/shards-<run id>/00000.parquet

The manifest is written last, and what it does not name does not exist for a reader. Every row is a row group
of its own, without dictionary, statistics or compression (the bytes are PNG and JPEG files as they came), so
that any one sample is a single range read.
"""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deeplab_ray import datasets
from deeplab_ray.datasets import Dataset
from deeplab_ray.errors import UserError
from deeplab_ray.storage.location import Location, locate

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.binary()),
        ("label", pa.binary()),
        ("height", pa.int32()),
        ("width", pa.int32()),
    ]
)
"""A sample: id, image and label files' bytes as they came, height and width in pixels (of both)."""

MANIFEST = "manifest.json"
_OPEN_SHARDS = 256


@dataclass(frozen=True)
class Shard:
    """One Parquet file."""

    path: str
    """Relative to the split's folder."""
    rows: int
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Bad:
    """A pair that was left out, and why."""

    id: str
    reason: str


@dataclass(frozen=True)
class Manifest:
    """What a prepared split holds."""

    dataset: str
    split: str
    classes: list[str]
    images: int
    pixels: list[int]
    """Labelled pixels of each class."""
    shards: list[Shard]
    bad: list[Bad]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "Manifest":
        """Raises ValueError where the text is not a manifest."""
        try:
            fields = json.loads(text)
            fields["shards"] = [Shard(**shard) for shard in fields["shards"]]
            fields["bad"] = [Bad(**bad) for bad in fields["bad"]]
            return cls(**fields)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a manifest: {error}") from None


@dataclass(frozen=True)
class Sample:
    """One image and its label, encoded as they came; height and width in pixels."""

    id: str
    image: bytes
    label: bytes
    height: int
    width: int


@dataclass(frozen=True)
class Split:
    """A prepared split. Picklable; opens its files when they are first read, and may be read by many threads.

    Samples are counted through the shards in the manifest's order, then through their rows.
    """

    folder: Location
    manifest: Manifest

    @property
    def dataset(self) -> Dataset:
        return datasets.get(self.manifest.dataset)

    def __len__(self) -> int:
        return self.manifest.images

    def paths(self) -> list[str]:
        """The shards' paths, as `folder.filesystem` wants them."""
        return [(self.folder / shard.path).path for shard in self.manifest.shards]

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(shard.rows for shard in self.manifest.shards))

    def read(self, index: int) -> Sample:
        """Sample `index`, 0 ≤ index < len(self), by one range read (and one more for a shard's first).

        Raises IndexError outside of the range, OSError where storage fails.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)} in {self.folder}")
        shard = bisect_right(self._ends, index)
        row = index - (self._ends[shard - 1] if shard else 0)
        location = self.folder / self.manifest.shards[shard].path
        try:
            table = _read_row(location, row)
        except OSError:
            # An open handle keeps the keys of S3 that it was opened with, which may have expired since.
            _open.cache_clear()
            table = _read_row(location, row)
        return Sample(**table.to_pylist()[0])


@lru_cache(maxsize=_OPEN_SHARDS)
def _open(location: Location) -> tuple[pa.NativeFile, pq.FileMetaData]:
    """A shard's handle and footer. Shards never change, and reading a handle at offsets is thread-safe."""
    file = location.filesystem.open_input_file(location.path)
    return file, pq.read_metadata(file)


def _read_row(location: Location, row: int) -> pa.Table:
    file, footer = _open(location)
    return pq.ParquetFile(file, metadata=footer, pre_buffer=True).read_row_group(row)


def write_shard(folder: Location, name: str, rows: Iterable[Mapping[str, Any]]) -> Shard | None:
    """Write rows of SCHEMA to folder/name in one step; `Shard.path` is the folder's name / name.

    Nothing is written, and None returned, where there are no rows.
    """
    sink = pa.BufferOutputStream()
    count = 0
    with pq.ParquetWriter(sink, SCHEMA, use_dictionary=False, write_statistics=False, compression="none") as writer:
        for row in rows:
            writer.write_table(pa.Table.from_pylist([row], SCHEMA))
            count += 1
    if not count:
        return None
    content = sink.getvalue()
    (folder / name).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    return Shard(path=f"{folder.name}/{name}", rows=count, sha256=digest, bytes=content.size)


def open_split(uri: str, split: str) -> Split:
    """The prepared split at uri/split, or at uri itself if that is a split's folder.

    Raises UserError where there is none, or where it was prepared with other classes than today's.
    """
    for folder in (locate(uri) / split, locate(uri)):
        try:
            text = (folder / MANIFEST).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            continue
        try:
            manifest = Manifest.from_json(text)
        except ValueError as error:
            raise UserError(f"{folder / MANIFEST} is broken ({error}): prepare again with --overwrite") from None
        if manifest.split != split:
            raise UserError(f"{folder} holds the split {manifest.split!r}, not {split!r}")
        if manifest.classes != list(datasets.get(manifest.dataset).classes):
            raise UserError(f"{folder} was prepared with other classes: prepare it again with --overwrite")
        return Split(folder, manifest)
    raise UserError(f"no prepared split {split!r} at {locate(uri)}: run jobs/prepare.py with --output {uri}")
