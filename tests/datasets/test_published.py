"""The published datasets on miniature trees in their true layouts: what goes in comes out pixel for pixel."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trees
from cityscapesscripts.helpers import labels as official
from PIL import Image
from pycocotools import mask

from deeplab_ray import datasets
from deeplab_ray.datasets.base import Pair, resolve
from deeplab_ray.datasets.camvid import split_of
from deeplab_ray.datasets.cityscapes import LABELS
from deeplab_ray.datasets.coco import CATEGORIES
from deeplab_ray.datasets.context import NUMBERS
from deeplab_ray.images import decode_image
from deeplab_ray.local.s3_server import EmbeddedS3
from deeplab_ray.storage.location import Location, locate

MAKERS: dict[str, Callable[[Path], trees.Labels]] = {
    "ade20k": trees.ade20k,
    "camvid": trees.camvid,
    "camvid, first layout": trees.camvid_first,
    "cityscapes": trees.cityscapes,
    "cityscapes_coarse": trees.cityscapes_coarse,
    "coco": trees.coco,
    "coco14": trees.coco14,
    "context": trees.context,
    "personpart": trees.personpart,
    "voc11": trees.voc11,
    "voc12": trees.voc12,
}


def read(name: str, source: Location, pair: Pair) -> tuple[np.ndarray, np.ndarray | None]:
    image = decode_image(resolve(source, pair.image).read_bytes())
    if not pair.has_label:
        return image, None
    data = resolve(source, pair.label).read_bytes() if pair.label else b""
    height, width = image.shape[:2]
    labels = datasets.get(name).labels
    label = labels.decode(data, height, width, pair.drawn)
    look = labels.look(data, height, width, pair.drawn)
    assert (look.height, look.width) == label.shape
    for train_id in np.unique(label):
        values = [value for value in look.counts if labels.train_id(value) == train_id]
        assert sum(look.counts[value] for value in values) == (label == train_id).sum()
    return image, label


@pytest.mark.parametrize("layout", MAKERS)
def test_what_goes_in_comes_out_pixel_for_pixel(layout: str, tmp_path: Path) -> None:
    name, expected, source = layout.split(",")[0], MAKERS[layout](tmp_path), locate(tmp_path)
    dataset = datasets.get(name)
    assert set(expected) <= set(dataset.splits)
    for split, labels in expected.items():
        pairs = dataset.pairs(source, split)
        assert [pair.id for pair in pairs] == sorted(labels), split
        assert dataset.unused(source, split, pairs) == []
        for pair in pairs:
            image, label = read(name, source, pair)
            assert image.shape == (trees.HEIGHT, trees.WIDTH, 3)
            if labels[pair.id] is None:
                assert label is None
                assert split in dataset.unlabelled
            else:
                np.testing.assert_array_equal(label, labels[pair.id], str((split, pair.id)))


@pytest.mark.parametrize("layout", [name for name in MAKERS if name != "coco14"])
def test_every_class_is_met_on_the_way(layout: str, tmp_path: Path) -> None:
    """So that a class that is read as another one would be seen above."""
    labels = [label for split in MAKERS[layout](tmp_path).values() for label in split.values() if label is not None]
    met = set(np.unique(np.concatenate([label.ravel() for label in labels])))
    classes = len(datasets.get(layout.split(",")[0]).classes)
    # 36×44 pixels have room for 99 squares; COCO's tree is drawn by hand.
    assert len(met) >= (4 if layout == "coco" else min(0.75 * classes, 60))


def test_the_voc_palette_is_the_development_kits_colour_map() -> None:
    def colour(index: int) -> tuple[int, int, int]:  # as VOClabelcolormap.m does it
        parts = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                parts[channel] |= (index >> channel & 1) << (7 - bit)
            index >>= 3
        return parts[0], parts[1], parts[2]

    for name in ("voc12", "voc11", "coco"):
        assert datasets.get(name).palette == tuple(map(colour, range(21)))
    assert (colour(1), colour(15), colour(20)) == ((128, 0, 0), (192, 128, 128), (0, 64, 128))


def test_cityscapes_labels_equal_those_of_its_scripts_field_by_field() -> None:
    assert len(LABELS) == len(official.labels)
    for ours, theirs in zip(LABELS, official.labels, strict=True):
        assert (ours.name, ours.id, ours.colour) == (theirs.name, theirs.id, theirs.color)
        assert ours.train_id == (255 if theirs.ignoreInEval else theirs.trainId)
    classes = [label for label in official.labels if not label.ignoreInEval]
    for name in ("cityscapes", "cityscapes_coarse"):
        assert datasets.get(name).classes == tuple(label.name for label in classes)
        assert datasets.get(name).palette == tuple(label.color for label in classes)


def test_contexts_classes_are_numbered_as_in_its_own_lists() -> None:
    assert dict(zip(trees.CONTEXT_NAMES, trees.CONTEXT_NUMBERS, strict=True)) == NUMBERS
    assert datasets.get("context").classes == ("background", *trees.CONTEXT_ORDER)


def test_ade20k_has_the_benchmarks_classes_at_their_numbers() -> None:
    dataset = datasets.get("ade20k")
    known = {1: "wall", 3: "sky", 7: "road", 13: "person", 21: "car", 44: "signboard", 76: "swivel chair"}
    known |= {
        90: "television receiver",
        100: "buffet",
        101: "poster",
        103: "van",
        128: "bicycle",
        137: "traffic light",
        150: "flag",
    }
    known |= {9: "windowpane", 20: "chair", 67: "flower", 75: "computer", 81: "bus", 84: "truck", 127: "animal"}
    assert {number: dataset.classes[dataset.label_values[number]] for number in known} == known
    assert dataset.palette[dataset.label_values[1]] == (120, 120, 120)
    assert dataset.palette[dataset.label_values[13]] == (150, 5, 61)
    assert dataset.label_values[0] == 255


def test_cocos_categories_are_the_20_of_voc() -> None:
    assert sorted(name for _, name in CATEGORIES.values()) == sorted(datasets.get("voc12").classes[1:])
    # By the same names a network trained on COCO keeps its classifier on VOC.
    assert datasets.get("coco").classes == datasets.get("coco14").classes == datasets.get("voc12").classes
    # torchvision's reference lists their numbers in VOC's order.
    order = [5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72]
    assert [CATEGORIES[number][1] for number in order] == list(datasets.get("voc12").classes[1:])


def test_cocos_lists_may_come_in_any_order_and_spacing(tmp_path: Path) -> None:
    expected = trees.coco(tmp_path)["val"]
    source, file = locate(tmp_path), tmp_path / "annotations/instances_val2017.json"
    given = trees.instances(2017)
    given["annotations"][4]["segmentation"] = packed(given["annotations"][4]["segmentation"])
    file.write_text(json.dumps(given, sort_keys=True, indent=2), encoding="utf-8")
    for pair in datasets.get("coco").pairs(source, "val"):
        np.testing.assert_array_equal(read("coco", source, pair)[1], expected[pair.id])


def packed(polygons: list[list[float]]) -> dict:
    runs = mask.merge(mask.frPyObjects(polygons, trees.HEIGHT, trees.WIDTH))
    return {"size": runs["size"], "counts": runs["counts"].decode()}


def test_the_usual_augmented_folder_of_voc_goes_before_sbd(tmp_path: Path) -> None:
    trees.voc12(tmp_path)
    root, label = tmp_path / "VOCdevkit/VOC2012", trees.blocks(99, 21)
    trees.write(root / "ImageSets/Segmentation/train_aug.txt", "2008_s0\n")
    trees.palette_png(root / "SegmentationClassAug/2008_s0.png", label)
    (pair,) = datasets.get("voc12").pairs(locate(root), "trainaug")
    np.testing.assert_array_equal(read("voc12", locate(root), pair)[1], label)


def test_sbd_is_found_beside_vocs_own_folder(tmp_path: Path) -> None:
    expected = trees.voc12(tmp_path)["trainaug"]
    (tmp_path / "SBD").rename(tmp_path / "VOCdevkit/SBD")
    source = locate(tmp_path / "VOCdevkit/VOC2012")
    for pair in datasets.get("voc12").pairs(source, "trainaug"):
        np.testing.assert_array_equal(read("voc12", source, pair)[1], expected[pair.id])


def test_real_camvids_frames_are_in_segnets_splits() -> None:
    folder = Path(os.environ.get("DEEPLAB_SHARED", "../shared")) / "camvid"
    if not folder.is_dir():
        pytest.skip(f"no {folder}: set DEEPLAB_SHARED")
    for split in ("train", "val"):
        assert {split_of(id) for id in (folder / f"{split}.txt").read_text(encoding="utf-8").split()} == {split}
    # 0001TP has 124 frames of which 62 are tested, and all 171 of Seq05VD are.
    assert split_of("0001TP_008550") == split_of("0001TP_010380") == split_of("Seq05VD_f05100") == "test"


def test_a_list_beside_camvids_first_layout_says_what_a_split_is(tmp_path: Path) -> None:
    labels = trees.camvid_first(tmp_path)
    (tmp_path / "val.txt").write_text("0001TP_008550.png\n0016E5_09999\n", encoding="utf-8")
    there, missing = datasets.get("camvid").pairs(locate(tmp_path), "val")
    np.testing.assert_array_equal(read("camvid", locate(tmp_path), there)[1], labels["test"]["0001TP_008550"])
    assert (missing.id, missing.has_label) == ("0016E5_09999", False)


def test_rgb_labels_are_refused_where_a_dataset_has_none() -> None:
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "PNG")
    for name in ("voc12", "cityscapes", "ade20k"):
        with pytest.raises(ValueError, match="mode RGB"):
            datasets.get(name).labels.decode(file.getvalue(), 4, 4, None)


def test_trees_on_s3_are_read_like_those_on_a_disk(s3: EmbeddedS3, tmp_path: Path) -> None:
    s3.make_bucket("trees")
    for name in ("voc12", "coco", "camvid"):
        expected, bucket = MAKERS[name](tmp_path / name), locate(f"s3://trees/{name}")
        for file in filter(Path.is_file, (tmp_path / name).rglob("*")):
            (bucket / str(file.relative_to(tmp_path / name))).write_bytes(file.read_bytes())
        for split, labels in expected.items():
            pairs = datasets.get(name).pairs(bucket, split)
            assert [pair.id for pair in pairs] == sorted(labels)
            assert datasets.get(name).unused(bucket, split, pairs) == []
            for pair in pairs:
                np.testing.assert_array_equal(read(name, bucket, pair)[1], labels[pair.id])
