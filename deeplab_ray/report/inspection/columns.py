"""The ids and sizes of a split's images, read without the images."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from deeplab_ray.report.inspection.verification import Problem, check_shard
from deeplab_ray.shards import Shard, Split
from deeplab_ray.storage.location import Location
from deeplab_ray.storage.patience import with_patience

READ_AT_MOST = {False: 200_000, True: 5_000}
"""Images of a split whose ids and sizes are read, on a disk and on S3 (True), where each takes a request: some ten
seconds. Of a larger split the shards are sampled."""
_THREADS = 8
_SCHEMA = pa.schema([("id", pa.string()), ("height", pa.int32()), ("width", pa.int32())])


@dataclass(frozen=True)
class Columns:
    """Ids and sizes of a split's images, or of those in a sample of its shards."""

    ids: pa.ChunkedArray
    sizes: dict[tuple[int, int], int]
    """Number of images of each (height, width), in falling order."""
    shards: int
    """Number of shards that they come from."""
    problems: tuple[Problem, ...]
    """Shards that could not be read."""

    @property
    def images(self) -> int:
        return len(self.ids)

    @property
    def heights(self) -> NDArray[np.int64]:
        """int64 [images], rising."""
        return self._side(0)

    @property
    def widths(self) -> NDArray[np.int64]:
        """int64 [images], rising."""
        return self._side(1)

    def _side(self, axis: int) -> NDArray[np.int64]:
        sides = np.array([size[axis] for size in self.sizes], np.int64)
        return np.sort(np.repeat(sides, np.array(list(self.sizes.values()), np.int64)))


def read_columns(split: Split, seed: int, at_most: int | None = None) -> Columns:
    """Read the ids and sizes of a split's images: of all, or of shards drawn by `seed` that hold about `at_most`.

    Whatever else is in the shards stays unread. Storage that fails is waited for; JobError if it goes on failing.
    """
    shards = _drawn(split.manifest.shards, at_most or READ_AT_MOST[split.folder.is_s3], seed)
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(partial(_read, split.folder), shards))
    tables = [each for each in found if isinstance(each, pa.Table)]
    table = pa.concat_tables([_SCHEMA.empty_table(), *tables])
    pairs = Counter(zip(table["height"].to_pylist(), table["width"].to_pylist(), strict=True))
    return Columns(
        ids=table["id"],
        sizes=dict(pairs.most_common()),
        shards=len(tables),
        problems=tuple(each for each in found if isinstance(each, Problem)),
    )


def _drawn(shards: Sequence[Shard], at_most: int, seed: int) -> list[Shard]:
    """All shards if they hold no more rows than that; else as many of them, in their order, one at least."""
    if sum(shard.rows for shard in shards) <= at_most:
        return list(shards)
    order = np.random.default_rng(seed).permutation(len(shards))
    rows = np.cumsum([shards[number].rows for number in order])
    count = max(1, int(np.searchsorted(rows, at_most, "right")))
    return [shards[number] for number in sorted(order[:count])]


def _read(folder: Location, shard: Shard) -> pa.Table | Problem:
    action = partial(_columns, folder / shard.path)
    try:
        return action()
    except FileNotFoundError:
        return Problem((folder / shard.path).uri, "missing", "is missing")
    except (OSError, pa.ArrowException):
        # Either it is damaged or storage failed for a moment, which its sha256 tells.
        return check_shard(folder, shard) or with_patience(action, folder / shard.path)


def _columns(location: Location) -> pa.Table:
    with location.filesystem.open_input_file(location.path) as file:
        reader = pq.ParquetFile(file, pre_buffer=location.is_s3, page_checksum_verification=True)
        return reader.read(_SCHEMA.names, use_threads=False)
