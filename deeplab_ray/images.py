"""Image and label files' bytes ↔ arrays.

An image is rightly decoded, or refused with a ValueError whose text is one short line: why. Importing this takes
Pillow's own limit on an image's size away from the whole process: it warns or refuses by thresholds that no argument
moves. `load` has a limit of ours, which is checked before the pixels take memory.

What a prepared set stores of an image (`normalise`); "PNG" is an 8-bit PNG, grey or RGB, which decodes to the pixels
that `decode_image(data, upright=True)` gives of the file that came in:

    comes in                                                is stored
    ------------------------------------------------------  ----------------------------------------------
    JPEG, RGB or grey, baseline or progressive              as it came
    PNG of 8 bits, RGB or grey; with a palette              as it came
    any of them that EXIF (or XMP) turns or mirrors         PNG, upright
    JPEG of CMYK or YCCK                                    PNG, RGB as (1 − C)(1 − K), without colour profile
    PNG of 1, 2, 4 bits grey                                PNG
    16 bits a channel, grey or RGB; 9 to 15 bits            PNG of the upper 8
    alpha; a transparent colour; a palette with such        PNG without: the colours below it show
    WebP, TIFF, BMP, GIF, PPM, JPEG 2000                    PNG
    a photograph with previews behind it (MPO)              as it came: its first picture is read
    an animation, a file of several pages                   refused
    floats, 32 bits or signed numbers, Lab colours          refused
    more pixels than --max-megapixels                       refused, before they take memory
    a truncated or broken file, one that is no image        refused
"""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deeplab_ray.errors import first_sentence

MAX_PIXELS = 178_956_970
"""Pixels that an image may have unless the caller allows more: what Pillow refuses above, too. Decoding takes up to
14 bytes a pixel, 2.5 GB for one of this size."""

# What Pillow decodes by itself, or by a library that it brings. Others run programs (EPS) or hold several pictures.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000")
_PNG_END = b"IEND\xaeB`\x82"
# Where a PNG says how many bits a sample has.
_PNG_BIT_DEPTH = 24
# A PNG that knows its orientation holds one of these: a chunk of EXIF data, the same as ImageMagick kept it, XMP.
_PNG_EXIF = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
# Pillow converts these to RGB as everybody does: CMYK as (1 − C)(1 − K), a palette by its colours, without alpha.
_PLAIN_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
# Of 16-bit grey. Signed ones have mode I.
_WIDE_MODES = ("I;16", "I;16L", "I;16B", "I;16N")
_TIFF_BITS, _TIFF_PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
_ORIENTATION = 0x0112
# What is to be done with the stored picture, by the orientation of EXIF.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What undoes a turn, if that is not the same turn.
_BACK = {
    Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
    Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90,
}
_QUARTERS = (*_BACK, Image.Transpose.TRANSPOSE, Image.Transpose.TRANSVERSE)

Image.MAX_IMAGE_PIXELS = None


def decode_image(data: bytes, upright: bool = False, max_pixels: int | None = MAX_PIXELS) -> NDArray[np.uint8]:
    """An image file's bytes → uint8 RGB H×W×3.

    Of 16 bits a channel the upper 8 are kept. Alpha is dropped, and the colours below it show; so is a colour profile.

    With `upright` the picture is turned and mirrored as its EXIF orientation says, so that H×W is its size as people
    and viewers see it, and whatever is predicted for it lies on it there. Without, it is as the file stores it, which
    is what the labels of a prepared set were checked against (a TIFF is turned in both cases: Pillow does so).

    Raises ValueError with a short reason: unreadable or truncated; no image in a format that is read; more than
    `max_pixels` (None: no limit); an animation or several pages; channels of float, of 32 bits or signed; Lab colours.
    """
    return _decode(data, upright, max_pixels)[0]


def decode_upright(data: bytes, max_pixels: int | None = MAX_PIXELS) -> tuple[NDArray[np.uint8], bytes]:
    """The picture as people see it, uint8 RGB H×W×3, and a file that stores it so, for whoever reads no EXIF.

    That is the file itself, or a PNG of the same pixels if EXIF turns it. Raises ValueError as `decode_image` does.
    """
    pixels, turned = _decode(data, True, max_pixels)
    return pixels, _png(Image.fromarray(pixels)) if turned else data


@dataclass(frozen=True)
class Normal:
    """A picture as a prepared set stores it: whoever decodes it, whether EXIF is heeded or not, sees the same."""

    data: bytes
    """The file as it came, or a PNG."""
    height: int
    """In pixels."""
    width: int
    changed: str | None
    """Why it is not the file as it came, such as "16 bits to 8, turned as EXIF says"; None: it is."""


