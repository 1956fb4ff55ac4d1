"""Folders of files and prepared splits to read from."""

import numpy as np
import pyarrow as pa
from tiny import classes, png

from deeplab_ray.images import encode_label
from deeplab_ray.inputs import Inputs, open_inputs
from deeplab_ray.shards import MANIFEST, Manifest, write_shard
from deeplab_ray.storage.location import Location


def fill(folder: Location, *names: str) -> Location:
    """Files that hold their names."""
    for name in names:
        (folder / name).write_bytes(name.encode())
    return folder


def split(folder: Location, per_shard: int = 3, shards: int = 3, name: str = "val") -> Location:
    """A prepared split of images "0-0", "0-1", …, of which each shard's last has no label; returns its folder."""
    rng = np.random.default_rng(0)
    written = []
    for number in range(shards):
        rows = [
            {
                "id": f"{number}-{row}",
                "image": png(rng.integers(0, 256, (4, 5, 3), np.uint8)),
                "label": encode_label(np.zeros((4, 5), np.uint8)) if row < per_shard - 1 else None,
                "height": 4,
                "width": 5,
            }
            for row in range(per_shard)
        ]
        written.append(write_shard(folder / name / "shards-1", f"{number:05d}.parquet", rows))
    pixels = 20 * shards * (per_shard - 1)
    manifest = Manifest("camvid", name, classes(2), [pixels, 0], [shard for shard in written if shard], [])
    (folder / name / MANIFEST).write_bytes(manifest.to_json().encode())
    return folder / name


def keys(inputs: Inputs) -> list[str]:
    found = inputs.keys()
    assert found.type == pa.large_string()
    return found.to_pylist()


def fill_and_open(folder: Location) -> Inputs:
    return open_inputs(fill(folder, "a.jpg").uri)
