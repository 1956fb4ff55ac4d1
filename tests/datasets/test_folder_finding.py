"""Classes that are found by looking."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from broken import save
from folders import label_of, looked_at, opened, photo, stripes
from PIL import Image

from deeplab_ray.datasets.doctor import examine
from deeplab_ray.datasets.folder import Folder, Found, find_classes, read_classes
from deeplab_ray.errors import UserError
from deeplab_ray.labels import IGNORE


def fill(root: Path, *labels: np.ndarray) -> Path:
    for number, label in enumerate(labels):
        photo(root / f"images/{number}.jpg", number)
        save(root / f"labels/{number}.png", label)
    return root


def find(root: Path, **options: Any) -> tuple[Folder, Found]:
    folder = opened(root, val_share=0, **options)
    return folder, find_classes(folder, looked_at(folder))


def names(found: Found) -> list[str]:
    return [entry.name for entry in found.classes.classes]


def test_numbers_in_their_order_and_255_ignored(tmp_path: Path) -> None:
    folder, found = find(fill(tmp_path, stripes(7, 0, 255), stripes(0, 7, 3)))
    assert names(found) == ["class 0", "class 3", "class 7"]
    assert found.table == (
        "class                  in labels  pixels  images\n"
        "class 0                0          33.3 %       2\n"
        "class 3                3          16.7 %       1\n"
        "class 7                7          33.3 %       2\n"
        "ignored 255 (ignored)  255        16.7 %       1"
    )
    dataset = folder.with_classes(found.classes)
    np.testing.assert_array_equal(label_of(dataset, "0"), stripes(2, 0, IGNORE))
    assert dataset.table.values == (0, 3, 7)


def test_a_mask_in_black_and_white_has_two_classes(tmp_path: Path) -> None:
    folder, found = find(fill(tmp_path, stripes(0, 255)))
    assert names(found) == ["class 0", "class 255"]
    dataset = folder.with_classes(found.classes)
    np.testing.assert_array_equal(label_of(dataset, "0"), stripes(0, 1))
    assert [finding.severity for finding in examine(looked_at(folder, dataset), dataset)] == ["note"]


def test_with_an_offset_and_ignored_values(tmp_path: Path) -> None:
    folder, found = find(fill(tmp_path, stripes(1, 2, 0, 255)), label_offset=-1, ignore_values=(0,))
    assert names(found) == ["class 0", "class 1"]
    label = label_of(folder.with_classes(found.classes), "0")
    np.testing.assert_array_equal(label, stripes(0, 1, IGNORE, IGNORE))


def test_the_colours_of_a_palette(tmp_path: Path) -> None:
    fill(tmp_path, stripes(0, 1))
    picture = Image.fromarray(stripes(0, 1, 2))
    picture.putpalette([9, 9, 9, 0, 255, 0, 255, 0, 0])
    picture.save(tmp_path / "labels/0.png")
    assert find(tmp_path)[1].classes.palette == ((9, 9, 9), (0, 255, 0), (255, 0, 0))


def test_colours_by_frequency(tmp_path: Path) -> None:
    black, red, green = (0, 0, 0), (255, 0, 0), (0, 255, 0)
    labels = stripes(red, black, red), stripes(green, black, red)
    folder, found = find(fill(tmp_path, *labels))
    assert [entry.colour for entry in found.classes.classes] == [red, black, green]
    assert "class 2  #00ff00    16.7 %       1" in found.table
    np.testing.assert_array_equal(label_of(folder.with_classes(found.classes), "1"), stripes(2, 1, 0))
    folder, found = find(tmp_path, ignore_colours=("#000000",))
    assert [entry.colour for entry in found.classes.classes] == [red, green]
    np.testing.assert_array_equal(label_of(folder.with_classes(found.classes), "1"), stripes(1, IGNORE, 0))


@pytest.mark.parametrize("kind", ["smoothed", "jpeg"])
def test_what_smoothing_and_compression_add_is_no_class(tmp_path: Path, kind: str) -> None:
    colours = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0), (64, 0, 128)], np.uint8)
    random = np.random.default_rng(0)
    labels = [np.kron(random.permutation(16).reshape(4, 4) % 4, np.ones((48, 48), int)) for _ in range(4)]
    for number, label in enumerate(labels):
        photo(tmp_path / f"images/{number}.png", number, 192, 192)
        large = Image.fromarray(colours[label])
        if kind == "jpeg":
            (tmp_path / "labels").mkdir(exist_ok=True)
            large.save(tmp_path / f"labels/{number}.jpg", quality=90)
        else:
            smooth = large.resize((384, 384), Image.Resampling.BILINEAR).resize((192, 192), Image.Resampling.BOX)
            save(tmp_path / f"labels/{number}.png", np.asarray(smooth))
    folder = opened(tmp_path, val_share=0, snap_colours=True)
    facts = looked_at(folder)
    found = find_classes(folder, facts)
    assert {finding.severity for finding in examine(facts, folder.with_classes(found.classes))} == {"note"}
    taken = np.array([entry.colour for entry in found.classes.classes])
    assert len(taken) == 4
    # JPEG moves a colour by a little, and what is most frequent is taken.
    distances = np.abs(taken[:, None].astype(int) - colours).max(axis=2)
    assert distances.min(axis=0).max() <= (4 if kind == "jpeg" else 0)
    assert "are taken for no classes" in found.notes[0]
    assert "--snap-colours" in find(tmp_path)[1].notes[0]
    dataset = folder.with_classes(found.classes)
    order = distances.argmin(axis=0)
    for number, label in enumerate(labels):
        prepared = dataset.labels.decode(next((tmp_path / "labels").glob(f"{number}.*")).read_bytes(), 192, 192, None)
        assert (prepared != order[label]).mean() < 0.02


def test_names_behind_the_background(tmp_path: Path) -> None:
    photo(tmp_path / "images/0.jpg")
    (tmp_path / "labels").mkdir()
    shapes = [
        {"label": label, "shape_type": "rectangle", "points": [[left, 0], [left + 4, 19]]}
        for label, left in (("dog", 0), ("cat", 5), ("__ignore__", 10))
    ]
    (tmp_path / "labels/0.json").write_text(json.dumps({"shapes": shapes}), encoding="utf-8")
    folder, found = find(tmp_path)
    assert names(found) == ["background", "cat", "dog"]
    label = label_of(folder.with_classes(found.classes), "0")
    np.testing.assert_array_equal(label, stripes(2, 1, IGNORE, 0, 0, 0))


def test_found_classes_given_back_as_a_file_are_the_same(tmp_path: Path) -> None:
    for number, labels in enumerate((stripes(3, 9, 255), stripes((1, 2, 3), (90, 9, 9)))):
        root = fill(tmp_path / str(number), labels)
        folder, found = find(root)
        (root / "classes.json").write_text(found.classes.to_json(), encoding="utf-8")
        assert read_classes(str(root / "classes.json")) == found.classes
        given = opened(root, val_share=0, classes=str(root / "classes.json")).dataset
        assert given.table == folder.with_classes(found.classes).table
        np.testing.assert_array_equal(label_of(given, "0"), label_of(folder.with_classes(found.classes), "0"))


def test_images_and_labels_that_are_swapped_are_told_when_no_class_is_found(tmp_path: Path) -> None:
    for number in range(4):
        save(tmp_path / f"images/{number}.png", np.kron(stripes(0, 1, 2), np.ones((4, 4), np.uint8)))
        photo(tmp_path / f"labels/{number}.png", number, 80, 120)
    with pytest.raises(UserError, match=r"no label can be used: images and labels are swapped.*→ swap --images and"):
        find(tmp_path)


def test_too_many_colours_to_be_classes(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (20, 30, 3), np.uint8)
    photo(tmp_path / "images/0.png", 0, 80, 120)
    save(tmp_path / "labels/0.png", small.repeat(4, 0).repeat(4, 1))
    with pytest.raises(UserError, match=r"different values are in the labels, too many to be classes: give --classes"):
        find(tmp_path)


def test_black_and_white_in_rgb_are_colours(tmp_path: Path) -> None:
    folder, found = find(fill(tmp_path, stripes((0, 0, 0), (255, 255, 255)), stripes((0, 0, 0), (0, 0, 0))))
    assert [entry.colour for entry in found.classes.classes] == [(0, 0, 0), (255, 255, 255)]
    np.testing.assert_array_equal(label_of(folder.with_classes(found.classes), "0"), stripes(0, 1))


def test_numbers_in_three_equal_channels_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"with three equal channels.* → save one of their three channels"):
        find(fill(tmp_path, stripes((0, 0, 0), (1, 1, 1), (2, 2, 2))))


def test_coloured_labels_need_classes_with_colours(tmp_path: Path) -> None:
    fill(tmp_path, stripes((0, 0, 0), (255, 0, 0)))
    with pytest.raises(UserError, match=r"hold colours.*: give a file with columns name,colour, or leave --classes"):
        opened(tmp_path, val_share=0, classes="a,b")
    with pytest.raises(UserError, match=r"--label-offset is about numbers, and the labels hold colours"):
        opened(tmp_path, val_share=0, label_offset=-1)
