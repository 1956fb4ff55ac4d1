"""Shards and their manifest: what is written is read back, one sample at a time, or told to be damaged."""

import hashlib
import json
import pickle
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import tiny

from deeplab_ray.errors import UserError
from deeplab_ray.labels import ClassTable
from deeplab_ray.local.s3_server import EmbeddedS3
from deeplab_ray.shards import (
    FORMAT,
    SCHEMA,
    Bad,
    Manifest,
    Shard,
    Split,
    check_pair,
    open_split,
    read_shard,
    require_labels,
    write_shard,
)
from deeplab_ray.storage.location import Location, locate

CLASSES = ClassTable(("sky", "road"), ((1, 2, 3), (4, 5, 6)), (23, 7), ignore_value=0)
# As the first version wrote it.
OLD = {"dataset": "camvid", "split": "train", "classes": ["sky"], "images": 0, "pixels": [0], "shards": [], "bad": []}


def rows(start: int, stop: int, unlabelled: tuple[int, ...] = ()) -> Iterator[dict[str, Any]]:
    for i in range(start, stop):
        label = None if i in unlabelled else b"label%d" % i
        yield {"id": f"id{i}", "image": bytes([i]) * 5000, "label": label, "height": i, "width": 2 * i}


def write_split(folder: Location, unlabelled: tuple[int, ...] = ()) -> Manifest:
    written = [
        write_shard(folder / "shards-1", "00000.parquet", rows(0, 3, unlabelled)),
        write_shard(folder / "shards-1", "00001.parquet", rows(3, 8, unlabelled)),
    ]
    shards = [shard for shard in written if shard]
    manifest = Manifest("camvid", folder.name, CLASSES, [1, 2], shards, [Bad("x", "its label is missing")])
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
    assert split.classes == CLASSES
    assert split.manifest.reader == "camvid"
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


def test_a_shard_read_whole_is_its_samples_one_by_one(output: Location) -> None:
    write_split(output / "train", unlabelled=(1, 7))
    split = open_split(output.uri, "train")
    whole = [sample for shard in split.manifest.shards for sample in read_shard(split.folder, shard)]
    assert whole == [split.read(index) for index in range(8)]
    assert [shard.path for shard, _ in map(split.place, (0, 2, 3, 7))] == [
        split.manifest.shards[number].path for number in (0, 0, 1, 1)
    ]


def test_rows_may_have_no_label(tmp_path: Path) -> None:
    write_split(locate(tmp_path / "train"), unlabelled=(1, 7))
    split = open_split(str(tmp_path), "train")
    assert [split.read(index).label is None for index in range(8)] == [index in (1, 7) for index in range(8)]
    assert list(split.labelled()) == [0, 2, 3, 4, 5, 6]
    assert (split.manifest.images, split.manifest.labelled) == (8, 6)
    assert json.loads((tmp_path / "train/manifest.json").read_text())["labelled"] == 6
    write_split(locate(tmp_path / "val"))
    assert list(open_split(str(tmp_path), "val").labelled()) == list(range(8))


def flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def damaged(split: Split, number: int) -> str:
    shard = split.folder / split.manifest.shards[number].path
    return f"^shard {re.escape(str(shard))} is damaged .*prepare the set again"


def test_a_flipped_byte_is_told_with_the_shards_name_wherever_it_lies(tmp_path: Path) -> None:
    write_split(locate(tmp_path / "train"))
    split = open_split(str(tmp_path), "train")
    file = Path(split.paths()[1])
    whole = file.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    # Of the second shard's rows the third: its image and its label. Of its footer: a column's name.
    inside = (whole.index(bytes([5]) * 5000) + 2500, whole.index(b"label5") + 2, whole.index(b"image", footer))
    for run, at in enumerate(inside):
        # A file of another name, as handles of files that were read stay open.
        shard = split.manifest.shards[1]
        copy = Shard(f"shards-1/copy{run}.parquet", shard.rows, shard.sha256, shard.bytes)
        (split.folder / copy.path).write_bytes(whole)
        flip(tmp_path / "train" / copy.path, at)
        other = Split(split.folder, Manifest("camvid", "train", CLASSES, [1, 2], [split.manifest.shards[0], copy], []))
        with pytest.raises(UserError, match=damaged(other, 1)):
            other.read(5)
        with pytest.raises(UserError, match=damaged(other, 1)):
            read_shard(other.folder, copy)
        assert [other.read(index).id for index in range(3)] == ["id0", "id1", "id2"]
    assert split.read(5).image == bytes([5]) * 5000


