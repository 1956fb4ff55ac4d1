"""What is to be prepared, and what can be told of it before any file is opened. Needs no Ray."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

from deeplab_ray import datasets
from deeplab_ray.datasets import Dataset, Pair
from deeplab_ray.datasets.base import MissingSplitError
from deeplab_ray.datasets.facts import Facts
from deeplab_ray.errors import UserError
from deeplab_ray.images import MAX_PIXELS
from deeplab_ray.on_ray.prepare.publish import is_published
from deeplab_ray.on_ray.prepare.tiles import Tiling
from deeplab_ray.shards import MANIFEST
from deeplab_ray.storage.access import check_access
from deeplab_ray.storage.location import Location, locate
from deeplab_ray.storage.patience import with_patience


@dataclass(frozen=True)
class Options:
    """How a set is prepared. Raises UserError for what cannot be."""

    skip_bad: bool = False
    """Leave out bad pairs, listed in the manifest, instead of refusing the whole."""
    strict: bool = False
    """Refuse what would only be warned of."""
    overwrite: bool = False
    """Replace what was prepared there before."""
    exif: Literal["apply", "ignore"] = "apply"
    """Turn images as their EXIF data says, as viewers show them, or leave them as they are stored, if labels were drawn
    on that."""
    max_megapixels: float = MAX_PIXELS / 1e6
    """Larger images are bad; they are refused before they take memory."""
    min_object_pixels: int = 0
    """Leave out images with fewer labelled pixels of classes other than "background"."""
    tiles: tuple[int, int] | None = None
    """Cut images larger than this height and width into tiles of that size, kept as PNGs with ids ID_yTOP_xLEFT."""
    overlap: int = 0
    """Pixels that neighbouring tiles share."""
    shard_mb: float = 128
    """Size of a shard in MB, about; a task makes one in memory."""
    rows_per_shard: int | None = None
    """Most images in a shard, whatever its size; unset: the size alone decides."""

    def __post_init__(self) -> None:
        if self.rows_per_shard is not None and self.rows_per_shard < 1:
            raise UserError(f"rows per shard must be at least 1, not {self.rows_per_shard}")
        if not 0 < self.shard_mb < math.inf:
            raise UserError(f"--shard-mb {self.shard_mb:g} must be a number above 0")
        if not 0 < self.max_megapixels < math.inf:
            raise UserError(f"--max-megapixels {self.max_megapixels:g} must be a number above 0")
        if self.min_object_pixels < 0:
            raise UserError(f"--min-object-pixels {self.min_object_pixels} must not be negative")
        if self.overlap and self.tiles is None:
            raise UserError(f"--overlap {self.overlap} is that of tiles: give --tiles HEIGHT WIDTH, too")
        _ = self.tiling

    @cached_property
    def tiling(self) -> Tiling | None:
        """None: images stay whole."""
        return self.tiles and Tiling(*self.tiles, self.overlap)

    @property
    def max_pixels(self) -> int:
        return round(self.max_megapixels * 1e6)

    def of_content(self) -> dict[str, Any]:
        """Those that decide what a prepared set holds, unless they are as usual."""
        fields: dict[str, Any] = {}
        if self.tiling:
            fields["tiles"] = {"height": self.tiling.height, "width": self.tiling.width, "overlap": self.overlap}
        if self.exif != "apply":
            fields["exif"] = self.exif
        if self.min_object_pixels:
            fields["min_object_pixels"] = self.min_object_pixels
        return fields


class ClassFinder(Protocol):
    """What finds the classes of a set once its labels have been looked at."""

    def find(self, facts: Mapping[str, Facts]) -> Dataset:
        """The dataset with the classes that the facts of each split show; they are shown and saved. UserError if there
        are none."""

    def confirm(self) -> None:
        """Raise UserError unless the user takes them."""


@dataclass(frozen=True)
class Request:
    """What is to be prepared, once it is known that it can be."""

    dataset: Dataset
    source: Location
    output: Location
    pairs: dict[str, list[Pair]]
    """By split, each in the order of ids."""
    options: Options
    finder: ClassFinder | None = None
    """None: the dataset has its classes."""


def check_request(
    dataset: str | Dataset,
    source: str,
    output: str,
    splits: Sequence[str] | None = None,
    options: Options | None = None,
) -> Request:
    """What `prepare` will do; it finds the pairs, but opens none of their files. Needs no Ray.

    dataset: its name, or the dataset itself. splits: none or empty for all that the source holds.
    Raises UserError for a wrong dataset, source, split or output, and for what is already prepared (unless
    `overwrite`).
    """
    options = options or Options()
    what = datasets.get(dataset) if isinstance(dataset, str) else dataset
    place, target = locate(source), locate(output)
    if place == target:
        raise UserError(f"--output {target} is the --source: give a folder of its own")
    check_access(read=[place], write=[target])
    if not place.exists():
        raise UserError(f"there is no folder {place}: --source is where {what.name} lies")
    pairs = _find_pairs(what, place, splits)
    if not options.overwrite and (split := next((split for split in pairs if is_published(target / split)), None)):
        raise UserError(f"{target / split / MANIFEST} exists: give --overwrite to prepare it again")
    return Request(what, place, target, pairs, options)


def _find_pairs(dataset: Dataset, source: Location, splits: Sequence[str] | None) -> dict[str, list[Pair]]:
    for split in splits or []:
        if split not in dataset.splits:
            raise UserError(f"{dataset.name} has no split {split!r}: take some of {', '.join(dataset.splits)}")
    if splits:
        return {split: _pairs(dataset, source, split) for split in dict.fromkeys(splits)}
    found, missing = {}, []
    for split in dataset.splits:
        if split not in dataset.unlabelled:
            try:
                found[split] = _pairs(dataset, source, split)
            except MissingSplitError as error:
                missing.append(error)
    if not found:
        raise missing[0]
    return found


def _pairs(dataset: Dataset, source: Location, split: str) -> list[Pair]:
    pairs = sorted(with_patience(lambda: dataset.pairs(source, split), source), key=lambda pair: pair.id)
    for one, other in itertools.pairwise(pairs):
        if one.id == other.id:
            raise UserError(
                f"{dataset.name} ({split}) has two images {one.id!r}, {one.image} and {other.image}: give each a name "
                "of its own"
            )
    for line in dataset.unused(source, split, pairs):
        print(f"{split}: {line}", flush=True)
    return pairs
