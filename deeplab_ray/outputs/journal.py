"""What a job has done so far: a journal beside its outputs, so that the same command again does only the rest.

    OUTPUT/.progress/journal/<time>-<random>.parquet    a few rows each: one for every image that is through

A row is written after the image's own outputs are in place. So whatever the journal names is there and whole; of what
was under way when a job was killed, the journal says nothing, and it is done again. Rows are small, and written at
most once a second; many small files are merged into one, so that the journal of millions of images is read in seconds.

Nothing here needs Ray.
"""

import contextlib
import io
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deeplab_ray.storage.location import Location
from deeplab_ray.storage.patience import with_patience

PROGRESS = ".progress"
"""Folder in a job's output that holds what only the job itself reads."""
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("id", pa.string()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("measured", pa.binary()),
    ]
)
_ENDING = ".parquet"
_FLUSH_EVERY_S = 1.0
# So many small files are merged into one.
_MERGE_FILES = 128
_CHUNK = 1 << 16

Measured = dict[str, NDArray[np.generic]]
"""Named arrays."""


@dataclass(frozen=True)
class Done:
    """An image that is through."""

    key: str
    """Under which the input knows it."""
    id: str
    stage: str | None = None
    """The stage at which it failed; None if all went well."""
    reason: str | None = None
    """Why it failed, in one line."""
    measured: Measured = field(default_factory=dict)


class Journal:
    """The journal of the job whose output is `output`. One process writes it."""

    def __init__(self, output: Location) -> None:
        self.folder = output / PROGRESS / "journal"
        self._rows: list[Done] = []
        self._small: list[str] = []
        self._flushed = time.monotonic()

    def add(self, done: Done) -> None:
        """Note an image. It is written down by the next `flush`, or by itself a second after the last."""
        self._rows.append(done)
        self.keep_up()

    def keep_up(self) -> None:
        """Flush, if the last time was a second ago. To be called now and then where images are slow."""
        if time.monotonic() - self._flushed >= _FLUSH_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Write down what was added."""
        if self._rows:
            self._small.append(self._write(_table(self._rows)))
            self._rows = []
            if len(self._small) >= _MERGE_FILES:
                self._merge()
        self._flushed = time.monotonic()

    def read(self) -> Iterator[Done]:
        """The rows, each key once."""
        seen: set[str] = set()
        for table in self.tables():
            for row in table.to_pylist():
                if row["key"] not in seen:
                    seen.add(row["key"])
                    yield Done(**{**row, "measured": _unpack(row["measured"])})

    def tables(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The files' content, some columns only if asked for. After a kill while files were merged a key may occur
        twice. What a damaged file said is done again. Raises JobError if storage fails for long."""
        for name in with_patience(self.folder.files, self.folder):
            if not name.endswith(_ENDING):
                continue  # left by a writer that was killed
            content = pa.BufferReader(with_patience((self.folder / name).read_bytes, self.folder))
            try:
                table = pq.read_table(content, columns=columns, use_threads=False, page_checksum_verification=True)
            except (OSError, pa.ArrowException):
                continue
            yield table

    def clear(self) -> None:
        """Forget everything."""
        self.folder.delete_tree()
        self._rows, self._small = [], []

    def _write(self, table: pa.Table) -> str:
        name = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(4)}{_ENDING}"
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
        content = sink.getvalue().to_pybytes()
        with_patience(lambda: (self.folder / name).write_bytes(content), self.folder)
        return name

    def _merge(self) -> None:
        """Put the small files of this process into one. Killed on the way, rows are there twice, never missing."""
        tables = [pq.read_table(pa.BufferReader((self.folder / name).read_bytes())) for name in self._small]
        self._write(pa.concat_tables(tables))
        for name in self._small:
            file = self.folder / name
            with contextlib.suppress(OSError):  # what stays is read once more, nothing worse
                file.filesystem.delete_file(file.path)
        self._small = []


def missing(keys: pa.Array | pa.ChunkedArray, done: Iterable[pa.Array | pa.ChunkedArray]) -> NDArray[np.int64]:
    """Positions of the keys that occur in none of `done`, int64, ascending.

    keys: N different strings, fewer than 2^31. Ten million keys, all done, take well under a minute and under 1 GB,
    most of it the keys themselves (`jobs/benchmark.py resume`): they are compared by 96 bits of hash. Two keys of one
    hash, which among ten million has a chance of 10⁻¹⁵, would be taken for one.
    """
    hashes, sums = _hashed(keys)
    order = np.argsort(hashes).astype(np.int32)
    hashes.sort()
    sums = sums[order]
    found = np.zeros(len(keys), bool)
    if not len(keys):
        return np.flatnonzero(found)
    for array in done:
        theirs, their_sums = _hashed(array)
        # In order, so that the search goes through memory once.
        sort = np.argsort(theirs)
        theirs, their_sums = theirs[sort], their_sums[sort]
        at = np.searchsorted(hashes, theirs)
        # Once, unless several keys have the same 64 bits.
        while (match := (at < len(hashes)) & (hashes[np.minimum(at, len(hashes) - 1)] == theirs)).any():
            at, theirs, their_sums = at[match], theirs[match], their_sums[match]
            found[order[at[sums[at] == their_sums]]] = True
            at = at + 1
    return np.flatnonzero(~found)


def _hashed(keys: pa.Array | pa.ChunkedArray) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Two hashes of each key: Python's own, which differs from process to process, and CRC-32."""
    hashes, sums = np.empty(len(keys), np.int64), np.empty(len(keys), np.uint32)
    start = 0
    for chunk in keys.chunks if isinstance(keys, pa.ChunkedArray) else [keys]:
        # In pieces whose Python objects are few.
        for offset in range(0, len(chunk), _CHUNK):
            names = chunk.slice(offset, _CHUNK).cast(pa.large_binary()).to_pylist()
            hashes[start : start + len(names)] = np.fromiter(map(hash, names), np.int64, len(names))
            sums[start : start + len(names)] = np.fromiter(map(crc32, names), np.uint32, len(names))
            start += len(names)
    return hashes, sums


def _table(rows: Iterable[Done]) -> pa.Table:
    return pa.Table.from_pylist([{**vars(row), "measured": _pack(row.measured)} for row in rows], SCHEMA)


def _pack(arrays: Mapping[str, NDArray[np.generic]]) -> bytes | None:
    if not arrays:
        return None
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **arrays)
    return file.getvalue()


def _unpack(content: bytes | None) -> Measured:
    if content is None:
        return {}
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)
