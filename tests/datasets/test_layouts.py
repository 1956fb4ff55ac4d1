"""Where each dataset's files lie, which belong together, and what its labels mean."""

import os
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

from deeplab_ray import datasets
from deeplab_ray.datasets import Pair
from deeplab_ray.datasets.cityscapes import LABEL_OF_NAME, LABEL_OF_TRAIN_ID, LABELS
from deeplab_ray.errors import UserError
from deeplab_ray.images import decode_image
from deeplab_ray.labels import IGNORE
from deeplab_ray.scenes.draw import CLASS_IDS
from deeplab_ray.storage.location import locate


def decode(dataset: datasets.Dataset, file: bytes) -> np.ndarray:
    return dataset.labels.decode(file, 1, 1, None)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_camvid_pairs_images_with_labels_and_shows_lonely_ones(tmp_path: Path) -> None:
    touch(tmp_path, "train/b.png", "train/a.png", "train/Thumbs.db", "trainannot/a.png", "trainannot/c.png")
    assert datasets.get("camvid").pairs(locate(tmp_path), "train") == [
        Pair("a", "train/a.png", "trainannot/a.png"),
        Pair("b", "train/b.png", None),
        Pair("c", "train/c.png", "trainannot/c.png"),
    ]


def test_cityscapes_pairs_files_across_its_two_trees(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "leftImg8bit/val/ulm/ulm_000001_000019_leftImg8bit.png",
        "leftImg8bit/val/bonn/bonn_000000_000019_leftImg8bit.png",
        "gtFine/val/ulm/ulm_000001_000019_gtFine_labelIds.png",
        "gtFine/val/ulm/ulm_000001_000019_gtFine_color.png",
        "gtFine/val/jena/jena_000002_000019_gtFine_labelIds.png",
    )
    for name in ("cityscapes", "scenes"):
        assert datasets.get(name).pairs(locate(tmp_path), "val") == [
            Pair("bonn_000000_000019", "leftImg8bit/val/bonn/bonn_000000_000019_leftImg8bit.png", None),
            Pair(
                "jena_000002_000019",
                "leftImg8bit/val/jena/jena_000002_000019_leftImg8bit.png",
                "gtFine/val/jena/jena_000002_000019_gtFine_labelIds.png",
            ),
            Pair(
                "ulm_000001_000019",
                "leftImg8bit/val/ulm/ulm_000001_000019_leftImg8bit.png",
                "gtFine/val/ulm/ulm_000001_000019_gtFine_labelIds.png",
            ),
        ]


@pytest.mark.parametrize("place", ["", "VOC2012", "VOCdevkit/VOC2012"])
def test_voc_follows_its_lists_from_the_folder_or_its_parents(tmp_path: Path, place: str) -> None:
    root = tmp_path / place
    touch(root, "JPEGImages/2007_01.jpg", "SegmentationClass/2007_01.png", "SegmentationClass/2007_09.png")
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("2007_02\n2007_01\n")
    prefix = f"{place}/" if place else ""
    assert datasets.get("voc12").pairs(locate(tmp_path), "val") == [
        Pair("2007_01", f"{prefix}JPEGImages/2007_01.jpg", f"{prefix}SegmentationClass/2007_01.png"),
        Pair("2007_02", f"{prefix}JPEGImages/2007_02.jpg", None),
    ]
    with pytest.raises(UserError, match=r"trainaug\.txt"):
        datasets.get("voc12").pairs(locate(tmp_path), "trainaug")


def test_voc_takes_the_augmented_labels_from_their_own_folder(tmp_path: Path) -> None:
    touch(tmp_path, "JPEGImages/a.jpg", "SegmentationClass/a.png", "SegmentationClassAug/a.png")
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/trainaug.txt").write_text("a\n")
    (pair,) = datasets.get("voc12").pairs(locate(tmp_path), "trainaug")
    assert pair.label == "SegmentationClassAug/a.png"


@pytest.mark.parametrize("text", [b"a 1\nb -1\n", b"/JPEGImages/a.jpg /SegmentationClass/a.png\n", b"\xff\xfea"])
def test_a_voc_list_of_something_else_is_refused(tmp_path: Path, text: bytes) -> None:
    lists = tmp_path / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_bytes(text)
    with pytest.raises(UserError, match=r"val\.txt .*: it should list the split's images, one id a line"):
        datasets.get("voc12").pairs(locate(tmp_path), "val")
    (lists / "val.txt").write_bytes("\ufeffa\r\n".encode())
    assert [pair.id for pair in datasets.get("voc12").pairs(locate(tmp_path), "val")] == ["a"]


