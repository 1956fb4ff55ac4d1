"""What a prepared set stores of an image: the file as it came, or a PNG of the very pixels, or a refusal."""

import io
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from image_files import WORDS, file, grey, png16, raw_png, smooth, tiff
from PIL import Image

from deeplab_ray.images import decode_image, normalise, read_header

PHOTO = smooth(24, 40)
ALPHA = np.full((24, 40), 7, np.uint8)
PALETTE = Image.fromarray(PHOTO).quantize(9)


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def check(data: bytes, changed: str | None, pixels: np.ndarray, as_exif_says: bool = True) -> Image.Image:
    """The stored file, once it is found to decode to `pixels` (H×W or H×W×3) for whoever decodes it."""
    normal = normalise(data, exif=as_exif_says)
    assert normal.changed == changed
    expected = grey(pixels) if pixels.ndim == 2 else pixels
    assert (normal.height, normal.width) == pixels.shape[:2]
    for upright in (False, True):
        np.testing.assert_array_equal(decode_image(normal.data, upright=upright), expected)
    if as_exif_says:
        np.testing.assert_array_equal(decode_image(data, upright=True), expected)
    if changed is None:
        assert normal.data == data
    stored = Image.open(io.BytesIO(normal.data))
    if changed is not None:
        assert (stored.format, stored.mode) == ("PNG", "L" if pixels.ndim == 2 else "RGB")
        assert stored.info == {}
    header = read_header(data)
    assert (header.upright if as_exif_says else header.stored) == pixels.shape[:2]
    again = normalise(normal.data)
    assert (again.data, again.changed) == (normal.data, None)
    return stored


class TestAsItCame:
    @pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "optimize": True}])
    @pytest.mark.parametrize("pixels", [PHOTO, PHOTO[..., 0]], ids=["RGB", "grey"])
    def test_a_jpeg_baseline_or_progressive(self, pixels: np.ndarray, options: dict[str, Any]) -> None:
        data = file(pixels, "JPEG", quality=92, **options)
        decoded = np.asarray(Image.open(io.BytesIO(data)))
        stored = check(data, None, decoded)
        assert stored.format == "JPEG"
        assert ("progressive" in stored.info) == ("progressive" in options)

    def test_a_png_of_8_bits(self) -> None:
        check(file(PHOTO, "PNG"), None, PHOTO)
        check(file(PHOTO[..., 0], "PNG"), None, PHOTO[..., 0])
        check(file(PALETTE, "PNG"), None, np.asarray(PALETTE.convert("RGB")))
        check(file(PALETTE, "PNG", bits=4), None, np.asarray(PALETTE.convert("RGB")))
        check(file(PHOTO, "PNG", exif=exif(1)), None, PHOTO)

    def test_a_photograph_with_previews_behind_it(self) -> None:
        data = file(PHOTO, "MPO", save_all=True, append_images=[Image.new("RGB", (9, 9))])
        check(data, None, np.asarray(Image.open(io.BytesIO(data))))


