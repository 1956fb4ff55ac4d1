"""Labels that do not lie on their images, splits, and classes: sets broken as people reported of other projects."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from broken import CAMVID, change, look, save, scene, serious, street, the_only
from PIL import Image

from deeplab_ray.datasets.doctor import examine
from deeplab_ray.datasets.facts import Facts


class TestPlaces:
    @pytest.mark.parametrize(
        ("spoil", "says", "fix", "mend"),
        [
            (
                lambda a: a[1::2, 1::2],
                "are 1/2 as large as their images, such as 0000 (label 64×48, image 128×96)",
                "scale the labels to the size of their images (nearest neighbour)",
                lambda a: a.repeat(2, 0).repeat(2, 1),
            ),
            (
                lambda a: a[:, 4:-4],
                "differ from their images by -8 pixels in width and +0 in height, "
                "such as 0000 (label 120×96, image 128×96)",
                "save the labels in the size of their images",
                lambda a: np.pad(a, ((0, 0), (4, 4)), mode="edge"),
            ),
            (
                lambda a: np.rot90(a),
                "are turned by 90° against their images, such as 0000 (label 96×128, image 128×96)",
                "turn the labels as their images are",
                lambda a: np.rot90(a, -1),
            ),
        ],
    )
    def test_labels_of_another_size(self, tmp_path: Path, spoil, says: str, fix: str, mend) -> None:
        """Images were scaled, cropped or turned after they had been annotated."""
        change(street(tmp_path), spoil)
        finding = the_only(look(CAMVID, tmp_path), "error")
        assert (finding.code, finding.message, finding.fix) == ("label-size", f"12 of 12 labels {says}", fix)
        change(tmp_path, mend)
        assert serious(look(CAMVID, tmp_path)) == []

    def test_labels_beside_their_images(self, tmp_path: Path) -> None:
        """Borders of what is predicted are off by the same few pixels everywhere: images were padded, labels not."""
        change(street(tmp_path), lambda label: np.roll(label, (4, -7), (0, 1)))
        finding = the_only(look(CAMVID, tmp_path), "warning")
        assert finding.code == "labels-shifted"
        assert finding.message.startswith(
            "12 of 12 labels whose outlines can be told from their images lie 7 pixels too far left"
        )
        assert "and 4 too far down" in finding.message
        assert finding.fix == "move the labels by 7 pixels to the right and -4 down"
        change(tmp_path, lambda label: np.roll(label, (-4, 7), (0, 1)))
        assert serious(look(CAMVID, tmp_path)) == []

    def test_labels_of_other_images(self, tmp_path: Path) -> None:
        """Loss goes down, and mean IoU stays at what guessing gives: files were paired by their order."""
        street(tmp_path)
        for number in range(8, 24):
            save(tmp_path / f"train/{number:04d}.png", scene(number)[0])
            save(tmp_path / f"trainannot/{number:04d}.png", scene(number)[1])
        files = sorted(tmp_path.glob("*annot/*.png"))
        contents = [file.read_bytes() for file in files]
        for file, content in zip(files, contents[3:] + contents[:3], strict=True):
            file.write_bytes(content)
        finding = next(finding for finding in look(CAMVID, tmp_path) if finding.code == "no-outlines")
        assert finding.message.startswith("none of 28 labels that were compared follows outlines of its image")
        for file, content in zip(files, contents, strict=True):
            file.write_bytes(content)
        assert "no-outlines" not in [finding.code for finding in look(CAMVID, tmp_path)]

    @pytest.mark.parametrize("orientation", [3, 6])
    def test_labels_that_were_drawn_on_what_the_file_stores(self, tmp_path: Path, orientation: int) -> None:
        """Masks are mirrored or turned against phone photos: the annotation tool did not heed EXIF, the viewer does."""
        street(tmp_path)
        exif = Image.Exif()
        exif[0x0112] = orientation
        change(tmp_path, lambda image: image, "[tv]*[nl]/*.png", exif=exif)
        findings = look(CAMVID, tmp_path)
        finding = the_only(findings, "error")
        assert finding.code == "labels-not-upright"
        if orientation == 6:
            assert finding.message == (
                "12 of 12 labels fit their images as the files store them and not as their EXIF data turn them, "
                "such as 0000 (label 128×96, image 96×128)"
            )
        else:
            assert finding.message.startswith(
                "of 12 images that EXIF data turn or mirror, 12 have labels with the outlines"
            )
        assert finding.fix == "give --exif ignore"
        assert serious(look(CAMVID, tmp_path, exif=False)) == []

    def test_exif_ignored_although_labels_were_drawn_upright(self, tmp_path: Path) -> None:
        street(tmp_path)
        exif = Image.Exif()
        exif[0x0112] = 6
        change(tmp_path, lambda image: np.rot90(image), "[tv]*[nl]/*.png", exif=exif)
        finding = the_only(look(CAMVID, tmp_path, exif=False), "error")
        assert (finding.code, finding.fix) == ("labels-upright", "leave out --exif ignore")
        findings = look(CAMVID, tmp_path)
        assert serious(findings) == []
        assert findings[0].message.startswith("12 of 12 images are turned or mirrored by their EXIF data, such as 0000")


class TestSplits:
    def test_a_split_in_which_all_is_ignored(self, tmp_path: Path) -> None:
        """Loss 0 and mean IoU NaN: the labels of the test server, which say nothing, lie in val."""
        change(street(tmp_path), lambda label: np.full_like(label, 11), "valannot/*.png")
        finding = the_only(look(CAMVID, tmp_path), "error")
        assert (finding.code, finding.splits) == ("all-ignored", ("val",))
        assert finding.message == (
            "100 % of the pixels of val are ignored, 100 % as value 11; "
            "4 of 4 labels are ignored throughout, such as 0000"
        )
        assert finding.fix == "get the labels of val, or leave it out by --splits train"
        for number in range(4):
            save(tmp_path / f"valannot/{number:04d}.png", scene(100 + number)[1])
        assert serious(look(CAMVID, tmp_path)) == []

    def test_most_is_ignored(self, tmp_path: Path) -> None:
        change(street(tmp_path), lambda label: np.where(label < 7, 11, label).astype(np.uint8), "valannot/*.png")
        finding = the_only(look(CAMVID, tmp_path), "warning")
        assert (finding.code, finding.splits) == ("much-ignored", ("val",))
        assert "as value 11" in finding.message

    def test_images_of_val_in_train(self, tmp_path: Path) -> None:
        """Figures too good to be true: images are in both splits under other names."""
        street(tmp_path)
        for number in (1, 3):
            for folder in ("", "annot"):
                shutil.copy(tmp_path / f"val{folder}/{number:04d}.png", tmp_path / f"train{folder}/copy{number}.png")
        finding = the_only(look(CAMVID, tmp_path), "warning")
        assert (finding.code, finding.splits) == ("overlap", ("train", "val"))
        assert finding.message == "2 of the 4 images of val are in train, too, such as 0001 = copy1"
        for path in tmp_path.glob("train*/copy*"):
            path.unlink()
        assert serious(look(CAMVID, tmp_path)) == []

    def test_the_same_image_twice(self, tmp_path: Path) -> None:
        street(tmp_path)
        for name, label in (("again", "0002"), ("contrary", "0003")):
            shutil.copy(tmp_path / "train/0002.png", tmp_path / f"train/{name}.png")
            shutil.copy(tmp_path / f"trainannot/{label}.png", tmp_path / f"trainannot/{name}.png")
        finding = the_only(look(CAMVID, tmp_path), "warning")
        assert finding.code == "duplicates"
        assert finding.message == (
            "2 of the 10 images of train are copies of another one, 1 with another label, such as again = 0002"
        )
        for path in (*tmp_path.glob("train*/again.png"), *tmp_path.glob("train*/contrary.png")):
            path.unlink()
        assert serious(look(CAMVID, tmp_path)) == []

    def test_splits_that_are_parts_of_each_other_may_overlap(self) -> None:
        """VOC's trainval is train and val; but nothing of val may be in trainaug."""

        def split(*ids: str) -> Facts:
            return Facts(ids=list(ids), image_sha=[id.encode() for id in ids], label_sha=[None] * len(ids))

        facts = {"train": split("a"), "val": split("b"), "trainval": split("a", "b"), "trainaug": split("a", "b", "c")}
        (finding,) = examine(facts, CAMVID)
        assert (finding.code, finding.splits) == ("overlap", ("val", "trainaug"))

    def test_another_number_of_images_than_published(self, tmp_path: Path) -> None:
        street(tmp_path)
        whole = dataclasses.replace(CAMVID, published={"train": 8, "val": 5})
        finding = the_only(look(whole, tmp_path), "warning")
        assert (finding.code, finding.splits) == ("published-count", ("val",))
        assert finding.message == "val has 4 images, camvid as published has 5"
        assert finding.fix == "get the missing ones"
        save(tmp_path / "val/0004.png", scene(104)[0])
        save(tmp_path / "valannot/0004.png", scene(104)[1])
        assert serious(look(whole, tmp_path)) == []


class TestClasses:
    def test_one_that_never_occurs_and_one_that_is_not_trained(self, tmp_path: Path) -> None:
        street(tmp_path)
        change(tmp_path, lambda label: np.where(label == 10, 5, label).astype(np.uint8))
        change(tmp_path, lambda label: np.where(label == 9, 5, label).astype(np.uint8), "trainannot/*.png")
        never, untrained = (finding for finding in look(CAMVID, tmp_path) if finding.severity == "warning")
        assert never.code == "class-never"
        assert never.message == "1 of 11 classes occurs in no label: bicyclist"
        assert (untrained.code, untrained.splits) == ("class-not-trained", ("val",))
        people = sum((scene(number)[1] == 9).sum() for number in range(100, 104))
        assert untrained.message == (
            f"1 of 11 classes occurs in val and not in train: pedestrian; {people} pixels, such as in 0000"
        )
        assert untrained.fix == "move images that show them from val to train"
        for number in range(8):
            save(tmp_path / f"trainannot/{number:04d}.png", scene(number)[1])
        assert serious(look(CAMVID, tmp_path)) == []