def normalise(data: bytes, max_pixels: int | None = MAX_PIXELS, exif: bool = True) -> Normal:
    """Turn an image file's bytes into what a prepared set stores, by the table above, without loss.

    Without `exif` the picture stays as the file stores it, and what EXIF says of its orientation is dropped.
    Raises ValueError as `decode_image` does.
    """
    image = _open(data, max_pixels)
    # Pillow turns a TIFF when it loads it, and has then forgotten that it did.
    turned = _turn(image) if image.format == "TIFF" else None
    changes = _changes(image, data)
    _finish(image, data)
    turn = _turn(image)
    if turn is not None or turned is not None:
        changes.append("turned as EXIF says" if exif else "EXIF's orientation dropped")
    plain = _plain(image)
    if turn is not None and exif:
        plain = plain.transpose(turn)
    if turned is not None and not exif:
        plain = plain.transpose(_BACK.get(turned, turned))
    return Normal(_png(plain) if changes else data, plain.height, plain.width, ", ".join(changes) or None)


@dataclass(frozen=True)
class Header:
    """What the beginning of an image file says."""

    kind: str
    """Format and mode, such as "JPEG of mode RGB"."""
    stored: tuple[int, int]
    """Height and width in pixels of the picture as the file stores it."""
    upright: tuple[int, int]
    """The same of the picture as EXIF turns it."""
    turned: bool
    """Whether EXIF turns or mirrors it."""


def read_header(data: bytes, max_pixels: int | None = MAX_PIXELS) -> Header:
    """Read an image's size and kind without decoding it.

    Raises ValueError as `decode_image` does for all that is refused but what shows in decoding alone: a broken or
    truncated file may pass.
    """
    image = _open(data, max_pixels)
    # Pillow decodes a PNG to look for EXIF data behind its pixels.
    turn = None if image.format == "PNG" and not any(mark in data for mark in _PNG_EXIF) else _turn(image)
    size = image.height, image.width
    other = size[::-1] if turn in _QUARTERS else size
    _check_mode(image)
    # A TIFF's is told as if it were turned already.
    stored, upright = (other, size) if image.format == "TIFF" else (size, other)
    return Header(f"{image.format} of mode {image.mode}", stored, upright, turn is not None)


def _decode(data: bytes, upright: bool, max_pixels: int | None) -> tuple[NDArray[np.uint8], bool]:
    """What `decode_image` returns, and whether the picture was turned."""
    image = load(data, max_pixels)
    turn = _turn(image) if upright else None
    image = _plain(image).convert("RGB")
    return np.asarray(image if turn is None else image.transpose(turn)), turn is not None


def _plain(image: Image.Image) -> Image.Image:
    """A loaded image as 8-bit grey (mode L) or RGB. ValueError for colours and numbers that are not read."""
    _check_mode(image)
    image = _eight_bits(image)
    # With it Pillow warns that the alpha of a palette goes.
    image.info.pop("transparency", None)
    mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _png(image: Image.Image) -> bytes:
    # Written anew, it carries along neither EXIF data nor a colour profile.
    bare, file = Image.fromarray(np.asarray(image)), io.BytesIO()
    # Of a photograph's noise level 6 would save a tenth, for nearly twice the time.
    bare.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _changes(image: Image.Image, data: bytes) -> list[str]:
    """Why an opened image cannot stay the file that it is, its orientation aside."""
    changes = []
    if image.format not in ("JPEG", "MPO", "PNG"):
        changes.append(f"{image.format} to PNG")
    if (bits := _bits(image, data)) != 8:
        changes.append(f"{bits} bit{'s' if bits > 1 else ''} to 8")
    if image.mode in ("CMYK", "YCbCr"):
        changes.append(f"{image.mode} to RGB")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        changes.append("transparency dropped")
    return changes


def _bits(image: Image.Image, data: bytes) -> int:
    """Bits of a channel, or those of a palette's colours."""
    if image.mode in ("P", "PA"):
        return 8
    if image.format == "PNG":
        return data[_PNG_BIT_DEPTH]
    if image.format == "TIFF":
        return int(getattr(image, "tag_v2", {}).get(_TIFF_BITS, (1,))[0])
    return 1 if image.mode == "1" else 16 if image.mode.startswith("I") else 8


def decode_label(data: bytes) -> NDArray[np.uint8]:
    """An 8-bit single-channel PNG of train ids, as `encode_label` writes it → uint8 H×W.

    Raises ValueError with a short reason if it is unreadable, truncated or another kind of file. A label as large as
    its image was allowed to be has been read before, so there is no limit here.
    """
    image = load(data, max_pixels=None)
    if image.format != "PNG" or image.mode != "L":
        raise ValueError(f"label is {image.format} of mode {image.mode}, not an 8-bit single-channel PNG")
    return np.asarray(image)