class TestOrientation:
    # As EXIF defines it by where row 0 and column 0 of the stored picture are seen: stored → upright.
    UPRIGHT = (
        lambda a: a,
        lambda a: a[:, ::-1],
        lambda a: a[::-1, ::-1],
        lambda a: a[::-1],
        lambda a: a.swapaxes(0, 1),
        lambda a: np.rot90(a, -1),
        lambda a: a[::-1, ::-1].swapaxes(0, 1),
        lambda a: np.rot90(a, 1),
    )

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_a_turned_picture_is_stored_upright_or_as_the_file_has_it(self, orientation: int, kind: str) -> None:
        options = {"lossless": True} if kind == "WEBP" else {}
        data = file(PHOTO, kind, exif=exif(orientation), **options)
        as_stored = decode_image(file(PHOTO, kind, **options))
        upright = self.UPRIGHT[orientation - 1](as_stored)
        converted = [] if kind in ("JPEG", "PNG") else [f"{kind} to PNG"]
        turned = ["turned as EXIF says"] if orientation > 1 else []
        dropped = ["EXIF's orientation dropped"] if orientation > 1 else []
        check(data, ", ".join(converted + turned) or None, upright)
        check(data, ", ".join(converted + dropped) or None, as_stored, as_exif_says=False)
        assert read_header(data).turned == (orientation > 1)
        assert read_header(data).stored == (24, 40)

    def test_a_png_may_tell_behind_its_pixels_or_in_xmp(self) -> None:
        def behind(name: bytes, content: bytes) -> bytes:
            whole = raw_png(2, 3, 8, 0, [b"\1\2\3", b"\4\5\6"])
            chunk = struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
            return whole[:-12] + chunk + whole[-12:]

        values = np.array([[1, 2, 3], [4, 5, 6]])
        xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
        for data in (
            behind(b"eXIf", exif(6).tobytes().removeprefix(b"Exif\0\0")),
            behind(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
        ):
            check(data, "turned as EXIF says", np.rot90(values, -1))
            check(data, "EXIF's orientation dropped", values, as_exif_says=False)

    def test_an_orientation_that_is_none_changes_nothing(self) -> None:
        check(file(PHOTO, "PNG", exif=exif(9)), None, PHOTO)


class TestConverted:
    def test_other_formats(self) -> None:
        check(file(PHOTO, "WEBP", lossless=True), "WEBP to PNG", PHOTO)
        check(file(PHOTO, "TIFF", compression="tiff_lzw"), "TIFF to PNG", PHOTO)
        check(file(PHOTO[..., 0], "TIFF"), "TIFF to PNG", PHOTO[..., 0])
        check(file(PHOTO, "BMP"), "BMP to PNG", PHOTO)
        check(file(PHOTO[..., 0], "PPM"), "PPM to PNG", PHOTO[..., 0])
        check(file(PHOTO, "JPEG2000", irreversible=False), "JPEG2000 to PNG", PHOTO)
        check(file(PALETTE, "GIF"), "GIF to PNG", np.asarray(PALETTE.convert("RGB")))
        lossy = file(PHOTO, "WEBP", quality=50)
        check(lossy, "WEBP to PNG", np.asarray(Image.open(io.BytesIO(lossy))))

    def test_transparency_goes_and_the_colours_below_it_show(self) -> None:
        check(file(np.dstack([PHOTO, ALPHA]), "PNG"), "transparency dropped", PHOTO)
        check(file(np.dstack([PHOTO[..., 0], ALPHA]), "PNG"), "transparency dropped", PHOTO[..., 0])
        check(file(np.dstack([PHOTO, ALPHA]), "WEBP", lossless=True, exact=True), WEBP_ALPHA, PHOTO)
        check(file(PHOTO, "PNG", transparency=(1, 2, 3)), "transparency dropped", PHOTO)
        colours = np.asarray(PALETTE.convert("RGB"))
        with warnings.catch_warnings(action="error"):
            check(file(PALETTE, "PNG", transparency=bytes([0, 100])), "transparency dropped", colours)
            check(file(PALETTE, "GIF", transparency=1), "GIF to PNG, transparency dropped", colours)

    def test_of_16_bits_the_upper_8_are_kept(self) -> None:
        upper = (WORDS >> 8).astype(np.uint8)
        check(png16(WORDS[..., 0], 0), "16 bits to 8", upper[..., 0])
        check(png16(WORDS[..., :3], 2), "16 bits to 8", upper[..., :3])
        check(png16(WORDS[..., :2], 4), "16 bits to 8, transparency dropped", grey(upper[..., 0]))
        check(png16(WORDS, 6), "16 bits to 8, transparency dropped", upper[..., :3])
        check(tiff(WORDS[..., 0]), "TIFF to PNG, 16 bits to 8", upper[..., 0])
        check(tiff(WORDS[..., 0], photometric=0), "TIFF to PNG, 16 bits to 8", 255 - upper[..., 0])
        check(tiff(WORDS[..., :3], photometric=2), "TIFF to PNG, 16 bits to 8", upper[..., :3])
        packed = b"".join((int(a) << 12 | int(b)).to_bytes(3) for a, b in (WORDS[..., 0] >> 4).reshape(-1, 2))
        check(tiff(WORDS[..., 0] >> 4, data=packed, bits=12), "TIFF to PNG, 12 bits to 8", upper[..., 0])

    def test_fewer_bits_become_8(self) -> None:
        black_and_white = np.eye(3, 5, dtype=bool)
        check(file(Image.fromarray(black_and_white), "PNG"), "1 bit to 8", black_and_white * np.uint8(255))
        data = raw_png(1, 4, 2, 0, [bytes([0b00_01_10_11])])
        check(data, "2 bits to 8", np.array([[0, 85, 170, 255]], np.uint8))

    def test_cmyk_as_light_passes_its_inks(self) -> None:
        ink = smooth(24, 40, 4)
        data = file(Image.fromarray(255 - ink, "CMYK"), "JPEG", quality=100)
        stored = check(data, "CMYK to RGB", decode_image(data))
        paper = 255 * (1 - (255 - ink[..., :3]) / 255) * (1 - (255 - ink[..., 3:]) / 255)
        np.testing.assert_allclose(np.asarray(stored), paper, atol=5)

    def test_no_colour_profile_goes_along(self) -> None:
        """No viewer shall show other colours than a network gets."""
        check(file(PHOTO, "TIFF", icc_profile=b"profile"), "TIFF to PNG", PHOTO)

    def test_all_at_once(self) -> None:
        rgba = np.dstack([PHOTO, ALPHA])
        check(
            file(rgba, "TIFF", exif=exif(8)), "TIFF to PNG, transparency dropped, turned as EXIF says", np.rot90(PHOTO)
        )


WEBP_ALPHA = "WEBP to PNG, transparency dropped"


class TestRefused:
    """Each by both: before the pixels are decoded where the beginning of the file tells."""

    @pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
    def test_animations(self, kind: str) -> None:
        first, *others = (Image.new("RGB", (9, 9), (20 * i, 0, 0)) for i in range(3))
        data = file(first, kind, save_all=True, append_images=others)
        for read in (normalise, read_header):
            with pytest.raises(ValueError, match=r"^image is an animation of 3 frames, not a still picture$"):
                read(data)

    @pytest.mark.parametrize(
        ("values", "sample", "reason"),
        [
            (WORDS[..., 0].astype(np.float32), 3, "floating-point channels"),
            (WORDS[..., 0].astype(np.uint32), 1, "more than 16 bits a channel"),
            (WORDS[..., 0].view(np.int16), 2, "or signed ones"),
        ],
    )
    def test_numbers_that_are_not_read(self, values: np.ndarray, sample: int, reason: str) -> None:
        for read in (normalise, read_header):
            with pytest.raises(ValueError, match=reason):
                read(tiff(values, sample=sample))

    def test_bombs_by_their_header_with_the_flag_named(self) -> None:
        data = raw_png(20_000, 20_000, 8, 2, [b"\0" * 100])
        for read in (normalise, read_header):
            with pytest.raises(ValueError, match=r"400 megapixels, above the limit of 179: raise --max-megapixels$"):
                read(data)
            with pytest.raises(ValueError, match=r"0\.0 megapixels, above the limit of 0\.0"):
                read(file(PHOTO, "JPEG"), 959)
        assert normalise(file(PHOTO, "JPEG"), 960).width == 40

    @pytest.mark.filterwarnings("ignore::UserWarning:PIL")
    @pytest.mark.parametrize("progressive", [False, True])
    @pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, -2])
    def test_a_truncated_jpeg_unlike_one_that_builds_up(self, kept: float, progressive: bool) -> None:
        """A progressive one that is cut still shows the whole picture, blurred: it is refused all the same."""
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        whole = file(noise, "JPEG", progressive=progressive)
        assert normalise(whole).changed is None
        with pytest.raises(ValueError, match=r"^(unreadable: |not an image)"):
            normalise(whole[: int(kept * len(whole)) if kept > 0 else int(kept)])

    def test_what_is_no_image(self) -> None:
        for data in (b"", b"<html>", b"\x89PNG\r\n\x1a\n" + bytes(40)):
            for read in (normalise, read_header):
                with pytest.raises(ValueError, match=r"^(unreadable: |not an image)"):
                    read(data)