def test_a_shard_of_another_size_or_none_at_all_is_told(output: Location) -> None:
    write_split(output / "train")
    split = open_split(output.uri, "train")
    first, second = (split.folder / shard.path for shard in split.manifest.shards)
    # Still good Parquet, with all of its rows.
    write_shard(split.folder / "shards-1", "00000.parquet", [*rows(0, 3), *rows(0, 1)])
    second.filesystem.delete_file(second.path)
    for index, place, what in ((0, first, "damaged"), (3, second, "missing")):
        for read in (lambda i: split.read(i), lambda i: read_shard(split.folder, split.place(i)[0])):
            with pytest.raises(UserError, match=f"^shard {re.escape(str(place))} is {what}") as caught:
                read(index)
            assert "\n" not in str(caught.value)


def test_a_split_without_a_labelled_pixel_is_refused(tmp_path: Path) -> None:
    manifest = write_split(locate(tmp_path / "test"), unlabelled=tuple(range(8)))
    require_labels(open_split(str(tmp_path), "test"))
    void = Manifest("camvid", "test", CLASSES, [0, 0], manifest.shards, [])
    (tmp_path / "test/manifest.json").write_text(void.to_json())
    with pytest.raises(UserError, match=r"/test has no labelled pixel \(images with a label: 0 of 8\)"):
        require_labels(open_split(str(tmp_path), "test"))


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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (json.dumps(OLD), f"format 1; this one reads {FORMAT}"),
        (json.dumps({"format": 99, "reader": "camvid"}), f"format 99; this one reads {FORMAT}"),
    ],
    ids=["older", "newer"],
)
def test_a_set_of_another_format_is_refused_with_what_to_do(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "manifest.json").write_text(text)
    command = rf"prepare it again by jobs/prepare\.py camvid --source FOLDER --output {tmp_path} --overwrite$"
    for uri in (tmp_path, tmp_path / "train"):
        with pytest.raises(UserError, match=rf"{said}\): {command}"):
            open_split(str(uri), "train")


def test_a_manifest_survives_json_and_tells_of_itself() -> None:
    shards = [Shard("s/0", 3, "ab", 9), Shard("s/1", 2, "cd", 9, unlabelled=(1,))]
    manifest = Manifest("voc12", "val", CLASSES, [7, 0], shards, [Bad("x", "§ truncated")])
    assert Manifest.from_json(manifest.to_json()) == manifest
    fields = json.loads(manifest.to_json())
    assert (fields["format"], fields["reader"], fields["images"], fields["labelled"]) == (2, "voc12", 5, 4)
    assert fields["classes"][1] == {"name": "road", "colour": [4, 5, 6], "value": 7}
    assert fields["ignore_value"] == 0
    table = {"classes": fields["classes"], "ignore_value": fields["ignore_value"]}
    whole = json.dumps(table, sort_keys=True) + "ab 3\ncd 2\n"
    assert fields["digest"] == hashlib.sha256(whole.encode()).hexdigest()


@pytest.mark.parametrize("change", [{"images": 4}, {"labelled": 5}, {"digest": "00"}, {"pixels": [1]}, {"classes": []}])
def test_a_manifest_that_contradicts_itself_is_broken(tmp_path: Path, change: dict[str, Any]) -> None:
    manifest = write_split(locate(tmp_path / "train"))
    (tmp_path / "train/manifest.json").write_text(json.dumps(json.loads(manifest.to_json()) | change))
    with pytest.raises(UserError, match=r"manifest\.json is broken .*: prepare again with --overwrite"):
        open_split(str(tmp_path), "train")


def test_splits_that_cannot_be_trained_and_validated_together_are_refused(tmp_path: Path) -> None:
    def split(name: str, classes: ClassTable) -> Split:
        return Split(locate(tmp_path) / name, Manifest("any", name, classes, [5] * len(classes), [], []))

    two, three = tiny.classes(2), tiny.classes(3)
    renamed = ClassTable(("c1", "c0"), two.colours, two.values)
    check_pair(split("train", two), split("val", two), channels=3)
    check_pair(split("train", two), None, channels=3)
    for other in (three, renamed):
        with pytest.raises(UserError, match=r"have other classes \(c0, c1; .*\): prepare both from one dataset"):
            check_pair(split("train", two), split("val", other), channels=3)
        assert split("a", two).manifest.digest != split("a", other).manifest.digest
    with pytest.raises(UserError, match="channels 4: the images of a prepared set have 3"):
        check_pair(split("train", two), None, channels=4)
    empty = Split(locate(tmp_path) / "val", Manifest("any", "val", two, [0, 0], [], []))
    with pytest.raises(UserError, match="val has no labelled pixel"):
        check_pair(split("train", two), empty, channels=3)
