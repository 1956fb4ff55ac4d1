"""Image files of all kinds, made on the spot. Those that Pillow cannot write are put together by hand: PNGs and TIFFs
of 16 bits, JPEGs of four planes."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

WORDS = np.random.default_rng(0).integers(0, 2**16, (3, 4, 4), np.uint16)
"""What 16-bit files are made of."""


def file(image: Image.Image | np.ndarray, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, kind, **options)
    return stream.getvalue()


def smooth(height: int, width: int, channels: int = 3) -> np.ndarray:
    """What JPEG keeps within some units: uint8 H×W×channels."""
    corners = np.random.default_rng(1).integers(0, 256, (2, 2, channels), np.uint8)
    layers = [
        Image.fromarray(corners[..., i]).resize((width, height), Image.Resampling.BILINEAR) for i in range(channels)
    ]
    return np.dstack([np.asarray(layer) for layer in layers])


def grey(values: np.ndarray) -> np.ndarray:
    """H×W → uint8 H×W×3."""
    return np.repeat(values[..., None], 3, axis=2).astype(np.uint8)


def raw_png(height: int, width: int, bits: int, colour: int, rows: list[bytes], before: bytes = b"") -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    content = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + before + content + chunk(b"IEND", b"")


def png16(words: np.ndarray, colour: int) -> bytes:
    return raw_png(*words.shape[:2], 16, colour, [row.astype(">u2").tobytes() for row in words])


def tiff(values: np.ndarray, order: str = "<", photometric: int = 1, sample: int = 1, data: bytes = b"", bits: int = 0):
    """Uncompressed, of one strip; `sample`: 1 unsigned, 2 signed, 3 float; `data`, `bits`: pixels that are packed."""
    height, width = values.shape[:2]
    channels = values.shape[2] if values.ndim == 3 else 1
    data = data or values.astype(values.dtype.newbyteorder(order)).tobytes()
    bits = bits or 8 * values.dtype.itemsize
    tags = {256: [width], 257: [height], 258: [bits] * channels, 259: [1], 262: [photometric], 273: [0]}
    tags |= {277: [channels], 278: [height], 279: [len(data)], 339: [sample] * channels}
    if channels == 4:
        tags[338] = [2]
    after = 8 + 2 + 12 * len(tags) + 4
    far = b"".join(struct.pack(f"{order}{len(v)}H", *v) for v in tags.values() if len(v) > 2)
    tags[273] = [after + len(far)]
    entries, at = b"", after
    for tag, numbers in sorted(tags.items()):
        if len(numbers) > 2:
            field, at = struct.pack(f"{order}I", at), at + 2 * len(numbers)
        else:
            field = struct.pack(f"{order}{len(numbers)}H", *numbers).ljust(4, b"\0")
        entries += struct.pack(f"{order}HHI", tag, 3, len(numbers)) + field
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(tags))
    return head + entries + bytes(4) + far + data
