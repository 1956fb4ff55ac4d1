"""Write the shards of a split, by Ray tasks; those that are whole already are left as they are.

OUTPUT/<split>/.progress/<shards' folder>/00000.json says, once a shard is written, what is in it.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyarrow import fs

from deeplab_ray.datasets.formats import LabelFormat
from deeplab_ray.datasets.survey import hashes
from deeplab_ray.errors import UserError
from deeplab_ray.images import Normal, decode_image, encode_image, encode_label, normalise
from deeplab_ray.labels import IGNORE
from deeplab_ray.on_ray.prepare.files import read_pair
from deeplab_ray.on_ray.prepare.plan import Part, ShardPlan, SplitPlan
from deeplab_ray.on_ray.prepare.publish import PROGRESS
from deeplab_ray.on_ray.prepare.request import Request
from deeplab_ray.on_ray.prepare.tiles import Tiling
from deeplab_ray.shards import Bad, Shard, write_shard
from deeplab_ray.storage.location import Location
from deeplab_ray.storage.patience import with_patience


@dataclass
class Written:
    """What one or more shards of a split hold."""

    split: str
    shards: list[Shard] = field(default_factory=list)
    bad: list[Bad] = field(default_factory=list)
    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Labelled ones, of each class."""
    images: int = 0
    """Of the source, those that are bad included."""
    changed: Counter[str] = field(default_factory=Counter)
    """Images that are not the file as it came, by why they are not."""

    def add(self, other: "Written") -> None:
        self.shards += other.shards
        self.bad += other.bad
        self.pixels = self.pixels + other.pixels if len(self.pixels) else other.pixels
        self.images += other.images
        self.changed.update(other.changed)

    def to_json(self) -> bytes:
        fields = {
            "split": self.split,
            "shards": [asdict(shard) for shard in self.shards],
            "bad": [asdict(bad) for bad in self.bad],
            "pixels": self.pixels.tolist(),
            "images": self.images,
            "changed": self.changed,
        }
        return json.dumps(fields, ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "Written":
        """Raises ValueError, KeyError or TypeError for anything else than `to_json` gave."""
        fields = json.loads(text)
        return cls(
            fields["split"],
            [Shard.from_json(shard) for shard in fields["shards"]],
            [Bad(**bad) for bad in fields["bad"]],
            np.array(fields["pixels"], np.int64),
            fields["images"],
            Counter(fields["changed"]),
        )


@dataclass(frozen=True)
class _Write:
    """Writes a shard."""

    source: Location
    output: Location
    format: LabelFormat
    classes: int
    max_pixels: int
    exif: bool
    tiling: Tiling | None

    def __call__(self, plan: ShardPlan) -> Written:
        folder = self.output / plan.split
        written = Written(plan.split, pixels=np.zeros(self.classes, np.int64))
        shard = write_shard(folder / plan.folder, plan.name, self._rows(plan.parts, written))
        written.shards += [shard] if shard else []
        report = _report(folder, plan.folder, plan.name)
        with_patience(lambda: report.write_bytes(written.to_json()), report)
        return written

    def _rows(self, parts: Iterable[Part], written: Written) -> Iterator[dict[str, Any]]:
        """Rows of `shards.SCHEMA`; counts in `written` what they hold."""
        for part in parts:
            # What an image makes in several shards is counted where it begins.
            written.images += part.first == 0
            try:
                normal, label = self._read(part)
            except ValueError as error:
                written.bad.append(Bad(part.pair.id, str(error)))
                continue
            if normal.changed and part.first == 0:
                written.changed[normal.changed] += 1
            for id, image, height, width, ids in self._cut(part, normal, label):
                if ids is not None:
                    written.pixels += np.bincount(ids[ids != IGNORE], minlength=self.classes)
                encoded = None if ids is None else encode_label(ids)
                yield {"id": id, "image": image, "label": encoded, "height": height, "width": width}

    def _read(self, part: Part) -> tuple[Normal, NDArray[np.uint8] | None]:
        """A pair's image, and its train ids, uint8 H×W (None: it has none). ValueError with the reason if it is bad."""
        pair = part.pair
        image, label = read_pair(self.source, pair)
        if hashes(pair, image, label) != (part.image_sha, part.label_sha):
            raise UserError(
                f"the files of {pair.id} changed while they were prepared: run the same command again, and leave "
                f"{self.source} alone until it is done"
            )
        normal = normalise(image, self.max_pixels, self.exif)
        if not pair.has_label:
            return normal, None
        ids = self.format.decode(label, normal.height, normal.width, pair.drawn)
        if ids.shape != (normal.height, normal.width):
            raise ValueError(f"label is {ids.shape[1]}×{ids.shape[0]}, image {normal.width}×{normal.height} pixels")
        return normal, ids

    def _cut(
        self, part: Part, normal: Normal, label: NDArray[np.uint8] | None
    ) -> Iterator[tuple[str, bytes, int, int, NDArray[np.uint8] | None]]:
        """Id, image file, height, width and label of each tile, or of the whole image."""
        boxes = self.tiling.boxes(normal.height, normal.width) if self.tiling else []
        if not boxes:
            yield part.pair.id, normal.data, normal.height, normal.width, label
            return
        pixels = decode_image(normal.data, max_pixels=None)
        for box in boxes[part.first : part.last]:
            rows, columns = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
            tile = None if label is None else label[rows, columns]
            yield box.name(part.pair.id), encode_image(pixels[rows, columns]), box.height, box.width, tile


def write(request: Request, plans: Sequence[SplitPlan], tick: Callable[[], None]) -> dict[str, Written]:
    """Write what is not there yet, and tell what all shards hold, by split. Ray must run."""
    from deeplab_ray.on_ray.prepare.tasks import Progress, in_order

    dataset, options = request.dataset, request.options
    progress = Progress("written", {plan.split: len(plan.kept) for plan in plans})
    found = {plan.split: Written(plan.split) for plan in plans}

    def count(part: Written, before: bool = False) -> None:
        found[part.split].add(part)
        progress.add(part.split, part.images, before)

    todo = []
    for plan in plans:
        there = _find_written(request.output / plan.split, plan)
        for part in there.values():
            count(part, before=True)
        todo.append((plan, there))
    writing = _Write(
        source=request.source,
        output=request.output,
        format=dataset.labels,
        classes=len(dataset.classes),
        max_pixels=options.max_pixels,
        exif=options.exif == "apply",
        tiling=options.tiling,
    )
    shards = (shard for plan, there in todo for shard in plan if shard.name not in there)
    with closing(in_order(writing, shards, dataset.labels, tick)) as parts:
        for part in parts:
            count(part)
    for written in found.values():
        written.shards.sort(key=lambda shard: shard.path)
        # An image whose tiles are in several shards was found to be bad in each.
        written.bad = sorted({bad.id: bad for bad in written.bad}.values(), key=lambda bad: bad.id)
    return found


def _report(folder: Location, run: str, name: str) -> Location:
    return folder / PROGRESS / run / f"{name.removesuffix('.parquet')}.json"


def _find_written(folder: Location, plan: SplitPlan) -> dict[str, Written]:
    """What an earlier run of the same has written whole, by the shard's name."""
    reports = set(with_patience((folder / PROGRESS / plan.folder).files, folder))
    selector = fs.FileSelector((folder / plan.folder).path, allow_not_found=True)
    infos = with_patience(lambda: folder.filesystem.get_file_info(selector), folder) if reports else []
    sizes = {info.base_name: info.size for info in infos}
    found = {}
    for name in map(plan.name, range(len(plan))):
        report = _report(folder, plan.folder, name)
        if report.name not in reports:
            continue
        try:
            written = Written.from_json(with_patience(report.read_bytes, report))
        except (ValueError, KeyError, TypeError):
            continue
        if all(sizes.get(name) == shard.bytes for shard in written.shards):
            found[name] = written
    return found
