"""Sets of anybody's own two folders, broken as people reported of other projects, and mended by the flag that is named.

Each set is made of real files, opened as `prepare.py folder` opens it.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from broken import CAMVID, change, look, save, scene, serious, street, the_only
from folders import looked_at
from PIL import Image

from deeplab_ray.datasets import Dataset
from deeplab_ray.datasets.doctor import Finding, examine
from deeplab_ray.datasets.folder import FolderOptions, find_classes, open_folder

COLOURS = np.array([*CAMVID.palette, (0, 0, 0)], np.uint8)
NAMES = ",".join(CAMVID.classes)
NUMBERS = (*range(8), *range(100, 104))
MASKS = "labels/*/*.png"


def yard(folder: Path) -> Path:
    """The street scenes as two folders, images and labels, with train and val in both; 0..10 are classes, 11 is not."""
    street(folder)
    for split in ("train", "val"):
        for name, kind in ((split, "images"), (f"{split}annot", "labels")):
            (folder / kind).mkdir(exist_ok=True)
            (folder / name).rename(folder / kind / split)
    return folder


def own(folder: Path, **flags: Any) -> Dataset:
    """The dataset that the flags of `prepare.py folder` make of it."""
    where = {"images": str(folder / "images"), "labels": str(folder / "labels")}
    return open_folder(FolderOptions(**where | flags)).dataset


def told(folder: Path, **flags: Any) -> list[Finding]:
    return look(own(folder, **flags), "/")


def table(folder: Path, *rows: str) -> str:
    """A file of classes."""
    (folder / "classes.csv").write_text("\n".join(("name,value,colour,ignore", *rows)), encoding="utf-8")
    return str(folder / "classes.csv")


def colour_table(folder: Path) -> str:
    return table(
        folder,
        *(f'{name},,"{r},{g},{b}",' for name, (r, g, b) in zip(CAMVID.classes, CAMVID.palette, strict=True)),
        'void,,"0,0,0",yes',
    )


def test_a_whole_set(tmp_path: Path) -> None:
    assert serious(told(yard(tmp_path), classes=NAMES, ignore_values=(11,))) == []


class TestNumbers:
    def test_255_is_not_declared(self, tmp_path: Path) -> None:
        """Loss is NaN from the first iteration on: 255 stands for "don't care" and is taken for a class."""
        change(yard(tmp_path), lambda label: np.where(label == 11, 255, label).astype(np.uint8), MASKS)
        finding = the_only(told(tmp_path, classes=NAMES), "error")
        void = [scene(number)[1] == 11 for number in NUMBERS]
        images, share = sum(label.any() for label in void), 100 * np.mean(void)
        assert finding.code == "undeclared-255"
        assert f"{images} of 12 labels hold 255, {share:.1f} % of all pixels, which means nothing here" in (
            finding.message
        )
        assert finding.fix == "give --ignore-values 255 if it stands for no class"
        assert serious(told(tmp_path, classes=NAMES, ignore_values=(255,))) == []

    def test_ids_that_start_at_1(self, tmp_path: Path) -> None:
        """Mean IoU near 0, and the last class is out of range: an annotation tool counts classes from 1."""
        change(yard(tmp_path), lambda label: np.where(label == 11, 255, label + 1).astype(np.uint8), MASKS)
        finding = the_only(told(tmp_path, classes=NAMES, ignore_values=(255,)), "error")
        last = sum((scene(number)[1] == 10).any() for number in NUMBERS)
        assert finding.code == "ids-from-1"
        assert f"where values are 0..10: {last} of 12 labels have 11, such as train/0000" in finding.message
        assert finding.fix == "give --label-offset -1"
        assert serious(told(tmp_path, classes=NAMES, ignore_values=(255,), label_offset=-1)) == []

    def test_ids_that_start_at_0_where_classes_start_at_1(self, tmp_path: Path) -> None:
        """A list of classes from a set whose 0 is nothing (ADE20K), and labels that were reduced to 0… and 255."""
        change(yard(tmp_path), lambda label: np.where(label == 11, 255, label).astype(np.uint8), MASKS)
        from_one = ",".join(f"{name}={value}" for value, name in enumerate(CAMVID.classes, 1))
        finding = the_only(told(tmp_path, classes=from_one, ignore_values=(0,)), "error")
        assert (finding.code, finding.fix) == ("ids-from-0", "give --label-offset 1 --ignore-values 255")
        assert serious(told(tmp_path, classes=from_one, ignore_values=(255,), label_offset=1)) == []

    def test_values_beyond_the_classes(self, tmp_path: Path) -> None:
        """The GPU's assertion t < n_classes, at the first batch that holds an object of the class nobody named."""
        change(yard(tmp_path), lambda label: np.where(label == 11, 40, label).astype(np.uint8), MASKS)
        finding = the_only(told(tmp_path, classes=NAMES), "error")
        assert finding.code == "unknown-values"
        assert "8 of 12 labels hold 1 value beyond the 11 classes (40)" in finding.message
        assert finding.fix == "name them in --classes, or give --ignore-values 40 if they stand for no class"
        assert serious(told(tmp_path, classes=NAMES, ignore_values=(40,))) == []
        twelve = table(tmp_path, *(f"{name},{value},," for value, name in enumerate(CAMVID.classes)), "bonnet,40,,")
        assert serious(told(tmp_path, classes=twelve)) == []

    @pytest.mark.parametrize("ignored", [(), (255,)])
    def test_a_binary_mask_in_black_and_white(self, tmp_path: Path, ignored: tuple[int, ...]) -> None:
        """The foreground's IoU is 0: it was saved as 255, which is out of range, or ignored."""
        change(yard(tmp_path), lambda label: (label == 8) * np.uint8(255), MASKS)
        finding = the_only(told(tmp_path, classes="no car,car", ignore_values=ignored), "error")
        assert (finding.code, finding.fix) == ("binary-255", "give --classes 'no car=0,car=255'")
        assert ("is ignored" if ignored else "means nothing") in finding.message
        assert serious(told(tmp_path, classes="no car=0,car=255")) == []

    def test_background_that_is_ignored(self, tmp_path: Path) -> None:
        """Mean IoU is high and pictures are bad: 0, background here, is ignored as in sets where it is nothing."""
        change(yard(tmp_path), lambda label: np.where((label == 10) | (label == 9), label, 0).astype(np.uint8), MASKS)
        findings = told(tmp_path, classes="a=9,b=10", ignore_values=(0,))
        train, val = (finding for finding in findings if finding.severity == "warning")
        assert train.code == val.code == "much-ignored"
        share = 100 * np.mean([scene(number)[1] < 9 for number in range(8)] + [scene(n)[1] > 10 for n in range(8)]) * 2
        assert train.message.startswith(f"{share:.1f} % of the pixels of train are ignored, {share:.1f} % as value 0")
        assert train.fix == "name value 0 in --classes if it is a class (such as background), instead of ignoring it"
        assert serious(told(tmp_path, classes="background=0,a=9,b=10")) == []

    def test_all_of_a_split_is_ignored(self, tmp_path: Path) -> None:
        """Validation gives NaN: its masks hold nothing but 0, which is ignored."""
        change(yard(tmp_path), lambda label: label + 1, MASKS)
        change(tmp_path, lambda label: np.zeros_like(label), "labels/val/*.png")
        from_one = f"{','.join(f'{name}={value}' for value, name in enumerate(CAMVID.classes, 1))},void=12"
        finding = the_only(told(tmp_path, classes=from_one, ignore_values=(0,)), "error")
        assert (finding.code, finding.splits) == ("all-ignored", ("val",))
        assert finding.fix == "name value 0 in --classes if it is a class, instead of ignoring it"
        assert "all-ignored" not in serious(told(tmp_path, classes=f"nothing=0,{from_one}"))

    def test_a_class_that_never_occurs(self, tmp_path: Path) -> None:
        """A class's IoU is NaN for ever: there is a name too many."""
        change(yard(tmp_path), lambda label: np.where(label == 10, 11, label).astype(np.uint8), MASKS)
        finding = the_only(told(tmp_path, classes=NAMES, ignore_values=(11,)), "warning")
        assert finding.message == "1 of 11 classes occurs in no label: bicyclist"
        assert finding.fix == "leave it out of --classes, or add images that show it"
        assert serious(told(tmp_path, classes=NAMES.removesuffix(",bicyclist"), ignore_values=(11,))) == []


