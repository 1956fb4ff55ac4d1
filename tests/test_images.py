"""Images and labels from and to their files' bytes: rightly decoded, or refused with the reason."""

import resource
import struct
import warnings
import zlib
from typing import Any, ClassVar

import numpy as np
import pytest
from image_files import WORDS, file, grey, png16, raw_png, smooth, tiff
from PIL import Image
from tiny import png

from deeplab_ray.images import MAX_PIXELS, decode_image, decode_label, decode_upright, encode_label


class TestKinds:
    def test_images_of_any_usual_mode_become_rgb(self) -> None:
        values = np.full((3, 5), 100, np.uint8)
        np.testing.assert_array_equal(decode_image(png(values)), np.full((3, 5, 3), 100))
        rgba = np.dstack([values, values + 1, values + 2, np.full_like(values, 7)])
        np.testing.assert_array_equal(decode_image(png(rgba)), rgba[..., :3])
        np.testing.assert_array_equal(decode_image(png(rgba[..., 2:])), grey(values + 2))
        black_and_white = Image.fromarray(np.eye(3, 5, dtype=bool))
        np.testing.assert_array_equal(decode_image(file(black_and_white, "PNG")), grey(np.eye(3, 5) * 255))

    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            ("PNG", {}),
            ("WEBP", {"lossless": True}),
            ("TIFF", {}),
            ("TIFF", {"compression": "tiff_lzw"}),
            ("BMP", {}),
            ("PPM", {}),
            ("JPEG2000", {"irreversible": False}),
        ],
    )
    def test_each_format_without_loss_gives_the_pixels(self, kind: str, options: dict[str, Any]) -> None:
        pixels = smooth(20, 31)
        decoded = decode_image(file(pixels, kind, **options))
        assert decoded.dtype == np.uint8
        np.testing.assert_array_equal(decoded, pixels)

    @pytest.mark.parametrize("options", [{}, {"progressive": True}])
    def test_jpeg(self, options: dict[str, Any]) -> None:
        pixels = smooth(20, 31)
        decoded = decode_image(file(pixels, "JPEG", quality=100, subsampling=0, **options))
        np.testing.assert_allclose(decoded.astype(int), pixels, atol=4)

    @pytest.mark.parametrize(
        ("kind", "options"), [("PNG", {"transparency": bytes([0, 100])}), ("GIF", {"transparency": 1}), ("GIF", {})]
    )
    def test_a_palette_gives_its_colours_and_transparency_goes_without_a_word(
        self, kind: str, options: dict[str, Any]
    ) -> None:
        palette = Image.fromarray(smooth(20, 31)).quantize(5)
        with warnings.catch_warnings(action="error"):
            decoded = decode_image(file(palette, kind, **options))
        np.testing.assert_array_equal(decoded, np.asarray(palette.convert("RGB")))

    @pytest.mark.parametrize("size", [(1, 1), (20_000, 10), (3, 20_000)])
    def test_of_any_shape(self, size: tuple[int, int]) -> None:
        assert decode_image(file(Image.new("RGB", size, (1, 2, 3)), "PNG")).shape == (size[1], size[0], 3)


