"""The images of a prepared split."""

import json
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import pyarrow as pa

from deeplab_ray.shards import MANIFEST, Sample, Shard, Split, read_shard
from deeplab_ray.storage.location import Location
from deeplab_ray.storage.patience import with_patience

# Shards up to this size are read whole, and a process keeps so many of them.
_WHOLE_BYTES = 16 * 2**20
_WHOLE_KEPT = 4


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


def split_at(folder: Location) -> str | None:
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