class TestColours:
    def smooth(self, label: np.ndarray) -> np.ndarray:
        """A mask in colours, three times as large, scaled as pictures are."""
        small = Image.fromarray(COLOURS[label])
        return np.asarray(small.resize((3 * small.width, 3 * small.height), Image.Resampling.BILINEAR))

    def test_smoothed_borders(self, tmp_path: Path) -> None:
        """A hundred classes are found where ten were drawn: the masks were scaled, or drawn with smooth borders."""
        change(yard(tmp_path), lambda image: image.repeat(3, 0).repeat(3, 1), "images/*/*.png")
        change(tmp_path, self.smooth, MASKS)
        classes = colour_table(tmp_path)
        finding = the_only(told(tmp_path, classes=classes), "error")
        between = sum(
            (~(self.smooth(scene(number)[1])[:, :, None] == COLOURS).all(axis=3).any(axis=2)).sum()
            for number in NUMBERS
        )
        assert finding.code == "soft-borders"
        count = int(finding.message.removeprefix("12 of 12 labels have smoothed borders, ").split()[0])
        # Where a colour between two makes an area, it is counted with the others.
        assert 0.98 * between < count <= between
        assert finding.fix == "give --snap-colours"
        findings = told(tmp_path, classes=classes, snap_colours=True)
        assert serious(findings) == []
        assert findings[0].message.startswith(f"12 of 12 labels have {between} pixels (")

    def test_smoothed_borders_while_classes_are_to_be_found(self, tmp_path: Path) -> None:
        change(yard(tmp_path), lambda image: image.repeat(3, 0).repeat(3, 1), "images/*/*.png")
        change(tmp_path, self.smooth, MASKS)
        for snap in (False, True):
            where = {"images": str(tmp_path / "images"), "labels": str(tmp_path / "labels")}
            folder = open_folder(FolderOptions(**where, snap_colours=snap))
            facts = looked_at(folder)
            found = find_classes(folder, facts).classes
            assert {entry.colour for entry in found.classes} <= set(map(tuple, COLOURS.tolist()))
            findings = examine(facts, folder.with_classes(found))
            if snap:
                assert not any(finding.severity == "error" for finding in findings)
                assert "snapped" in [finding.code for finding in findings]
            else:
                finding = the_only(findings, "error")
                assert (finding.code, finding.fix) == ("soft-borders", "give --snap-colours")

    def test_snapping_does_not_hide_a_colour_that_fills_areas(self, tmp_path: Path) -> None:
        change(yard(tmp_path), lambda image: image.repeat(3, 0).repeat(3, 1), "images/*/*.png")
        change(tmp_path, self.smooth, MASKS)
        lines = Path(colour_table(tmp_path)).read_text(encoding="utf-8").splitlines()
        (tmp_path / "short.csv").write_text("\n".join(line for line in lines if "car" not in line), encoding="utf-8")
        findings = told(tmp_path, classes=str(tmp_path / "short.csv"), snap_colours=True)
        finding = the_only(findings, "error")
        assert finding.code == "unknown-values"
        assert "#{:02x}{:02x}{:02x}".format(*CAMVID.palette[8]) in finding.message
        assert serious(told(tmp_path, classes=str(tmp_path / "classes.csv"), snap_colours=True)) == []

    @pytest.mark.parametrize("quality", [75, 95])
    def test_labels_saved_as_jpeg(self, tmp_path: Path, quality: int) -> None:
        """Values that nobody drew, at every border: compression made them."""
        change(yard(tmp_path), lambda image: image.repeat(3, 0).repeat(3, 1), "images/*/*.png")
        for path in sorted(tmp_path.glob(MASKS)):
            colours = COLOURS[np.asarray(Image.open(path))].repeat(3, 0).repeat(3, 1)
            path.unlink()
            save(path.with_suffix(".jpg"), colours, "JPEG", quality=quality)
        classes = colour_table(tmp_path)
        finding = the_only(told(tmp_path, classes=classes), "error")
        assert finding.code == "lossy-labels"
        assert finding.message.startswith("12 of 12 labels are JPEGs, which do not keep the values that were saved")
        assert finding.fix == "give --snap-colours, or save the labels as PNG from what the JPEGs were made of"
        assert serious(told(tmp_path, classes=classes, snap_colours=True)) == []

    def test_a_colour_that_no_class_has(self, tmp_path: Path) -> None:
        change(yard(tmp_path), lambda label: COLOURS[label], MASKS)
        classes = colour_table(tmp_path).replace("classes.csv", "short.csv")
        lines = (tmp_path / "classes.csv").read_text(encoding="utf-8").splitlines()
        Path(classes).write_text("\n".join(lines[:-1]), encoding="utf-8")
        finding = the_only(told(tmp_path, classes=classes), "error")
        assert "8 of 12 labels hold 1 value beyond the 11 classes (#000000)" in finding.message
        assert finding.fix == "name them in --classes, or give --ignore-colours '#000000' if they stand for no class"
        assert serious(told(tmp_path, classes=classes, ignore_colours=("#000000",))) == []
        assert serious(told(tmp_path, classes=str(tmp_path / "classes.csv"))) == []


