"""Reading of label files, the same for every dataset."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from tiny import png

from deeplab_ray import datasets
from deeplab_ray.datasets import Dataset
from deeplab_ray.errors import UserError
from deeplab_ray.images import decode_label, encode_label
from deeplab_ray.labels import IGNORE

READS_PNGS = {"ade20k", "camvid", "cityscapes", "cityscapes_coarse", "scenes", "voc11", "voc12"}


@pytest.mark.parametrize("name", datasets.names())
def test_labels_survive_the_way_to_a_file_and_back(name: str) -> None:
    dataset = datasets.get(name)
    train_ids = np.array([[*range(len(dataset.classes)), IGNORE]], np.uint8)
    if name in READS_PNGS:
        written = encode_label(dataset.table.to_values(train_ids))
        np.testing.assert_array_equal(dataset.labels.decode(written, 4, 4, None), train_ids)
    np.testing.assert_array_equal(decode_label(encode_label(train_ids)), train_ids)


@pytest.mark.parametrize("name", datasets.names())
def test_every_class_has_a_name_and_a_colour_of_its_own(name: str) -> None:
    dataset = datasets.get(name)
    # In ADE20K's colours road and skyscraper are alike.
    twice = 1 if name == "ade20k" else 0
    assert (
        len(set(dataset.classes)) == len(dataset.classes) == len(dataset.palette) == len(set(dataset.palette)) + twice
    )
    assert set(dataset.label_values.values()) == {*range(len(dataset.classes)), IGNORE}
    colours = dataset.table.colourise(np.array([[0, IGNORE]], np.uint8))
    np.testing.assert_array_equal(colours, [[dataset.palette[0], (0, 0, 0)]])
    assert (dataset.table.names, dataset.table.colours) == (dataset.classes, dataset.palette)


def test_what_is_written_is_the_first_of_several_values_and_ignore_gets_one_that_is_free() -> None:
    def table(values: dict[int, int]) -> tuple[tuple[int, ...], int]:
        colours = ((0, 0, 0), (255, 255, 255))
        dataset = Dataset("two", "", ("a", "b"), colours, (), values, lambda source, split: [])
        return dataset.table.values, dataset.table.ignore_value

    assert table({7: 0, 6: 0, 9: 1, 4: IGNORE, 5: IGNORE}) == ((7, 9), 4)
    assert table({0: 0, 1: 1}) == ((0, 1), 255)
    assert table({0: 0, 255: 1}) == ((0, 255), 254)


def test_an_unknown_dataset_is_refused_with_the_names_of_all() -> None:
    with pytest.raises(UserError, match=r"unknown dataset 'mapillary'.*ade20k, camvid, .*, scenes, voc11, voc12"):
        datasets.get("mapillary")


def test_a_label_value_outside_the_table_is_named_and_counted() -> None:
    label = np.zeros((4, 4), np.uint8)
    label[0, :3] = 77
    with pytest.raises(ValueError, match=r"label value 77 \(3 pixels\) is not in camvid's table"):
        datasets.get("camvid").labels.decode(png(label), 4, 4, None)


def test_a_label_must_be_a_single_channel_png() -> None:
    scenes = datasets.get("scenes").labels
    with pytest.raises(ValueError, match="mode RGB"):
        scenes.decode(png(np.zeros((4, 4, 3), np.uint8)), 4, 4, None)
    with pytest.raises(ValueError, match="mode I;16"):
        scenes.decode(png(np.zeros((4, 4), np.uint16)), 4, 4, None)
    jpeg = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(jpeg, "JPEG")
    with pytest.raises(ValueError, match="JPEG"):
        scenes.decode(jpeg.getvalue(), 4, 4, None)


def packed(values: list[int], bits: int) -> bytes:
    """A row of grey values as a PNG of so many bits a pixel, which optimisers of PNGs write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = "".join(f"{value:0{bits}b}" for value in values)
    row += "0" * (-len(row) % 8)
    header = struct.pack(">IIBBBBB", len(values), 1, bits, 0, 0, 0, 0)
    pixels = zlib.compress(bytes([0, *(int(row[i : i + 8], 2) for i in range(0, len(row), 8))]))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_label_values_are_those_of_the_file_however_many_bits_they_take(bits: int) -> None:
    values = [0, 1, 3, 2] if bits > 1 else [0, 1, 1, 0]
    np.testing.assert_array_equal(datasets.get("camvid").labels.decode(packed(values, bits), 4, 4, None), [values])