def encode_image(pixels: NDArray[np.uint8]) -> bytes:
    """uint8 RGB H×W×3 → an 8-bit PNG which `decode_image` turns into the same pixels; a grey one if all are grey."""
    grey = pixels[..., 0]
    return _png(Image.fromarray(grey if (pixels == grey[..., None]).all() else pixels))


def encode_label(label: NDArray[np.uint8]) -> bytes:
    """uint8 H×W → an 8-bit single-channel PNG of the same values."""
    file = io.BytesIO()
    # zlib's highest level would save a seventh, for six times the time.
    Image.fromarray(label).save(file, "PNG")
    return file.getvalue()


def load(data: bytes, max_pixels: int | None = MAX_PIXELS) -> Image.Image:
    """An image file's bytes → the image, decoded to its end, as the file stores it.

    Raises ValueError with a short reason: unreadable or truncated; no image in a format that is read; more than
    `max_pixels` (None: no limit), before they take memory; an animation or several pages.
    """
    image = _open(data, max_pixels)
    _finish(image, data)
    return image


def _open(data: bytes, max_pixels: int | None) -> Image.Image:
    """What `load` returns before its pixels are decoded."""
    if not data:
        raise ValueError("not an image: the file is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.UnidentifiedImageError:
        raise ValueError(f"not an image in a format that is read ({len(data)} bytes)") from None
    except Exception as error:  # broken bytes raise almost anything in Pillow's decoders
        raise _unreadable(error) from error
    width, height = image.size
    if max_pixels is not None and width * height > max_pixels:
        raise ValueError(
            f"image is {width}×{height} = {_millions(width * height)} megapixels, above the limit of "
            f"{_millions(max_pixels)}: raise --max-megapixels"
        )
    try:
        frames = _frames(image)
    except Exception as error:
        raise _unreadable(error) from error
    if frames != 1:
        kind = "a file of {} pages" if image.format == "TIFF" else "an animation of {} frames"
        raise ValueError(f"image is {kind.format(frames)}, not a still picture")
    return image


def _finish(image: Image.Image, data: bytes) -> None:
    """Decode an opened image's pixels, to their end."""
    try:
        image.load()
    except MemoryError:
        width, height = image.size
        raise ValueError(f"image of {width}×{height} pixels needs more memory than there is") from None
    except Exception as error:
        raise _unreadable(error) from error
    # Pillow does without the end.
    if image.format == "PNG" and data.rfind(_PNG_END) < 0:
        raise ValueError(f"unreadable: PNG of {len(data)} bytes is truncated")


def _unreadable(error: Exception) -> ValueError:
    return ValueError(f"unreadable: {first_sentence(str(error)) or type(error).__name__}")


def _millions(pixels: int) -> str:
    return f"{pixels / 1e6:.1f}" if pixels < 10_000_000 else f"{pixels / 1e6:.0f}"


def _frames(image: Image.Image) -> int:
    """Frames or pages; 1 for a photograph to which a camera or phone added other pictures (format MPO): the first."""
    return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)


def _check_mode(image: Image.Image) -> None:
    """Raise ValueError for colours and numbers that are not read."""
    if _is_wide(image):
        return
    if image.mode.startswith("I"):
        raise ValueError(f"image has more than 16 bits a channel, or signed ones (mode {image.mode})")
    if image.mode.startswith("F"):
        raise ValueError(f"image has floating-point channels (mode {image.mode})")
    if image.mode not in _PLAIN_MODES:
        raise ValueError(f"image has colours of another kind than RGB, grey or CMYK (mode {image.mode})")


def _is_wide(image: Image.Image) -> bool:
    # Mode I is 32 bits, signed; but a PGM file's values, whatever their largest, come as 0..65535.
    return image.mode in _WIDE_MODES or (image.mode == "I" and image.format in ("PNG", "PPM"))


def _eight_bits(image: Image.Image) -> Image.Image:
    """The image itself, or of grey with 9 to 16 bits the upper 8.

    Of colours with 16 bits Pillow keeps the upper 8 when it reads them (of a PPM file it rounds).
    """
    if not _is_wide(image):
        return image
    values, bits = np.asarray(image), 16
    tags = getattr(image, "tag_v2", {})
    if image.format == "TIFF":
        bits = tags[_TIFF_BITS][0]
    if image.format == "TIFF" and tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO:
        values = 2**bits - 1 - values
    return Image.fromarray((values >> (bits - 8)).astype(np.uint8))


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How a loaded image is to be turned to stand upright, by its EXIF data (or XMP, if EXIF does not say)."""
    try:
        return _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # broken EXIF data, like broken bytes; viewers show such a picture as it is stored
        return None
