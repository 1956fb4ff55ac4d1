"""Look at every pair of a set once, by Ray tasks, before anything is written."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import NamedTuple

from deeplab_ray.datasets import Dataset, Pair, survey
from deeplab_ray.datasets.formats import LabelFormat
from deeplab_ray.datasets.survey import Facts
from deeplab_ray.images import read_header
from deeplab_ray.on_ray.prepare.files import read_pair
from deeplab_ray.on_ray.prepare.request import Request
from deeplab_ray.on_ray.prepare.tiles import Tiling
from deeplab_ray.storage.location import Location

# Facts depend on how they are merged if there are very many values: so it never depends on the cluster.
_CHUNK, _MERGE = 16, 64
_BACKGROUND = "background"
# Lossy formats, and JPEGs of other colours, become PNGs of about so many bytes a pixel.
_LOSSY = ("WEBP", "JPEG2000", "JPEG of mode CMYK")
_PNG_BYTES = 2


@dataclass
class Surveyed:
    """What is known of a split's pairs, in their order."""

    facts: Facts = field(default_factory=Facts)
    weights: list[int] = field(default_factory=list)
    """About how many bytes each pair will take in a shard."""
    poor: list[str] = field(default_factory=list)
    """Ids of images with too few pixels of objects."""


class _Chunk(NamedTuple):
    split: str
    pairs: list[Pair]
    options: survey.Options


@dataclass(frozen=True)
class _Look:
    """Looks at the pairs of a chunk."""

    source: Location
    format: LabelFormat
    objects: frozenset[int] | None
    """Train ids of what counts as an object; None: nobody asks."""
    min_object_pixels: int
    tiling: Tiling | None

    def __call__(self, chunk: _Chunk) -> tuple[str, Surveyed]:
        found = Surveyed()
        parts = []
        for pair in chunk.pairs:
            try:
                image, label = read_pair(self.source, pair)
            except ValueError as error:
                parts.append(survey.of_bad(pair, str(error)))
                found.weights.append(0)
                continue
            facts = survey.look_at(self.format, pair, image, label, chunk.options)
            parts.append(facts)
            found.weights.append(self._weight(facts, image, label, chunk.options))
            if self.objects is not None and not facts.bad and pair.has_label and self._is_poor(facts):
                found.poor.append(pair.id)
        found.facts = survey.merge(parts)
        return chunk.split, found

    def _is_poor(self, facts: Facts) -> bool:
        counts = (count for value, count in facts.pixels.items() if self.format.train_id(value) in (self.objects or ()))
        return sum(counts) < self.min_object_pixels

    def _weight(self, facts: Facts, image: bytes, label: bytes, options: survey.Options) -> int:
        if facts.bad:
            return 0
        height, width = facts.sizes[0]
        header = read_header(image, options.max_pixels)
        is_cut = self.tiling is not None and self.tiling.boxes(height, width)
        becomes_png = is_cut or (header.turned and options.exif) or header.kind.startswith(_LOSSY)
        kept = max(len(image), _PNG_BYTES * height * width) if becomes_png else len(image)
        return kept + min(len(label), height * width)


def look(request: Request, tick: Callable[[], None]) -> dict[str, Surveyed]:
    """What is known of each split. Ray must run."""
    from deeplab_ray.on_ray.prepare.tasks import Progress, in_order

    dataset, options = request.dataset, request.options
    looks = {
        split: survey.Options(
            max_pixels=options.max_pixels,
            exif=options.exif == "apply",
            needs_labels=split not in dataset.unlabelled,
            knows_values=bool(dataset.classes),
            compared=survey.share_compared(len(pairs)),
        )
        for split, pairs in request.pairs.items()
    }
    chunks = (
        _Chunk(split, pairs[start : start + _CHUNK], looks[split])
        for split, pairs in request.pairs.items()
        for start in range(0, len(pairs), _CHUNK)
    )
    looking = _Look(
        source=request.source,
        format=dataset.labels,
        objects=_objects(dataset) if options.min_object_pixels else None,
        min_object_pixels=options.min_object_pixels,
        tiling=options.tiling,
    )
    progress = Progress("checked", {split: len(pairs) for split, pairs in request.pairs.items()})
    found = {split: Surveyed() for split in request.pairs}
    waiting: dict[str, list[Facts]] = {split: [] for split in request.pairs}
    with closing(in_order(looking, chunks, dataset.labels, tick)) as parts:
        for split, part in parts:
            whole = found[split]
            whole.weights += part.weights
            whole.poor += part.poor
            waiting[split].append(part.facts)
            if len(waiting[split]) == _MERGE:
                whole.facts, waiting[split] = survey.merge([whole.facts, *waiting[split]]), []
            progress.add(split, len(part.weights))
    for split, whole in found.items():
        whole.facts = survey.merge([whole.facts, *waiting[split]])
    return found


def _objects(dataset: Dataset) -> frozenset[int]:
    return frozenset(train_id for train_id, name in enumerate(dataset.classes) if name != _BACKGROUND)