class TestWide:
    """Of 16 bits the upper 8 are kept."""

    @pytest.mark.parametrize(("colour", "channels"), [(0, [0]), (2, [0, 1, 2]), (4, [0, 1]), (6, [0, 1, 2, 3])])
    def test_png(self, colour: int, channels: list[int]) -> None:
        decoded = decode_image(png16(WORDS[..., channels], colour))
        upper = (WORDS >> 8).astype(np.uint8)
        np.testing.assert_array_equal(decoded, grey(upper[..., 0]) if colour in (0, 4) else upper[..., :3])

    @pytest.mark.parametrize("order", "<>")
    def test_tiff(self, order: str) -> None:
        np.testing.assert_array_equal(decode_image(tiff(WORDS[..., 0], order)), grey(WORDS[..., 0] >> 8))
        for channels in (3, 4):
            decoded = decode_image(tiff(WORDS[..., :channels], order, photometric=2))
            np.testing.assert_array_equal(decoded, WORDS[..., :3] >> 8)

    def test_grey_whose_zero_is_white(self) -> None:
        decoded = decode_image(tiff(WORDS[..., 0], photometric=0))
        np.testing.assert_array_equal(decoded, 255 - grey(WORDS[..., 0] >> 8))

    def test_tiff_of_12_bits(self) -> None:
        values = WORDS[..., 0] >> 4
        packed = b"".join((int(a) << 12 | int(b)).to_bytes(3) for a, b in values.reshape(-1, 2))
        np.testing.assert_array_equal(decode_image(tiff(values, data=packed, bits=12)), grey(values >> 4))

    @pytest.mark.parametrize("bits", [10, 12, 16])
    def test_pgm_of_any_largest_value(self, bits: int) -> None:
        values = WORDS[..., 0] >> (16 - bits)
        data = f"P5 4 3 {2**bits - 1}\n".encode() + values.astype(">u2").tobytes()
        np.testing.assert_array_equal(decode_image(data), grey(values >> (bits - 8)))

    def test_jpeg_2000(self) -> None:
        np.testing.assert_array_equal(decode_image(file(WORDS[..., 0], "JPEG2000")), grey(WORDS[..., 0] >> 8))

    @pytest.mark.parametrize(
        ("values", "sample", "reason"),
        [
            (WORDS[..., 0].view(np.int16), 2, "more than 16 bits a channel, or signed ones"),
            (WORDS[..., 0].astype(np.uint32), 1, "more than 16 bits"),
            (WORDS[..., 0].astype(np.float32), 3, "floating-point"),
        ],
    )
    def test_other_numbers_are_refused(self, values: np.ndarray, sample: int, reason: str) -> None:
        with pytest.raises(ValueError, match=reason):
            decode_image(tiff(values, sample=sample))


class TestOtherColours:
    INK = smooth(24, 32, 4)
    """C, M, Y, K of a picture."""

    def expected(self) -> np.ndarray:
        """What of white light such inks let through, each by itself."""
        ink = self.INK / 255
        return 255 * (1 - ink[..., :3]) * (1 - ink[..., 3:])

    def jpeg(self, stored: np.ndarray, transform: int) -> bytes:
        """A JPEG whose file holds the four planes as they are, with Adobe's `transform`: 0 CMYK, 2 YCCK."""
        # Pillow inverts what it writes, as Adobe does.
        data = file(Image.fromarray(255 - stored, "CMYK"), "JPEG", quality=100)
        at = data.index(b"Adobe") + 11
        assert data[at] == 0
        return data[:at] + bytes([transform]) + data[at + 1 :]

    def test_cmyk_is_stored_inverted_with_adobes_marker_or_without(self) -> None:
        """As Photoshop does, and browsers read it."""
        data = self.jpeg(255 - self.INK, 0)
        np.testing.assert_allclose(decode_image(data), self.expected(), atol=5)
        start = data.index(b"Adobe") - 4
        assert data[start : start + 4] == b"\xff\xee\x00\x0e"
        np.testing.assert_allclose(decode_image(data[:start] + data[start + 16 :]), self.expected(), atol=5)

    def test_ycck(self) -> None:
        # Y, Cb and Cr of the inks as if they were R, G and B (JFIF's equations); K is stored inverted.
        c, m, y = np.moveaxis(self.INK[..., :3].astype(float), 2, 0)
        luma = 0.299 * c + 0.587 * m + 0.114 * y
        planes = [luma, 128 + (y - luma) / 1.772, 128 + (c - luma) / 1.402, 255.0 - self.INK[..., 3]]
        stored = np.dstack(planes).round().clip(0, 255).astype(np.uint8)
        np.testing.assert_allclose(decode_image(self.jpeg(stored, 2)), self.expected(), atol=8)

    def test_lab_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"of another kind than RGB, grey or CMYK \(mode LAB\)"):
            decode_image(tiff((WORDS[..., :3] >> 8).astype(np.uint8), photometric=8))


