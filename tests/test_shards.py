"""Shards and their manifest: what is written is read back, one sample at a time."""

import hashlib
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from deeplab_ray import datasets
from deeplab_ray.errors import UserError
from deeplab_ray.local.s3_server import EmbeddedS3
from deeplab_ray.shards import SCHEMA, Bad, Manifest, Shard, open_split, write_shard
from deeplab_ray.storage.location import Location, locate


def rows(start: int, stop: int) -> Iterator[dict[str, Any]]:
    for i in range(start, stop):
        yield {"id": f"id{i}", "image": bytes([i]) * 5000, "label": b"label%d" % i, "height": i, "width": 2 * i}


def write_split(folder: Location, dataset: str = "camvid", classes: tuple[str, ...] | None = None) -> Manifest:
    written = [
        write_shard(folder / "shards-1", "00000.parquet", rows(0, 3)),
        write_shard(folder / "shards-1", "00001.parquet", rows(3, 8)),
    ]
    shards = [shard for shard in written if shard]
    names = list(classes or datasets.get(dataset).classes)
    manifest = Manifest(dataset, folder.name, names, 8, [1] * len(names), shards, [Bad("x", "its label is missing")])
    (folder / "manifest.json").write_bytes(manifest.to_json().encode())
    return manifest


@pytest.fixture(params=["local", "s3"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "local":
        return locate(tmp_path)
    server: EmbeddedS3 = request.getfixturevalue("s3")
    server.make_bucket("shards")
    return locate(f"s3://shards/{tmp_path.name}")


def test_every_sample_is_read_back_from_a_pickled_split_by_many_threads(output: Location) -> None:
    write_split(output / "train")
    split = pickle.loads(pickle.dumps(open_split(output.uri, "train")))
    assert len(split) == 8
    assert split.dataset.name == "camvid"
    with ThreadPoolExecutor(8) as pool:
        samples = list(pool.map(split.read, [*range(8)] * 5))
    for number, sample in enumerate(samples):
        i = number % 8
        assert (sample.id, sample.image, sample.label) == (f"id{i}", bytes([i]) * 5000, b"label%d" % i)
        assert (sample.height, sample.width) == (i, 2 * i)
    with pytest.raises(IndexError):
        split.read(8)


def test_a_shard_is_what_the_manifest_says_and_plain_parquet(output: Location) -> None:
    manifest = write_split(output / "train")
    split = open_split(output.uri, "train")
    assert split.manifest == manifest
    for shard, path in zip(manifest.shards, split.paths(), strict=True):
        content = (split.folder / shard.path).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (shard.bytes, shard.sha256)
        table = pq.read_table(path, filesystem=split.folder.filesystem)
        assert table.schema.equals(SCHEMA)
        assert table.num_rows == shard.rows
        footer = pq.read_metadata(split.folder.filesystem.open_input_file(path))
        assert footer.num_row_groups == shard.rows


def test_a_split_is_found_by_its_own_folder_too(tmp_path: Path) -> None:
    write_split(locate(tmp_path / "val"))
    assert open_split(str(tmp_path / "val"), "val").manifest.split == "val"
    with pytest.raises(UserError, match="holds the split 'val', not 'train'"):
        open_split(str(tmp_path / "val"), "train")


def test_a_shard_without_rows_is_not_written(tmp_path: Path) -> None:
    assert write_shard(locate(tmp_path), "00000.parquet", []) is None
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_prepared_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no prepared split 'train' at .*: run jobs/prepare.py"):
        open_split(str(tmp_path), "train")
    (tmp_path / "train").mkdir()
    for text in ("{", "{}", '{"shards": [], "bad": []}', "[]"):
        (tmp_path / "train" / "manifest.json").write_text(text)
        with pytest.raises(UserError, match=r"manifest\.json is broken"):
            open_split(str(tmp_path), "train")


def test_a_split_prepared_with_other_classes_is_refused(tmp_path: Path) -> None:
    write_split(locate(tmp_path / "train"), classes=("sky", "road"))
    with pytest.raises(UserError, match="prepared with other classes"):
        open_split(str(tmp_path), "train")


def test_a_manifest_survives_json() -> None:
    manifest = Manifest("voc12", "val", ["a", "b"], 3, [7, 0], [Shard("s/0", 3, "ab", 9)], [Bad("x", "§ truncated")])
    assert Manifest.from_json(manifest.to_json()) == manifest
