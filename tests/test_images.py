"""Images and labels from and to their files' bytes."""

import io

import numpy as np
import pytest
from PIL import Image
from tiny import png

from deeplab_ray.images import decode_image, decode_label, encode_label


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


def test_a_label_survives_the_way_to_its_file_and_back() -> None:
    label = np.random.default_rng(0).integers(0, 256, (31, 17), np.uint8)
    np.testing.assert_array_equal(decode_label(encode_label(label)), label)


def test_a_label_must_be_a_whole_8_bit_single_channel_png() -> None:
    label = np.random.default_rng(0).integers(0, 12, (31, 17), np.uint8)
    palette = io.BytesIO()
    Image.fromarray(label).convert("P").save(palette, "PNG")
    jpeg = io.BytesIO()
    Image.fromarray(label).save(jpeg, "JPEG")
    for data, reason in (
        (palette.getvalue(), "mode P, not an 8-bit single-channel PNG"),
        (png(np.zeros((4, 4, 3), np.uint8)), "mode RGB"),
        (jpeg.getvalue(), "JPEG"),
        (encode_label(label)[:-30], "unreadable"),
        (b"<html>", "not an image"),
    ):
        with pytest.raises(ValueError, match=reason):
            decode_label(data)