class TestFolders:
    @pytest.mark.parametrize("swapped", [True, False])
    def test_photographs_for_labels(self, tmp_path: Path, swapped: bool) -> None:
        """The two folders changed places on the command line, or both are that of the images."""
        yard(tmp_path)
        images, labels = str(tmp_path / "images"), str(tmp_path / "labels")
        classes = colour_table(tmp_path)
        if not swapped:
            # A copy, as the same folder twice is a mistake of another kind.
            for path in sorted((tmp_path / "images").glob("*/*.png")):
                save(tmp_path / "copy" / path.parent.name / path.name, np.asarray(Image.open(path)))
        wrong = (
            {"images": labels, "labels": images} if swapped else {"images": images, "labels": str(tmp_path / "copy")}
        )
        finding = the_only(told(tmp_path, classes=classes, **wrong), "error")
        assert finding.code == ("swapped" if swapped else "photo-labels")
        assert finding.fix == ("swap --images and --labels" if swapped else "give --labels the folder of the masks")
        assert serious(told(tmp_path, classes=NAMES, ignore_values=(11,))) == []

    def test_phone_photos_whose_masks_were_drawn_on_the_stored_picture(self, tmp_path: Path) -> None:
        yard(tmp_path)
        exif = Image.Exif()
        exif[0x0112] = 8
        change(tmp_path, lambda image: image, "images/*/*.png", exif=exif)
        flags = {"classes": NAMES, "ignore_values": (11,)}
        finding = the_only(told(tmp_path, **flags), "error")
        assert (finding.code, finding.fix) == ("labels-not-upright", "give --exif ignore")
        assert serious(look(own(tmp_path, **flags), "/", exif=False)) == []
