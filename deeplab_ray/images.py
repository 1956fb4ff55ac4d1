"""Image and label files' bytes ↔ arrays."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_PNG_END = b"IEND\xaeB`\x82"


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """An image file's bytes → uint8 RGB H×W×3. ValueError with a short reason if unreadable or truncated."""
    image = load(data)
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"image has more than 8 bits a channel (mode {image.mode})")
    return np.asarray(image.convert("RGB"))


def decode_label(data: bytes) -> NDArray[np.uint8]:
    """An 8-bit single-channel PNG of train ids, as `encode_label` writes it → uint8 H×W.

    Raises ValueError with a short reason if it is unreadable, truncated or another kind of file.
    """
    image = load(data)
    if image.format != "PNG" or image.mode != "L":
        raise ValueError(f"label is {image.format} of mode {image.mode}, not an 8-bit single-channel PNG")
    return np.asarray(image)


def encode_label(label: NDArray[np.uint8]) -> bytes:
    """uint8 H×W → an 8-bit single-channel PNG of the same values."""
    file = io.BytesIO()
    # zlib's highest level would save a seventh, for six times the time.
    Image.fromarray(label).save(file, "PNG")
    return file.getvalue()


def load(data: bytes) -> Image.Image:
    """An image file's bytes → the image, decoded to its end. ValueError with a short reason if that fails."""
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except Image.UnidentifiedImageError:
        raise ValueError(f"not an image ({len(data)} bytes)") from None
    except Exception as error:  # broken bytes raise almost anything in Pillow's decoders
        raise ValueError(f"unreadable: {error}") from error
    # Pillow does without the end.
    if image.format == "PNG" and data.rfind(_PNG_END) < 0:
        raise ValueError(f"unreadable: PNG of {len(data)} bytes is truncated")
    return image
