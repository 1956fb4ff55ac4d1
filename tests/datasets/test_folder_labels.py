"""Anybody's own labels in all their forms: what goes in comes out pixel for pixel."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from broken import save
from folders import HEIGHT, WIDTH, label_of, looked_at, opened, photo, stripes
from PIL import Image
from pycocotools import mask as coco_mask

from deeplab_ray.datasets.folder.colours import Colours
from deeplab_ray.datasets.folder.shapes import LabelMe
from deeplab_ray.labels import IGNORE

RED, GREEN, BLACK, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 0), (255, 255, 255)


def one(root: Path, label: np.ndarray | Image.Image, ending: str = "png") -> Path:
    """An image with its label."""
    photo(root / "images/one.jpg")
    if isinstance(label, Image.Image):
        (root / "labels").mkdir(parents=True, exist_ok=True)
        label.save(root / f"labels/one.{ending}")
    else:
        save(root / f"labels/one.{ending}", label, ending.upper())
    return root


def decoded(root: Path, **options: Any) -> np.ndarray:
    return label_of(opened(root, val_share=0, **options).dataset, "one")


def write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


class TestNumbers:
    def test_grey(self, tmp_path: Path) -> None:
        one(tmp_path, stripes(7, 9, 255))
        classes = write(tmp_path, "c.csv", "name,value,ignore\na,9,\nb,7,\nvoid,255,yes\n")
        dataset = opened(tmp_path, val_share=0, classes=classes).dataset
        np.testing.assert_array_equal(label_of(dataset, "one"), stripes(1, 0, IGNORE))
        assert (dataset.table.values, dataset.table.ignore_value) == ((9, 7), 255)

    def test_black_and_white_by_its_values(self, tmp_path: Path) -> None:
        one(tmp_path, stripes(0, 255))
        np.testing.assert_array_equal(decoded(tmp_path, classes="no car=0,car=255"), stripes(0, 1))

    def test_one_bit(self, tmp_path: Path) -> None:
        one(tmp_path, Image.fromarray(stripes(0, 1) > 0))
        np.testing.assert_array_equal(decoded(tmp_path, classes="a,b"), stripes(0, 1))

    def test_ids_from_1_and_ignored_values(self, tmp_path: Path) -> None:
        one(tmp_path, stripes(1, 2, 0, 255))
        label = decoded(tmp_path, classes="a,b", label_offset=-1, ignore_values=(0, 255))
        np.testing.assert_array_equal(label, stripes(0, 1, IGNORE, IGNORE))

    def test_palette_pngs_are_numbers_unless_the_classes_are_its_colours(self, tmp_path: Path) -> None:
        picture = Image.fromarray(stripes(0, 1, 2))
        picture.putpalette([*BLACK, *GREEN, *RED])
        one(tmp_path, picture)
        np.testing.assert_array_equal(decoded(tmp_path, classes="a,b,c"), stripes(0, 1, 2))
        by_colour = write(tmp_path, "c.csv", "name,r,g,b\nbackground,0,0,0\nred,255,0,0\ngreen,0,255,0\n")
        np.testing.assert_array_equal(decoded(tmp_path, classes=by_colour), stripes(0, 2, 1))
        # Colours that are none of the palette's are for people to look at.
        for_show = write(tmp_path, "d.csv", "name,r,g,b\na,1,1,1\nb,2,2,2\nc,3,3,3\n")
        np.testing.assert_array_equal(decoded(tmp_path, classes=for_show), stripes(0, 1, 2))


class TestColours:
    CLASSES = "name,colour\nred,#ff0000\nblack,#000000\n"

    @pytest.mark.parametrize("ending", ["png", "bmp", "tiff"])
    def test_by_the_table(self, tmp_path: Path, ending: str) -> None:
        one(tmp_path, stripes(BLACK, RED, WHITE), ending)
        classes = write(tmp_path, "c.csv", self.CLASSES)
        dataset = opened(tmp_path, val_share=0, classes=classes, ignore_colours=("#ffffff",)).dataset
        np.testing.assert_array_equal(label_of(dataset, "one"), stripes(1, 0, IGNORE))
        assert dataset.palette == (RED, BLACK)
        assert (dataset.table.values, dataset.table.ignore_value) == ((0, 1), 255)

    def test_transparency_and_grey_files_among_them(self, tmp_path: Path) -> None:
        """A mask without a class is written in grey by some, and with alpha by others."""
        classes = write(tmp_path, "c.csv", self.CLASSES)
        alpha = np.dstack([stripes(BLACK, RED), np.full((HEIGHT, WIDTH), 9, np.uint8)])
        one(tmp_path, alpha)
        photo(tmp_path / "images/two.jpg")
        save(tmp_path / "labels/two.png", stripes(0, 0))
        photo(tmp_path / "images/three.jpg")
        save(tmp_path / "labels/three.png", stripes(RED, BLACK))
        dataset = opened(tmp_path, val_share=0, classes=classes).dataset
        np.testing.assert_array_equal(label_of(dataset, "one"), stripes(1, 0))
        np.testing.assert_array_equal(label_of(dataset, "two"), stripes(1, 1))

    def test_another_colour_is_named_and_counted(self) -> None:
        colours = Colours({RED: 0, BLACK: 1})
        data = png(stripes(BLACK, RED, GREEN))
        with pytest.raises(ValueError, match=r"label colour #00ff00 \(200 pixels\) is no class's$"):
            colours.decode(data, HEIGHT, WIDTH, None)
        look = colours.look(data, HEIGHT, WIDTH, None)
        assert look.counts == {BLACK: 200, RED: 200, GREEN: 200}
        assert (look.kind, look.height, look.width, look.distinct) == ("PNG of mode RGB", HEIGHT, WIDTH, 3)

    def test_smoothed_borders_snap_to_a_colour_around_them(self) -> None:
        """Between black and white lies grey, which is a class as well: no line of it must appear."""
        grey = (128, 128, 128)
        label = np.kron(np.array([[0, 1, 0], [1, 1, 2], [0, 2, 2]]), np.ones((40, 40), int))
        large = Image.fromarray(np.array([BLACK, WHITE, grey], np.uint8)[label])
        smooth = np.asarray(
            large.resize((360, 360), Image.Resampling.BILINEAR).resize((120, 120), Image.Resampling.BOX)
        )
        assert len(np.unique(smooth.reshape(-1, 3), axis=0)) > 5
        found = Colours({BLACK: 0, WHITE: 1, grey: 2}, snap=True).decode(png(smooth), 120, 120, None)
        wrong = found != label
        assert wrong.mean() < 0.02
        assert not (found[:40, :80] == 2).any()

    def test_jpeg_labels_snap(self) -> None:
        colours = {BLACK: 0, RED: 1, (0, 0, 255): 2, (255, 255, 0): 3}
        label = np.kron(np.array([[0, 1], [2, 3]]), np.ones((64, 64), int))
        file = io.BytesIO()
        Image.fromarray(np.array(list(colours), np.uint8)[label]).save(file, "JPEG", quality=75)
        with pytest.raises(ValueError, match="is no class's, nor are"):
            Colours(colours).decode(file.getvalue(), 128, 128, None)
        assert (Colours(colours, snap=True).decode(file.getvalue(), 128, 128, None) != label).mean() < 0.001

    def test_a_class_that_was_not_named_does_not_snap_away(self) -> None:
        with pytest.raises(ValueError, match=r"#00ff00 \(\d+ pixels\) is no class's, which fills areas"):
            Colours({RED: 0, BLACK: 1}, snap=True).decode(png(stripes(BLACK, RED, GREEN)), HEIGHT, WIDTH, None)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def labelme(*shapes: tuple[str, str, list[list[float]]], **more: Any) -> bytes:
    listed = [{"label": label, "shape_type": kind, "points": points, **more} for label, kind, points in shapes]
    return json.dumps({"version": "5.4.1", "shapes": listed, "imageHeight": HEIGHT, "imageWidth": WIDTH}).encode()


def inside(points: list[list[float]]) -> np.ndarray:
    """bool 20×30: whether a pixel's centre lies within a polygon, by the number of its edges on the right."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    odd = np.zeros((HEIGHT, WIDTH), bool)
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
        if y0 != y1:
            odd ^= ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return odd