class TestOrientation:
    # What was done to the upright picture when it was stored, by EXIF's definition of where its row 0 and column 0 are.
    STORED: ClassVar[dict[int, Any]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }
    UPRIGHT = np.dstack([np.arange(35, dtype=np.uint8).reshape(5, 7) * 7] * 3)

    def exif(self, orientation: int) -> Image.Exif:
        exif = Image.Exif()
        exif[0x0112] = orientation
        return exif

    @pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
    @pytest.mark.parametrize("orientation", STORED)
    def test_upright_is_as_people_see_it(self, orientation: int, kind: str) -> None:
        stored = np.ascontiguousarray(self.STORED[orientation](self.UPRIGHT))
        options = {"lossless": True} if kind == "WEBP" else {}
        data = file(stored, kind, exif=self.exif(orientation), **options)
        np.testing.assert_array_equal(decode_image(data, upright=True), self.UPRIGHT)
        if kind != "TIFF":  # Pillow turns it
            np.testing.assert_array_equal(decode_image(data), stored)

    def test_a_file_for_those_who_read_no_exif(self) -> None:
        for orientation in range(1, 9):
            data = file(self.UPRIGHT, "PNG", exif=self.exif(orientation))
            pixels, stored = decode_upright(data)
            np.testing.assert_array_equal(pixels, decode_image(data, upright=True))
            np.testing.assert_array_equal(decode_image(stored), pixels)
            assert (stored == data) == (orientation == 1)
        with pytest.raises(ValueError, match="above the limit"):
            decode_upright(data, max_pixels=3)

    def test_of_a_jpeg_and_of_16_bits(self) -> None:
        upright = smooth(24, 40)
        data = file(np.rot90(upright).copy(), "JPEG", quality=100, subsampling=0, exif=self.exif(6))
        np.testing.assert_allclose(decode_image(data, upright=True).astype(int), upright, atol=6)
        assert decode_image(data).shape == (40, 24, 3)
        words = np.rot90(WORDS[..., 0])
        chunk = self.exif(6).tobytes().removeprefix(b"Exif\0\0")
        chunk = struct.pack(">I", len(chunk)) + b"eXIf" + chunk + struct.pack(">I", zlib.crc32(b"eXIf" + chunk))
        data = raw_png(*words.shape, 16, 0, [row.astype(">u2").tobytes() for row in words], before=chunk)
        np.testing.assert_array_equal(decode_image(data, upright=True), grey(WORDS[..., 0] >> 8))

    @pytest.mark.parametrize("orientation", [0, 9, 255])
    def test_an_orientation_that_is_none_turns_nothing(self, orientation: int) -> None:
        data = file(self.UPRIGHT, "PNG", exif=self.exif(orientation))
        np.testing.assert_array_equal(decode_image(data, upright=True), self.UPRIGHT)

    @pytest.mark.filterwarnings("ignore:Corrupt EXIF")
    @pytest.mark.parametrize("broken", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0garbage", b"\0"])
    def test_broken_exif_data_turns_nothing(self, broken: bytes) -> None:
        pixels = smooth(24, 40)
        data = file(pixels, "JPEG", quality=100, subsampling=0, exif=broken)
        np.testing.assert_allclose(decode_image(data, upright=True).astype(int), pixels, atol=6)


class TestRefused:
    @pytest.mark.filterwarnings("ignore::UserWarning:PIL")
    @pytest.mark.parametrize("kept", [0, 10, 60, 0.5, -20, -1])
    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "progressive", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000"])
    def test_a_truncated_image(self, kind: str, kept: float) -> None:
        options = {"progressive": True} if kind == "progressive" else {}
        whole = file(smooth(32, 32), "JPEG" if options else kind, **options)
        part = whole[: int(kept * len(whole)) if 0 < kept < 1 else int(kept)]
        with pytest.raises(ValueError, match=r"^(not an image|unreadable: )") as refused:
            decode_image(part)
        assert "\n" not in str(refused.value)
        assert "<" not in str(refused.value)

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"", "not an image: the file is empty"),
            (b"Dear reader,\n", r"not an image in a format that is read \(13 bytes\)"),
            (b"\x89PNG\r\n\x1a\n" + b"no chunk" * 9, "unreadable: "),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
            (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "not an image"),
        ],
    )
    def test_what_is_no_image(self, data: bytes, reason: str) -> None:
        with pytest.raises(ValueError, match=reason):
            decode_image(data)

    @pytest.mark.parametrize("kind", ["EPS", "ICO", "TGA", "PCX"])
    def test_formats_that_are_not_read(self, kind: str) -> None:
        with pytest.raises(ValueError, match="not an image in a format that is read"):
            decode_image(file(smooth(32, 32), kind))

    @pytest.mark.parametrize(
        ("kind", "says"),
        [
            ("GIF", "an animation of 12 frames"),
            ("WEBP", "an animation of 12 frames"),
            ("PNG", "an animation of 12 frames"),
            ("TIFF", "a file of 12 pages"),
        ],
    )
    def test_several_pictures(self, kind: str, says: str) -> None:
        first, *others = (Image.new("RGB", (9, 9), (20 * i, 0, 0)) for i in range(12))
        data = file(first, kind, save_all=True, append_images=others)
        with pytest.raises(ValueError, match=f"image is {says}, not a still picture"):
            decode_image(data)

    def test_a_photograph_with_another_picture_behind_it_is_a_photograph(self) -> None:
        """As cameras and phones make them, with a preview or another view (MPO)."""
        pixels = smooth(24, 40)
        data = file(pixels, "MPO", save_all=True, append_images=[Image.new("RGB", (9, 9))], quality=100, subsampling=0)
        np.testing.assert_allclose(decode_image(data).astype(int), pixels, atol=4)


