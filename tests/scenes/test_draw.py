"""The generated street scenes: what a seed promises, what is in a picture, and where the files lie."""

import io
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplab_ray.errors import UserError
from deeplab_ray.scenes.draw import CLASS_IDS, draw, render
from deeplab_ray.storage.location import locate

IGNORED = {1, 4}
HEIGHT, WIDTH = 192, 384


@pytest.fixture(scope="module")
def scenes() -> list[tuple[np.ndarray, np.ndarray]]:
    return [render(3, index, HEIGHT, WIDTH) for index in range(30)]


def test_same_arguments_give_the_same_arrays_in_another_process() -> None:
    image, labels = render(5, 17, 96, 160)
    script = (
        "import sys, zlib; from deeplab_ray.scenes.draw import render;"
        "print([zlib.crc32(part.tobytes()) for part in render(5, 17, 96, 160)])"
    )
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert other.strip() == str([zlib.crc32(part.tobytes()) for part in (image, labels)])


def test_seed_and_index_change_the_scene() -> None:
    first = render(0, 0, 64, 128)[1]
    assert not np.array_equal(first, render(0, 1, 64, 128)[1])
    assert not np.array_equal(first, render(1, 0, 64, 128)[1])


def test_labels_hold_all_twelve_classes_and_nothing_foreign(scenes: list[tuple[np.ndarray, np.ndarray]]) -> None:
    found = {int(value) for _, labels in scenes[:20] for value in np.unique(labels)}
    assert set(CLASS_IDS.values()) <= found <= set(CLASS_IDS.values()) | IGNORED


def test_every_class_has_a_fair_share_of_the_pixels(scenes: list[tuple[np.ndarray, np.ndarray]]) -> None:
    counts = sum(np.bincount(labels.ravel(), minlength=256) for _, labels in scenes)
    share = {name: counts[value] / np.sum(counts) for name, value in CLASS_IDS.items()}
    least = dict.fromkeys(CLASS_IDS, 0.008) | {"traffic sign": 0.004, "person": 0.01, "road": 0.15, "sky": 0.03}
    assert {name: share[name] for name in CLASS_IDS if not least[name] <= share[name] <= 0.45} == {}
    assert sum(counts[value] for value in IGNORED) / np.sum(counts) < 0.06


def test_things_stand_where_a_street_has_them(scenes: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """The sky is above, the road below, and the road is wider near than far."""
    labels = np.stack([labels for _, labels in scenes])
    assert np.isin(labels[:, 120:], CLASS_IDS["sky"]).mean() == 0
    assert np.isin(labels[:, :60], CLASS_IDS["road"]).mean() == 0
    road = labels == CLASS_IDS["road"]
    assert road[:, 170].mean() > 1.5 * road[:, 100].mean()


def test_poles_are_thin_and_never_vanish(scenes: list[tuple[np.ndarray, np.ndarray]]) -> None:
    widths: list[int] = []
    for _, labels in scenes:
        for row in (labels == CLASS_IDS["pole"])[40:160:8]:
            edges = np.flatnonzero(np.diff(np.pad(row.astype(np.int8), 1)))
            widths += list(edges[1::2] - edges[::2])
    assert 1 <= np.median(widths) <= 5
    assert np.quantile(widths, 0.9) <= 12


def test_objects_range_from_a_few_pixels_to_a_large_part_of_the_picture() -> None:
    shares = np.array([np.mean(render(3, k, 64, 128)[1] == CLASS_IDS["truck"]) for k in range(80)])
    assert shares.max() > 0.25
    assert np.any((shares > 0) & (shares < 0.005))


def test_sensor_noise_and_texture_are_there_and_moderate(scenes: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Neighbouring pixels of one class differ a little, and less than the picture as a whole."""
    for image, labels in scenes[:10]:
        grey = image.astype(np.float32).mean(axis=2)
        same = labels[:, 1:] == labels[:, :-1]
        step = np.median(np.abs(np.diff(grey, axis=1))[same])
        assert 0.5 < step < 12
        assert grey.std() > 20


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 129), (128, 256), (321, 241), (1024, 2048)])
def test_any_size_up_to_cityscapes(height: int, width: int) -> None:
    image, labels = render(0, 4, height, width)
    assert (image.shape, image.dtype) == ((height, width, 3), np.uint8)
    assert (labels.shape, labels.dtype) == ((height, width), np.uint8)
    assert len(np.unique(labels)) >= 4


@pytest.mark.parametrize(("height", "width"), [(16, 384), (1025, 2048), (1024, 2049)])
def test_impossible_size_says_what_is_possible(height: int, width: int) -> None:
    with pytest.raises(UserError, match=r"32\.\.1024"):
        render(0, 0, height, width)


def test_files_lie_as_in_cityscapes_and_splits_share_no_scene(tmp_path: Path) -> None:
    draw(locate(tmp_path), {"train": 3, "val": 2}, 48, 96, seed=1)
    output = locate(tmp_path)
    names = output.files(recursive=True)
    images = [name for name in names if name.startswith("leftImg8bit/")]
    assert len(images) == 5
    assert len(names) == 10
    seen = set()
    for name in images:
        _, split, city, file = name.split("/")
        partner = file.replace("_leftImg8bit", "_gtFine_labelIds")
        image = np.asarray(Image.open(io.BytesIO((output / name).read_bytes())))
        labels = Image.open(io.BytesIO((output / f"gtFine/{split}/{city}/{partner}").read_bytes()))
        assert file.startswith(f"{city}_")
        assert image.shape == (48, 96, 3)
        assert (labels.mode, labels.size) == ("L", (96, 48))
        seen.add(image.tobytes())
    assert len(seen) == 5


def test_a_scene_does_not_depend_on_how_many_are_drawn(tmp_path: Path) -> None:
    few, many = locate(tmp_path / "few"), locate(tmp_path / "many")
    draw(few, {"val": 1}, 32, 64, seed=1)
    draw(many, {"train": 2, "val": 2}, 32, 64, seed=1)
    for name in few.files(recursive=True):
        assert (few / name).read_bytes() == (many / name).read_bytes()


def test_unknown_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="train, val, test"):
        draw(locate(tmp_path), {"validation": 1}, 32, 64, seed=1)