def near_edges(points: list[list[float]], distance: float) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    near = np.zeros((HEIGHT, WIDTH), bool)
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
        for t in np.linspace(0, 1, 200):
            near |= np.hypot(x - x0 - t * (x1 - x0), y - y0 - t * (y1 - y0)) <= distance
    return near


class TestLabelMe:
    CAT = LabelMe({"background": 0, "cat": 1, "dog": 2})

    def drawn(self, *shapes: tuple[str, str, list[list[float]]], **more: Any) -> np.ndarray:
        return self.CAT.decode(labelme(*shapes, **more), HEIGHT, WIDTH, None)

    def test_polygons(self) -> None:
        points = [[2.5, 1.2], [27.3, 4.8], [20.1, 18.4], [14.0, 8.0], [5.6, 16.9]]
        found, border = self.drawn(("cat", "polygon", points)) == 1, near_edges(points, 1)
        np.testing.assert_array_equal(found[~border], inside(points)[~border])
        assert (~border).mean() > 0.7

    def test_rectangles_by_any_two_corners(self) -> None:
        expected = np.zeros((HEIGHT, WIDTH), np.uint8)
        expected[4:11, 3:21] = 1
        for points in ([[3, 4], [20, 10]], [[20, 4], [3, 10]], [[20, 10], [3, 4]]):
            np.testing.assert_array_equal(self.drawn(("cat", "rectangle", points)), expected)

    def test_circles_lines_and_points(self) -> None:
        y, x = np.mgrid[:HEIGHT, :WIDTH]
        distance = np.hypot(x - 15, y - 10)
        circle = self.drawn(("cat", "circle", [[15, 10], [15, 17]])) == 1
        assert circle[distance <= 6.5].all()
        assert not circle[distance > 7.8].any()
        point = self.drawn(("cat", "point", [[15, 10]])) == 1
        assert point[distance <= 4.5].all()
        assert not point[distance > 5.8].any()
        line = self.drawn(("cat", "line", [[0, 10], [29, 10]])) == 1
        assert 9 <= line.sum(axis=0).min() <= line.sum(axis=0).max() <= 11
        assert self.drawn(("cat", "linestrip", [[0, 5], [15, 5], [15, 19]])).any()

    def test_masks(self) -> None:
        mask = np.random.default_rng(0).random((5, 8)) > 0.5
        file = io.BytesIO()
        Image.fromarray(mask).save(file, "PNG")
        text = base64.b64encode(file.getvalue()).decode()
        expected = np.zeros((HEIGHT, WIDTH), np.uint8)
        expected[6:11, 3:11] = mask
        found = self.drawn(("cat", "mask", [[3, 6], [10, 10]]), mask=text)
        np.testing.assert_array_equal(found, expected)

    def test_later_shapes_lie_over_earlier_ones_whatever_their_class(self) -> None:
        large, small = [[0, 0], [29, 19]], [[5, 5], [9, 9]]
        over = self.drawn(("cat", "rectangle", large), ("dog", "rectangle", small), ("cat", "rectangle", [[6, 6]] * 2))
        assert np.bincount(over.ravel()).tolist() == [0, 600 - 24, 24]
        assert (self.drawn(("dog", "rectangle", small), ("cat", "rectangle", large)) == 1).all()

    def test_what_lies_outside_is_background_or_ignored(self) -> None:
        data = labelme(("cat", "rectangle", [[0, 0], [9, 19]]))
        assert np.unique(LabelMe({"cat": 0}).decode(data, 1, 1, None)).tolist() == [0, IGNORE]
        assert np.unique(LabelMe({"_background_": 0, "cat": 1}).decode(data, 1, 1, None)).tolist() == [0, 1]

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (labelme(("bird", "rectangle", [[0, 0], [9, 9]])), r"'bird' \(100 pixels\) is not among the classes"),
            (labelme(("cat", "polygon", [[0, 0], [9, 9]])), r"a shape 'polygon' of 2 points \('cat'\)"),
            (labelme(("cat", "spline", [[0, 0], [9, 9]])), r"a shape 'spline'"),
            (labelme(("cat", "mask", [[0, 0], [9, 9]])), r"a mask that is no picture"),
            (b"{", r"label is no JSON"),
            (b'{"images": []}', r"looks like COCO's, give --labels FILE"),
            (b'{"shapes": [{"points": []}]}', r"a shape without a label or points"),
        ],
    )
    def test_what_cannot_be_drawn(self, data: bytes, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            self.CAT.decode(data, HEIGHT, WIDTH, None)

    def test_files_beside_their_images(self, tmp_path: Path) -> None:
        photo(tmp_path / "one.jpg")
        (tmp_path / "one.json").write_bytes(labelme(("cat", "rectangle", [[0, 0], [14, 19]])))
        here = {"images": str(tmp_path), "labels": str(tmp_path)}
        np.testing.assert_array_equal(decoded(tmp_path, classes="cat,background", **here), stripes(0, 1))
        facts = looked_at(opened(tmp_path, classes="cat,background", val_share=0, **here))["train"]
        assert facts.bad == []
        assert facts.pixels == {"cat": 300, "background": 300}


class TestCoco:
    POLYGONS = ([[2.2, 3.1, 20.7, 4.4, 12.5, 17.3]], [[1, 1, 6, 1, 6, 6, 1, 6], [20, 10, 28, 10, 28, 18, 20, 18]])

    def test_masks_equal_those_of_pycocotools(self, tmp_path: Path) -> None:
        run_lengths = np.asfortranarray(np.random.default_rng(0).random((HEIGHT, WIDTH)) > 0.8, np.uint8)
        packed = coco_mask.encode(run_lengths)
        counts = [len(run) for run in _runs(run_lengths)]
        segmentations: list[Any] = [
            *self.POLYGONS,
            {"size": [HEIGHT, WIDTH], "counts": counts},
            {"size": [HEIGHT, WIDTH], "counts": packed["counts"].decode()},
        ]
        for segmentation in segmentations:
            found = self.decoded(tmp_path, [(5, segmentation)])
            np.testing.assert_array_equal(found, self.reference(segmentation))
        assert (self.decoded(tmp_path, [(5, segmentations[2])]) == run_lengths).all()

    def test_later_ones_lie_over_earlier_ones(self, tmp_path: Path) -> None:
        first, second = self.POLYGONS
        expected = np.where(self.reference(second) > 0, 2, self.reference(first))
        np.testing.assert_array_equal(self.decoded(tmp_path, [(5, first), (9, second)]), expected)

    def decoded(self, root: Path, annotations: list[tuple[int, Any]]) -> np.ndarray:
        photo(root / "images/one.jpg")
        fields = {
            "images": [{"id": 3, "file_name": "one.jpg", "height": HEIGHT, "width": WIDTH}],
            "annotations": [{"image_id": 3, "category_id": id, "segmentation": shape} for id, shape in annotations],
            "categories": [{"id": 5, "name": "cat"}, {"id": 9, "name": "dog"}],
        }
        labels = write(root, "instances.json", json.dumps(fields))
        return decoded(root, labels=labels, classes="background,cat,dog")

    @staticmethod
    def reference(segmentation: Any) -> np.ndarray:
        """As `COCO.annToMask` makes it, through a file."""
        from pycocotools.coco import COCO

        coco = COCO()
        coco.imgs = {0: {"height": HEIGHT, "width": WIDTH}}
        return coco.annToMask({"image_id": 0, "segmentation": segmentation})

    def test_broken_segmentations_are_told(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"a segmentation cannot be drawn: run lengths for \[2, 2\] pixels"):
            self.decoded(tmp_path, [(5, {"size": [2, 2], "counts": [4]})])


def _runs(mask: np.ndarray) -> list[list[int]]:
    """Runs of equal pixels, column by column, beginning with zeros."""
    runs: list[list[int]] = [[]]
    value = 0
    for pixel in mask.ravel(order="F"):
        if pixel != value:
            runs.append([])
            value = pixel
        runs[-1].append(pixel)
    return runs