class TestLimit:
    def test_400_megapixels_are_refused_before_they_take_memory(self) -> None:
        data = raw_png(20_000, 20_000, 8, 2, [b"\0" * 100])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        says = "^image is 20000×20000 = 400 megapixels, above the limit of 179: raise --max-megapixels$"
        with pytest.raises(ValueError, match=says):
            decode_image(data)
        with pytest.raises(ValueError, match=says):
            decode_image(data, upright=True, max_pixels=MAX_PIXELS)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB

    def test_a_gif_whose_frame_is_larger_than_it_says(self) -> None:
        tiny = file(Image.new("P", (1, 1)), "GIF")
        at = tiny.index(b",") + 5  # the frame's width and height
        with pytest.raises(ValueError, match="image is 65535×65535 = 4295 megapixels"):
            decode_image(tiny[:at] + b"\xff\xff\xff\xff" + tiny[at + 4 :])

    def test_a_limit_of_ones_own(self) -> None:
        data = png(np.zeros((40, 50), np.uint8))
        assert decode_image(data, max_pixels=2000).shape == (40, 50, 3)
        assert decode_image(data, max_pixels=None).shape == (40, 50, 3)
        with pytest.raises(ValueError, match="50×40"):
            decode_image(data, max_pixels=1999)

    def test_neither_a_warning_nor_an_error_of_pillows_on_the_way(self) -> None:
        """It warns above 89 megapixels and refuses above 179. Of one bit a pixel, for the test's memory."""
        data = raw_png(9_000, 10_000, 1, 0, [b"\xff" * 1_250] * 9_000)
        with warnings.catch_warnings(action="error"):
            assert decode_image(data).shape == (9_000, 10_000, 3)
            data = raw_png(9_000, 20_000, 1, 0, [b"\xff"])
            with pytest.raises(ValueError, match="unreadable: "):
                decode_image(data, max_pixels=180_000_000)


class TestLabels:
    def test_a_label_survives_the_way_to_its_file_and_back(self) -> None:
        label = np.random.default_rng(0).integers(0, 256, (31, 17), np.uint8)
        np.testing.assert_array_equal(decode_label(encode_label(label)), label)

    def test_a_label_must_be_a_whole_8_bit_single_channel_png(self) -> None:
        label = np.random.default_rng(0).integers(0, 12, (31, 17), np.uint8)
        for data, reason in (
            (file(Image.fromarray(label).convert("P"), "PNG"), "mode P, not an 8-bit single-channel PNG"),
            (png(np.zeros((4, 4, 3), np.uint8)), "mode RGB"),
            (png16(WORDS[..., 0], 0), "mode I"),
            (file(label, "JPEG"), "JPEG"),
            (file(Image.fromarray(label), "PNG", save_all=True, append_images=[Image.new("L", (17, 31))]), "2 frames"),
            (encode_label(label)[:-30], "unreadable"),
            (b"<html>", "not an image"),
        ):
            with pytest.raises(ValueError, match=reason):
                decode_label(data)
