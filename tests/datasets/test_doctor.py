"""Sets broken as people reported of other projects: each is named by its numbers, with a fix that mends it.

Here what label files hold, in datasets with a layout of their own; test_doctor_sets.py has what becomes of them
together, test_doctor_folder.py anybody's two folders.
"""

import dataclasses
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from broken import CAMVID, CITYSCAPES, change, look, pixels, save, scene, serious, street, the_only
from PIL import Image

from deeplab_ray.datasets import Dataset, doctor
from deeplab_ray.datasets.cityscapes import LABEL_OF_TRAIN_ID
from deeplab_ray.datasets.doctor import Finding
from deeplab_ray.datasets.folder import FolderOptions
from deeplab_ray.labels import IGNORE
from deeplab_ray.on_ray.prepare import Options


def test_of_a_whole_set_only_what_is_ignored_is_told(tmp_path: Path) -> None:
    findings = look(CAMVID, street(tmp_path))
    assert serious(findings) == []
    share = 100 * np.mean([scene(number)[1] == 11 for number in range(8)])
    assert findings[0] == Finding(
        "note",
        "ignored",
        ("train",),
        f"{share:.1f} % of the pixels of train are ignored, {share:.1f} % as value 11",
        "",
    )
    assert len(findings) == 2


class TestValues:
    def test_void_is_255_where_the_layout_has_another_number(self, tmp_path: Path) -> None:
        """Loss turns NaN, or an assertion of the GPU fails: a converted copy of the set has 255 for what is void."""
        void = sum((scene(number)[1] == 11).any() for number in (*range(8), *range(100, 104)))
        change(street(tmp_path), lambda label: np.where(label == 11, 255, label).astype(np.uint8))
        finding = the_only(look(CAMVID, tmp_path), "error")
        assert (finding.code, finding.splits) == ("undeclared-255", ("train", "val"))
        assert finding.message.startswith(f"{void} of 12 labels hold 255, 2.6 % of all pixels")
        assert finding.fix == "save those pixels as 11, which camvid ignores"
        change(tmp_path, lambda label: np.where(label == 255, 11, label).astype(np.uint8))
        assert serious(look(CAMVID, tmp_path)) == []

    def test_ids_that_start_at_1(self, tmp_path: Path) -> None:
        """Mean IoU near 0, and targets out of range: an annotation tool counts classes from 1."""
        change(street(tmp_path), lambda label: label + 1)
        finding = the_only(look(CAMVID, tmp_path), "error")
        assert finding.code == "ids-from-1"
        assert "the labels hold 1..12, and 0 nowhere, where values are 0..11" in finding.message
        assert finding.fix == "subtract 1 from the values of the labels"
        change(tmp_path, lambda label: label - 1)
        assert serious(look(CAMVID, tmp_path)) == []

    def test_ids_that_start_at_0_where_0_is_no_class(self, tmp_path: Path) -> None:
        """Labels that were reduced already (255 = none) are reduced once more, as ADE20K's are (0 = none)."""
        from_one = dataclasses.replace(
            CAMVID, name="reduced", label_values={0: IGNORE, **{id + 1: id for id in range(11)}}
        )
        change(street(tmp_path), lambda label: np.where(label == 11, 255, label).astype(np.uint8))
        finding = the_only(look(from_one, tmp_path), "error")
        assert finding.code == "ids-from-0"
        assert "the labels hold 0..10 and 255, where the 11 classes are 1..11 and 0 is ignored" in finding.message
        assert finding.fix == "put the label files there as reduced publishes them (0 is none, 1 is the first class)"
        change(tmp_path, lambda label: label + 1)
        assert serious(look(from_one, tmp_path)) == []

    def test_train_ids_under_the_name_of_ids(self, tmp_path: Path) -> None:
        """Cityscapes' labels were converted in place: road and building are ignored, all others are something else."""
        ids = np.array([LABEL_OF_TRAIN_ID[train_id].id % 256 for train_id in (*range(19), IGNORE)], np.uint8)
        wide = np.tile(np.arange(20, dtype=np.uint8), (8, 10))

        def cityscapes(labels: list[np.ndarray]) -> None:
            for number, label in enumerate(labels):
                for split in ("train", "val"):
                    stem = f"{split}/ulm/ulm_{number:06d}_000019"
                    image = np.random.default_rng([number, split == "val"]).integers(0, 255, (8, 200, 3), np.uint8)
                    save(tmp_path / f"leftImg8bit/{stem}_leftImg8bit.png", image)
                    save(tmp_path / f"gtFine/{stem}_gtFine_labelIds.png", label)

        train_ids = np.where(wide == 19, IGNORE, wide).astype(np.uint8)
        cityscapes([train_ids, train_ids])
        finding = the_only(look(CITYSCAPES, tmp_path), "error")
        assert finding.code == "train-ids"
        assert (
            "the labels hold 0..18 and 255 alone, which are train ids, and not the ids of cityscapes (0..33): 0, 1, 2"
            in (finding.message)
        )
        assert finding.fix == "put the label files there as cityscapes publishes them"
        cityscapes([ids[wide], ids[wide]])
        assert serious(look(CITYSCAPES, tmp_path)) == []

    def test_values_beyond_the_classes(self, tmp_path: Path) -> None:
        """The GPU's assertion t < n_classes: some objects of a few labels have numbers that no class has."""
        street(tmp_path)
        for name in ("0001", "0005"):
            label = pixels(tmp_path / f"trainannot/{name}.png").copy()
            label[:5, :7] = 77
            save(tmp_path / f"trainannot/{name}.png", label)
        finding = the_only(look(CAMVID, tmp_path), "warning")
        assert (finding.code, finding.splits) == ("unknown-values", ("train",))
        assert finding.message == (
            "2 of 12 labels hold 1 value beyond the 11 classes (77), in 70 pixels (under 0.1 %), such as 0001"
        )
        assert finding.fix == (
            "save them as camvid publishes them, with 11 for what is none of its classes, "
            "or leave them out by --skip-bad"
        )
        change(tmp_path, lambda label: np.where(label == 77, 11, label).astype(np.uint8))
        assert serious(look(CAMVID, tmp_path)) == []

    def test_values_beyond_the_classes_in_most_labels_are_an_error(self, tmp_path: Path) -> None:
        change(street(tmp_path), lambda label: np.where(label >= 9, label + 90, label).astype(np.uint8))
        finding = the_only(look(CAMVID, tmp_path), "error")
        assert finding.code == "unknown-values"
        assert "12 of 12 labels hold 3 values beyond the 11 classes (99, 100, 101)" in finding.message

    def test_a_binary_mask_in_black_and_white(self, tmp_path: Path) -> None:
        """Foreground has IoU 0 and accuracy NaN: it was saved as 255, which is ignored."""
        voc = two_classes(ignore=255)
        change(street(tmp_path), lambda label: (label == 9) * np.uint8(255))
        finding = the_only(look(voc, tmp_path), "error")
        cars = 100 * np.mean([scene(number)[1] == 9 for number in (*range(8), *range(100, 104))])
        assert finding.code == "binary-255"
        assert "the labels hold 0 and 255 alone" in finding.message
        assert f"and 255 is ignored: {cars:.1f} % of all pixels" in finding.message
        assert finding.fix == "save the white pixels as the number of their class"
        change(tmp_path, lambda label: label // 255)
        assert serious(look(voc, tmp_path)) == []


def two_classes(ignore: int | None) -> Dataset:
    """Cars on something else, in CamVid's layout."""
    values = {0: 0, 1: 1} | ({} if ignore is None else {ignore: IGNORE})
    return dataclasses.replace(
        CAMVID, name="cars", classes=("no car", "car"), palette=((0, 0, 0), (9, 9, 9)), label_values=values
    )


class TestFiles:
    def test_images_and_labels_swapped(self, tmp_path: Path) -> None:
        street(tmp_path)

        def swap() -> None:
            for split in ("train", "val"):
                (tmp_path / split).rename(tmp_path / "aside")
                (tmp_path / f"{split}annot").rename(tmp_path / split)
                (tmp_path / "aside").rename(tmp_path / f"{split}annot")

        swap()
        finding = the_only(look(CAMVID, tmp_path), "error")
        assert finding.code == "swapped"
        assert finding.message.startswith("images and labels are swapped: 12 of 12 labels look like photographs")
        assert finding.fix == "give the folders of images and labels each other's names"
        swap()
        assert serious(look(CAMVID, tmp_path)) == []

    def test_labels_that_are_photographs(self, tmp_path: Path) -> None:
        """Overlays, made for people to look at, lie where the masks should be."""
        street(tmp_path)
        for path in tmp_path.glob("*annot/*.png"):
            aside = path.with_suffix(".mask")
            path.rename(aside)
            overlay = pixels(tmp_path / path.parent.name.removesuffix("annot") / path.name) // 2
            save(path, overlay + 10 * np.asarray(Image.open(aside))[..., None])
        finding = the_only(look(CAMVID, tmp_path), "error")
        assert finding.code == "photo-labels"
        assert finding.message.startswith("12 of 12 labels look like photographs")
        assert finding.fix == "put the labels where the photographs lie"
        for path in tmp_path.glob("*annot/*.mask"):
            path.rename(path.with_suffix(".png"))
        assert serious(look(CAMVID, tmp_path)) == []

    def test_labels_in_colours_where_numbers_are_expected(self, tmp_path: Path) -> None:
        """Values up to 255 in a mask that seems to show ten classes: the coloured files were taken."""
        colours = np.array([*CAMVID.palette, (0, 0, 0)], np.uint8)
        change(street(tmp_path), lambda label: colours[label])
        finding = the_only(look(CAMVID, tmp_path), "error")
        assert finding.code == "label-kind"
        assert "12 of 12 labels are PNG of mode RGB, which is not how the labels of camvid are kept" in finding.message
        assert finding.fix == "take the label files of camvid that hold numbers, not those for people to look at"
        change(tmp_path, lambda label: (label[:, :, None] == colours).all(axis=3).argmax(axis=2).astype(np.uint8))
        assert serious(look(CAMVID, tmp_path)) == []

    @pytest.mark.parametrize(
        ("spoil", "kind", "mend"),
        [
            (lambda a: np.dstack([a] * 3), "PNG of mode RGB with three equal channels", lambda a: a[..., 0]),
            (lambda a: a.astype(np.uint16), "PNG of mode I;16", lambda a: a.astype(np.uint8)),
        ],
    )
    def test_numbers_in_the_wrong_kind_of_file(self, tmp_path: Path, spoil, kind: str, mend) -> None:
        """A library for pictures wrote three channels, or 16 bits, of what has one of 8."""
        change(street(tmp_path), spoil)
        finding = the_only(look(CAMVID, tmp_path), "error")
        assert f"12 of 12 labels are {kind}" in finding.message
        assert finding.fix in (
            "save one of their three channels as an 8-bit PNG",
            "save them as 8-bit PNGs of one channel",
        )
        change(tmp_path, mend)
        assert serious(look(CAMVID, tmp_path)) == []

    def test_labels_saved_as_jpeg(self, tmp_path: Path) -> None:
        """Values that nobody drew, at every border: compression made them."""
        street(tmp_path)
        good = tmp_path / "good"
        for path in [*tmp_path.glob("*annot/*.png")]:
            (good / path.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, good / path.parent.name / path.name)
        # Three times as large, as those of people are.
        change(tmp_path, lambda array: array.repeat(3, 0).repeat(3, 1), "*/*.png")
        change(tmp_path, lambda label: label * np.uint8(20), kind="JPEG", quality=90)
        finding = the_only(look(CAMVID, tmp_path), "error")
        assert finding.code == "lossy-labels"
        assert finding.message.startswith("12 of 12 labels are JPEGs, which do not keep the values that were saved")
        assert "for 11 classes" in finding.message
        assert finding.fix == "save the labels as PNG from what the JPEGs were made of"
        for path in good.rglob("*.png"):
            save(tmp_path / path.relative_to(good), pixels(path).repeat(3, 0).repeat(3, 1))
        assert serious(look(CAMVID, tmp_path)) == []

    def test_a_few_broken_labels_may_be_left_out(self, tmp_path: Path) -> None:
        street(tmp_path)
        save(tmp_path / "valannot/0002.png", scene(5)[0])
        finding = the_only(look(CAMVID, tmp_path), "warning")
        assert finding.code == "photo-labels"
        assert finding.message.startswith("1 of 12 labels looks like photographs")
        assert finding.message.endswith("such as 0002")
        assert finding.fix.endswith("or leave them out by --skip-bad")


def test_errors_come_first_and_what_follows_from_them_is_not_told(tmp_path: Path) -> None:
    street(tmp_path)
    change(tmp_path, lambda label: np.where(label == 10, 5, label).astype(np.uint8) + 1)
    shutil.copy(tmp_path / "train/0000.png", tmp_path / "train/0001.png")
    findings = look(CAMVID, tmp_path)
    assert [(finding.severity, finding.code) for finding in findings] == [
        ("error", "ids-from-1"),
        ("warning", "duplicates"),
    ]
    assert all("\n" not in finding.message + finding.fix for finding in findings)


def test_every_flag_that_is_named_is_one(tmp_path: Path) -> None:
    known = {field.name for options in (FolderOptions, Options) for field in dataclasses.fields(options)} | {"splits"}
    named = set()
    for module in Path(doctor.__file__).parent.glob("*.py"):
        named |= set(re.findall(r"--([a-z][a-z-]+)", module.read_text(encoding="utf-8")))
    assert {"snap-colours", "ignore-values", "label-offset", "exif", "classes", "skip-bad"} <= named
    assert {name.replace("-", "_") for name in named} <= known
