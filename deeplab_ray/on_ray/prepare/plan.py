"""Which rows make which shard: a function of what the files hold, so that the same input gives the same shards."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import features

from deeplab_ray.datasets import Dataset, Pair
from deeplab_ray.datasets.survey import Facts
from deeplab_ray.on_ray.prepare.request import Options
from deeplab_ray.shards import FORMAT

MB = 10**6
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


@dataclass(frozen=True)
class Part:
    """What of a pair goes into a shard."""

    pair: Pair
    image_sha: bytes
    label_sha: bytes | None
    """What the survey found, see `survey.Facts`."""
    first: int
    last: int
    """Tiles first ≤ number < last of the image; a whole image is a single one."""


@dataclass(frozen=True)
class ShardPlan:
    """A shard to be written."""

    split: str
    folder: str
    """Name of the folder in the split's own."""
    name: str
    parts: list[Part]


@dataclass(frozen=True)
class SplitPlan:
    """The shards of a split, in their order. Iterating makes them one by one."""

    split: str
    folder: str
    pairs: Sequence[Pair]
    facts: Facts
    kept: NDArray[np.int64]
    """Positions of the pairs that are prepared."""
    ends: NDArray[np.int64]
    """Of each kept pair: the number of rows that it and those before it make."""
    cuts: list[int]
    """The row at which each shard begins, and the number of rows."""

    def __len__(self) -> int:
        return len(self.cuts) - 1

    def name(self, number: int) -> str:
        return f"{number:05d}.parquet"

    def __iter__(self) -> Iterator[ShardPlan]:
        for number in range(len(self)):
            yield ShardPlan(self.split, self.folder, self.name(number), self._parts(*self.cuts[number : number + 2]))

    def _parts(self, first: int, last: int) -> list[Part]:
        parts = []
        at = int(np.searchsorted(self.ends, first, side="right"))
        while first < last:
            position, end = int(self.kept[at]), int(self.ends[at])
            start, facts = int(self.ends[at - 1]) if at else 0, self.facts
            shas = facts.image_sha[position], facts.label_sha[position]
            parts.append(Part(self.pairs[position], *shas, first - start, min(end, last) - start))
            first, at = end, at + 1
        return parts


def plan(
    dataset: Dataset,
    split: str,
    pairs: Sequence[Pair],
    facts: Facts,
    weights: Sequence[int],
    left_out: set[str],
    options: Options,
) -> SplitPlan:
    """Share the rows of a split among shards of about equal size, the given one at most.

    weights: about how many bytes each pair will take. left_out: ids of pairs that are not prepared.
    """
    kept = np.array([at for at, pair in enumerate(pairs) if pair.id not in left_out], np.int64)
    tiling = options.tiling
    counts = np.array([max(1, len(tiling.boxes(*facts.sizes[at]))) if tiling else 1 for at in kept], np.int64)
    sizes = np.array([weights[at] for at in kept], np.float64)
    rows = np.repeat(sizes / counts, counts)
    cuts = share_out(rows, options.shard_mb * MB, options.rows_per_shard)
    return SplitPlan(split, _folder(dataset, split, facts, kept, options), pairs, facts, kept, np.cumsum(counts), cuts)


def share_out(sizes: NDArray[np.float64], most: float, most_rows: int | None) -> list[int]:
    """Cut a row of things of these sizes into as few parts as are needed, as equal as can be.

    Returns where each part begins, and the number of things. No part is above `most` by more than half a thing, nor has
    more things than `most_rows`; none is empty.
    """
    if not len(sizes):
        return [0]
    rows, ends = len(sizes), np.cumsum(sizes)
    room = min(most_rows or rows, rows)
    parts = min(rows, max(1, int(np.ceil(ends[-1] / most)), -(-rows // room)))
    cuts = [0]
    for number in range(1, parts):
        aim = ends[-1] * number / parts
        at = int(np.searchsorted(ends, aim))
        # The thing that the aim lies in goes to the side on which more of it is.
        at += bool(aim - (ends[at] - sizes[at]) > ends[at] - aim)
        at = max(at, cuts[-1] + 1, rows - (parts - number) * room)
        cuts.append(min(at, cuts[-1] + room, rows - (parts - number)))
    return [*cuts, rows]


def _folder(dataset: Dataset, split: str, facts: Facts, kept: NDArray[np.int64], options: Options) -> str:
    """Name of a run's folder: equal if the same shards will lie in it."""
    asked: dict[str, Any] = {
        "format": FORMAT,
        "classes": dataset.table.to_json(),
        # What the values in labels mean. A format of somebody's own may not tell more than where it lies in memory.
        "format of labels": _ADDRESS.sub("", repr(dataset.labels)),
        "values": sorted(f"{value!r} {dataset.labels.train_id(value)}" for value in facts.pixels),
        "options": options.of_content(),
        "shards": [options.shard_mb, options.rows_per_shard],
        # Other versions may write the same in other bytes.
        "software": [features.version("zlib"), *(metadata.version(name) for name in ("pillow", "pyarrow"))],
    }
    digest = hashlib.sha256(json.dumps([split, asked], sort_keys=True).encode())
    for at in kept:
        digest.update(facts.ids[at].encode() + b"\0" + facts.image_sha[at] + (facts.label_sha[at] or b"-") + b"\n")
    return f"shards-{digest.hexdigest()[:12]}"
