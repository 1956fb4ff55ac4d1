"""Prepared sets, made on the spot without Ray: what is in them is known to the pixel."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deeplab_ray.images import encode_label
from deeplab_ray.labels import ClassTable
from deeplab_ray.shards import MANIFEST, Bad, Manifest, write_shard
from deeplab_ray.storage.location import Location, locate

CLASSES = ClassTable(("sky", "road", "car", "bus"), ((0, 0, 250), (90, 90, 90), (250, 0, 0), (0, 250, 0)), (0, 1, 2, 3))


@dataclass(frozen=True)
class Row:
    """A sample: an image in one colour, and its label of train ids."""

    id: str
    label: np.ndarray | None
    height: int
    width: int
    colour: tuple[int, int, int] = (100, 120, 140)
    told: dict[str, Any] = field(default_factory=dict)
    """What its row says instead of what is so."""

    def row(self) -> dict[str, Any]:
        file = io.BytesIO()
        Image.new("RGB", (self.width, self.height), self.colour).save(file, "PNG")
        label = None if self.label is None else encode_label(self.label)
        size = {"height": self.height, "width": self.width}
        return {"id": self.id, "image": file.getvalue(), "label": label} | size | self.told


def labelled(id: str, *counts: int, height: int = 8, width: int = 10, ignored: int = 0) -> Row:
    """A sample with so many pixels of class 0, 1, …, in the order of reading, at the end the ignored ones."""
    pixels = np.repeat([*range(len(counts)), 255], [*counts, ignored]).astype(np.uint8)
    assert pixels.size == height * width
    return Row(id, pixels.reshape(height, width), height, width)


def write(
    folder: Location | Path,
    split: str,
    rows: Sequence[Row],
    per_shard: int = 2,
    classes: ClassTable = CLASSES,
    bad: Sequence[Bad] = (),
    **fields: Any,
) -> Manifest:
    """Write a split to folder/split; `fields` are further ones of its manifest."""
    place = (locate(folder) if isinstance(folder, Path) else folder) / split
    shards = [
        write_shard(place / "shards-1", f"{at:05d}.parquet", [row.row() for row in rows[at : at + per_shard]])
        for at in range(0, len(rows), per_shard)
    ]
    labels = [row.label for row in rows if row.label is not None]
    pixels = [sum(int((label == index).sum()) for label in labels) for index in range(len(classes))]
    manifest = Manifest("streets", split, classes, pixels, [each for each in shards if each], list(bad), **fields)
    (place / MANIFEST).write_bytes(manifest.to_json().encode())
    return manifest


def flip(file: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