def test_two_cityscapes_images_of_one_name_are_refused_instead_of_mixed_up(tmp_path: Path) -> None:
    touch(tmp_path, "leftImg8bit/val/a/1_leftImg8bit.png", "leftImg8bit/val/b/1_leftImg8bit.png")
    touch(tmp_path, "gtFine/val/a/1_gtFine_labelIds.png")
    with pytest.raises(UserError, match=r"val/a/1_left.* and .*val/b/1_left.* have one name"):
        datasets.get("cityscapes").pairs(locate(tmp_path), "val")


@pytest.mark.parametrize(
    ("name", "file"), [("camvid", "valannot/1.png"), ("cityscapes", "gtFine/val/a/1_gtFine_labelIds.png")]
)
def test_labels_whose_images_are_all_missing_are_pairs_without_image(tmp_path: Path, name: str, file: str) -> None:
    touch(tmp_path, file)
    (pair,) = datasets.get(name).pairs(locate(tmp_path), "val")
    assert (pair.id, pair.label) == ("1", file)


@pytest.mark.parametrize("name", datasets.names())
def test_a_folder_without_the_layout_is_refused_with_what_is_looked_for(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"below .*: --source is the folder"):
        datasets.get(name).pairs(locate(tmp_path), "train")


def test_cityscapes_ids_and_train_ids_are_each_others_inverse() -> None:
    assert [label.id for label in LABELS] == [*range(34), -1]
    cityscapes = datasets.get("cityscapes")
    for train_id, name in enumerate(cityscapes.classes):
        assert LABEL_OF_TRAIN_ID[train_id].name == name
        assert cityscapes.label_values[LABEL_OF_TRAIN_ID[train_id].id] == train_id
    road, bicycle = np.array([[7]], np.uint8), np.array([[33]], np.uint8)
    assert decode(cityscapes, tiny.png(road)) == 0
    assert decode(cityscapes, tiny.png(bicycle)) == 18


def test_scenes_are_a_part_of_cityscapes_and_refuse_the_rest_of_it() -> None:
    scenes = datasets.get("scenes")
    assert {name: LABEL_OF_NAME[name].id for name in scenes.classes} == CLASS_IDS
    for label in LABELS:
        raw = tiny.png(np.array([[label.id % 256]], np.uint8))
        if label.name in CLASS_IDS:
            assert scenes.classes[decode(scenes, raw).item()] == label.name
        elif label.train_id == IGNORE:
            assert decode(scenes, raw) == IGNORE
        else:
            with pytest.raises(ValueError, match="not in scenes's table"):
                decode(scenes, raw)


def test_voc_colours_and_palette_labels_are_the_benchmarks(tmp_path: Path) -> None:
    voc = datasets.get("voc12")
    assert voc.palette[15] == (192, 128, 128)  # person, in the development kit's colour map
    assert voc.palette[20] == (0, 64, 128)  # tvmonitor
    label = Image.fromarray(np.array([[0, 15, 255]], np.uint8), mode="L").convert("P")
    label.putpalette([value for colour in voc.palette for value in colour])
    label.save(tmp_path / "label.png")
    np.testing.assert_array_equal(decode(voc, (tmp_path / "label.png").read_bytes()), [[0, 15, 255]])


def test_real_camvid_is_read() -> None:
    folder = Path(os.environ.get("DEEPLAB_SHARED", "../shared")) / "camvid"
    if not folder.is_dir():
        pytest.skip(f"no {folder}: set DEEPLAB_SHARED")
    camvid, source = datasets.get("camvid"), locate(folder)
    assert [len(camvid.pairs(source, split)) for split in ("train", "val")] == [367, 101]
    pair = camvid.pairs(source, "val")[0]
    assert pair.label
    image = decode_image((source / pair.image).read_bytes())
    label = decode(camvid, (source / pair.label).read_bytes())
    assert image.shape == (360, 480, 3)
    assert label.shape == (360, 480)
    # The top of a street picture is sky, tree or building, its middle bottom is road.
    assert set(np.unique(label[:5])) <= {camvid.classes.index(c) for c in ("sky", "tree", "building")} | {255}
    assert np.bincount(label[300:340, 200:280].ravel(), minlength=256).argmax() == camvid.classes.index("road")
