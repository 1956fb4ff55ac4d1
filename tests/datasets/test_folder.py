"""Anybody's two folders: which label is which image's, and which split it belongs to."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from broken import save
from folders import label_of, looked_at, members, opened, photo, stripes

from deeplab_ray.datasets.folder import FolderOptions
from deeplab_ray.errors import UserError
from deeplab_ray.local.s3_server import EmbeddedS3
from deeplab_ray.storage.location import locate


def fill(root: Path, *ids: str, ending: str = ".jpg", suffix: str = "") -> Path:
    for number, id in enumerate(ids):
        photo(root / "images" / f"{id}{ending}", number)
        save(root / "labels" / f"{id}{suffix}.png", stripes(0, 1))
    return root


def ids(root: Path, **options: Any) -> dict[str, list[str]]:
    options = {"classes": "a,b", **options}
    return {split: [pair.id for pair in pairs] for split, pairs in members(opened(root, **options).dataset).items()}


class TestMatching:
    @pytest.mark.parametrize("ending", [".jpg", ".JPG", ".jpeg", ".PNG", ".webp", ".bmp", ".tif", ".ppm", ".gif"])
    def test_images_of_any_format_and_endings_of_any_case(self, tmp_path: Path, ending: str) -> None:
        fill(tmp_path, "one", "two", ending=ending)
        assert ids(tmp_path, val_share=0) == {"train": ["one", "two"]}

    def test_nested_folders_correspond(self, tmp_path: Path) -> None:
        fill(tmp_path, "a/x", "a/deep/x", "b/x", "x")
        pairs = members(opened(tmp_path, classes="a,b", val_share=0).dataset)["train"]
        assert [pair.id for pair in pairs] == ["a/deep/x", "a/x", "b/x", "x"]
        assert pairs[1].label == str(tmp_path / "labels/a/x.png")

    def test_labels_with_a_suffix(self, tmp_path: Path) -> None:
        fill(tmp_path, "one", "two", suffix="_mask")
        assert ids(tmp_path, val_share=0, label_suffix="_mask") == {"train": ["one", "two"]}

    def test_labels_with_a_suffix_beside_their_images(self, tmp_path: Path) -> None:
        for id in ("one", "two"):
            photo(tmp_path / f"{id}.png")
            save(tmp_path / f"{id}_mask.png", stripes(0, 1))
        (tmp_path / "notes.txt").write_text("", encoding="utf-8")
        folder = opened(
            tmp_path, images=str(tmp_path), labels=str(tmp_path), label_suffix="_mask", classes="a,b", val_share=0
        )
        assert [pair.id for pair in members(folder.dataset)["train"]] == ["one", "two"]
        assert folder.notes == (f"1 file in {tmp_path} passed over as no images or labels: 1 .txt, such as notes.txt",)

    def test_a_forgotten_suffix_is_found_out(self, tmp_path: Path) -> None:
        fill(tmp_path, "one", "two", "three", suffix="_mask")
        with pytest.raises(UserError, match=r"no label .*: give --label-suffix _mask$"):
            opened(tmp_path)

    def test_labels_in_a_folder_among_the_images_are_no_images(self, tmp_path: Path) -> None:
        photo(tmp_path / "one.jpg")
        save(tmp_path / "masks/one.png", stripes(0, 1))
        assert ids(tmp_path, images=str(tmp_path), labels=str(tmp_path / "masks"), val_share=0) == {"train": ["one"]}

    def test_a_folder_of_images_alone(self, tmp_path: Path) -> None:
        fill(tmp_path, "one")
        with pytest.raises(UserError, match=r"no image in .*/images has a label beside it: give --label-suffix, or"):
            opened(tmp_path, labels=str(tmp_path / "images"))

    def test_two_images_that_differ_by_their_endings_are_refused_by_name(self, tmp_path: Path) -> None:
        photo(fill(tmp_path, "a/one") / "images/a/one.png")
        with pytest.raises(UserError, match=r"two images .* a/one\.jpg and a/one\.png: remove or rename"):
            opened(tmp_path)

    def test_what_is_passed_over_is_counted_and_named(self, tmp_path: Path) -> None:
        fill(tmp_path, "one")
        for name in ("images/a.heic", "images/b.heic", "images/Thumbs.db", "labels/readme.md"):
            (tmp_path / name).write_bytes(b"")
        folder = opened(tmp_path, val_share=0)
        assert folder.notes == (
            f"3 files in {tmp_path}/images passed over as no images: 2 .heic, 1 .db, such as Thumbs.db, a.heic, b.heic",
            f"1 file in {tmp_path}/labels passed over as no labels: 1 .md, such as readme.md",
        )

    def test_halves_without_the_other_are_counted_and_bad(self, tmp_path: Path) -> None:
        fill(tmp_path, "one", "two")
        photo(tmp_path / "images/three.jpg")
        save(tmp_path / "labels/four.png", stripes(0, 1))
        (tmp_path / "images/five.jpg").symlink_to("nowhere.jpg")
        folder = opened(tmp_path, classes="a,b", val_share=0)
        assert folder.notes == (
            f"images without a label in {tmp_path}/labels: 2 of 4, such as five, three",
            f"labels in {tmp_path}/labels without an image: 1, such as four",
        )
        bad = {each.id: each.reason for each in looked_at(folder)["train"].bad}
        assert bad.keys() == {"three", "four", "five"}
        assert bad["three"] == "it has no label file"
        assert "four.jpg" in bad["four"]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"images": "/nowhere"}, r"there is no folder /nowhere: --images"),
            ({"labels": "/nowhere"}, r"there is no folder /nowhere: --labels"),
            ({"classes": "a,a"}, r"--classes, name 2: the name 'a' stands in name 1, too"),
            ({"classes": "a,b", "ignore_values": (1,)}, r"--ignore-values 1 is the value of class 'b'"),
            ({"classes": "a,b", "label_offset": 1}, r"class 'a' is 0, which no label can hold with --label-offset 1"),
            ({"snap_colours": True}, r"--snap-colours is about labels in RGB, and the labels hold numbers"),
            ({"val_share": 1.5}, r"--val-share 1.5"),
            ({"val_share": 1e-9}, r"none of 1 images falls into val"),
        ],
    )
    def test_mistakes(self, tmp_path: Path, options: dict[str, Any], message: str) -> None:
        fill(tmp_path, "one")
        with pytest.raises(UserError, match=message):
            opened(tmp_path, **{"val_share": 0, **options})

    def test_a_folder_without_images_says_what_there_is(self, tmp_path: Path) -> None:
        fill(tmp_path, "one")
        (tmp_path / "images/one.jpg").rename(tmp_path / "images/one.heic")
        with pytest.raises(UserError, match=r"of 1 files below .*images \(1 \.heic\) none is an image: \.jpg"):
            opened(tmp_path)


class TestSplits:
    def test_the_share_is_kept_and_nothing_moves_when_images_are_added(self, tmp_path: Path) -> None:
        few = [f"{number:04d}" for number in range(0, 3000, 3)]
        many = [f"{number:04d}" for number in range(3000)]
        before, after = (self.share_out(each, val_share=0.2) for each in (few, many))
        assert abs(len(after["val"]) / 3000 - 0.2) < 0.02
        assert set(before["val"]) == set(after["val"]) & set(few)
        assert self.share_out(few, val_share=0.2, split_seed=1)["val"] != before["val"]
        # With a larger share others come along, and none goes.
        assert set(after["val"]) < set(self.share_out(many, val_share=0.3)["val"])

    @staticmethod
    def share_out(names: list[str], **options: Any) -> dict[str, list[str]]:
        from deeplab_ray.datasets.base import Pair
        from deeplab_ray.datasets.folder.splits import share_out

        splits, _ = share_out([Pair(name, name, name) for name in names], FolderOptions("i", "l", **options))
        return {split: [pair.id for pair in pairs] for split, pairs in splits.items()}

    def test_folders_that_are_called_like_splits_are_splits(self, tmp_path: Path) -> None:
        fill(tmp_path, "train/a", "train/deep/b", "valid/c", "test/d", "e")
        folder = opened(tmp_path, classes="a,b")
        assert ids(tmp_path) == {"test": ["test/d"], "train": ["train/a", "train/deep/b"], "val": ["valid/c"]}
        assert folder.notes == (
            "split val is the folder valid",
            "images left out, which lie in none of the folders test, train, valid: 1 of 5, such as e",
        )

    def test_other_folders_are_splits_if_it_is_said_so(self, tmp_path: Path) -> None:
        fill(tmp_path, "day/a", "night/b", "night/c")
        assert ids(tmp_path, split_folders=True) == {"day": ["day/a"], "night": ["night/b", "night/c"]}
        assert ids(tmp_path, val_share=0) == {"train": ["day/a", "night/b", "night/c"]}

    def test_lists(self, tmp_path: Path) -> None:
        fill(tmp_path, "s/a", "s/b", "t/c", "d")
        (tmp_path / "train.txt").write_text("s/a\n\ns/b.jpg /labels/s/b.png\r\n", encoding="utf-8")
        (tmp_path / "val.txt").write_text("/data/images/c.jpg\n", encoding="utf-8")
        lists = tuple(f"{name}={tmp_path}/{name}.txt" for name in ("train", "val"))
        assert ids(tmp_path, split_lists=lists) == {"train": ["s/a", "s/b"], "val": ["t/c"]}
        assert opened(tmp_path, split_lists=lists).notes == (
            "images left out, which stand in none of the lists: 1 of 4, such as d",
        )

    @pytest.mark.parametrize(
        ("content", "message"),
        [("a\nb\nnone\n", r"train.txt, line 3: there is no image 'none'"), ("\n", r"train.txt is empty")],
    )
    def test_wrong_lists(self, tmp_path: Path, content: str, message: str) -> None:
        fill(tmp_path, "a", "b")
        (tmp_path / "train.txt").write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=message):
            opened(tmp_path, split_lists=(f"train={tmp_path}/train.txt",))


class TestCoco:
    def test_file_names_may_be_relative_or_names_alone(self, tmp_path: Path) -> None:
        for name in ("a/one.jpg", "a/two.jpg", "three.jpg"):
            photo(tmp_path / "images" / name)
        write_coco(tmp_path / "labels.json", ["a/one.jpg", "two.jpg", "four.jpg"])
        folder = opened(tmp_path, labels=str(tmp_path / "labels.json"), classes="background,thing", val_share=0)
        pairs = {pair.id: pair for pair in members(folder.dataset)["train"]}
        assert pairs.keys() == {"a/one", "a/two", "three", "four"}
        assert [id for id, pair in pairs.items() if not pair.has_label] == ["three"]
        assert folder.notes == (
            f"images without a label in {tmp_path}/labels.json: 1 of 3, such as three",
            f"labels in {tmp_path}/labels.json without an image: 1, such as four.jpg",
        )
        np.testing.assert_array_equal(np.unique(label_of(folder.dataset, "a/two")), [0, 1])

    def test_names_that_may_mean_the_same_image_are_refused(self, tmp_path: Path) -> None:
        photo(tmp_path / "images/one.jpg")
        write_coco(tmp_path / "labels.json", ["a/one.jpg", "b/one.jpg"])
        with pytest.raises(UserError, match=r"'a/one\.jpg' and 'b/one\.jpg' of .* may both be the image one"):
            opened(tmp_path, labels=str(tmp_path / "labels.json"))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"images": [{"id": 0}]}, "'file_name' is missing"),
            ({"categories": []}, "0 is missing or unknown"),
            ({"annotations": []}, "no segmentation of any of its 1 images"),
        ],
    )
    def test_other_json_is_refused(self, tmp_path: Path, change: dict[str, Any], message: str) -> None:
        photo(tmp_path / "images/one.jpg")
        write_coco(tmp_path / "labels.json", ["one.jpg"], **change)
        with pytest.raises(UserError, match=message):
            opened(tmp_path, labels=str(tmp_path / "labels.json"))


def write_coco(path: Path, names: list[str], **change: Any) -> None:
    """Each image has a square of one class."""
    square = [[2, 2, 12, 2, 12, 12, 2, 12]]
    fields = {
        "images": [{"id": i, "file_name": name, "height": 20, "width": 30} for i, name in enumerate(names)],
        "annotations": [{"image_id": i, "category_id": 0, "segmentation": square} for i in range(len(names))],
        "categories": [{"id": 0, "name": "thing"}],
    }
    path.write_text(json.dumps({**fields, **change}), encoding="utf-8")


@pytest.mark.parametrize("labels", ["labels", "labels.json"])
def test_on_s3_as_on_a_disk(tmp_path: Path, s3: EmbeddedS3, labels: str) -> None:
    fill(tmp_path, "train/one", "train/two", "val/three")
    write_coco(tmp_path / "labels.json", ["train/one.jpg", "train/two.jpg", "val/three.jpg"])
    (tmp_path / "classes.csv").write_text("name\nbackground\nthing\n", encoding="utf-8")
    s3.make_bucket("folders")
    there = locate(f"s3://folders/{tmp_path.name}")
    for name in locate(tmp_path).files(recursive=True):
        (there / name).write_bytes((tmp_path / name).read_bytes())
    results = []
    for root in (str(tmp_path), there.uri):
        folder = opened(
            tmp_path, images=f"{root}/images", labels=f"{root}/{labels}", classes=f"{root}/classes.csv", val_share=0
        )
        facts = looked_at(folder)
        results.append(
            [(split, found.ids, found.image_sha, found.label_sha, found.bad) for split, found in facts.items()]
        )
    assert results[0] == results[1]
    assert [len(ids) for _, ids, *_ in results[0]] == [2, 1]
    assert not any(bad for *_, bad in results[0])
