"""Decoding and encoding of images and labels, the same for every dataset."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from tiny import png

from deeplab_ray import datasets
from deeplab_ray.datasets import IGNORE, decode_image
from deeplab_ray.errors import UserError


@pytest.mark.parametrize("name", datasets.names())
def test_labels_survive_the_way_to_a_file_and_back(name: str) -> None:
    dataset = datasets.get(name)
    train_ids = np.array([[*range(len(dataset.classes)), IGNORE]], np.uint8)
    np.testing.assert_array_equal(dataset.decode_label(dataset.encode_label(train_ids)), train_ids)


@pytest.mark.parametrize("name", datasets.names())
def test_every_class_has_a_name_and_a_colour_of_its_own(name: str) -> None:
    dataset = datasets.get(name)
    assert len(set(dataset.classes)) == len(dataset.classes) == len(set(dataset.palette))
    assert set(dataset.label_values.values()) == {*range(len(dataset.classes)), IGNORE}
    colours = dataset.colourise(np.array([[0, IGNORE]], np.uint8))
    np.testing.assert_array_equal(colours, [[dataset.palette[0], (0, 0, 0)]])


def test_an_unknown_dataset_is_refused_with_the_names_of_all() -> None:
    with pytest.raises(UserError, match=r"unknown dataset 'ade20k'.*camvid, cityscapes, scenes, voc12"):
        datasets.get("ade20k")


def test_a_label_value_outside_the_table_is_named_and_counted() -> None:
    label = np.zeros((4, 4), np.uint8)
    label[0, :3] = 77
    with pytest.raises(ValueError, match=r"label value 77 \(3 pixels\) is not in camvid's table"):
        datasets.get("camvid").decode_label(png(label))


def test_a_label_must_be_a_single_channel_png() -> None:
    camvid = datasets.get("camvid")
    with pytest.raises(ValueError, match="mode RGB"):
        camvid.decode_label(png(np.zeros((4, 4, 3), np.uint8)))
    with pytest.raises(ValueError, match="mode I;16"):
        camvid.decode_label(png(np.zeros((4, 4), np.uint16)))
    jpeg = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(jpeg, "JPEG")
    with pytest.raises(ValueError, match="JPEG"):
        camvid.decode_label(jpeg.getvalue())


def packed(values: list[int], bits: int) -> bytes:
    """A row of grey values as a PNG of so many bits a pixel, which optimisers of PNGs write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = "".join(f"{value:0{bits}b}" for value in values)
    row += "0" * (-len(row) % 8)
    header = struct.pack(">IIBBBBB", len(values), 1, bits, 0, 0, 0, 0)
    pixels = zlib.compress(bytes([0, *(int(row[i : i + 8], 2) for i in range(0, len(row), 8))]))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_label_values_are_those_of_the_file_however_many_bits_they_take(bits: int) -> None:
    values = [0, 1, 3, 2]
    np.testing.assert_array_equal(datasets.get("camvid").decode_label(packed(values, bits)), [values])


def test_a_train_id_that_is_no_class_is_not_encoded() -> None:
    with pytest.raises(ValueError, match="train id 11 is no class of camvid"):
        datasets.get("camvid").encode_label(np.full((2, 2), 11, np.uint8))


def test_images_of_any_usual_mode_become_rgb() -> None:
    grey = np.full((3, 5), 100, np.uint8)
    np.testing.assert_array_equal(decode_image(png(grey)), np.full((3, 5, 3), 100))
    rgba = np.dstack([grey, grey + 1, grey + 2, np.full_like(grey, 255)])
    np.testing.assert_array_equal(decode_image(png(rgba)), rgba[..., :3])


@pytest.mark.parametrize("kept", [0, 10, 60, 0.5, -20, -1])
def test_a_truncated_image_is_unreadable(kept: float) -> None:
    whole = png(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    part = whole[: int(kept * len(whole)) if 0 < kept < 1 else int(kept)]
    with pytest.raises(ValueError, match=r"not an image|unreadable"):
        decode_image(part)


def test_a_16_bit_image_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 8 bits"):
        decode_image(png(np.zeros((4, 4), np.uint16)))
