"""A .caffemodel in the wire format of protocol buffers, written byte by byte from BVLC's caffe.proto."""

import struct
from collections.abc import Sequence

import numpy as np


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def integer(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def chunk(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def blob(values: np.ndarray, old: bool = False) -> bytes:
    """BlobProto; old: with num, channels, height and width, as files before 2014 have them."""
    shape = [1] * (4 - values.ndim) + list(values.shape)
    data = chunk(5, np.ascontiguousarray(values, "<f4").tobytes())
    if old:
        return b"".join(integer(number, size) for number, size in enumerate(shape, 1)) + data
    return data + chunk(7, chunk(1, b"".join(varint(size) for size in values.shape)))


def convolution(outputs: int, kernel: int, stride: int = 1, pad: int = 0, dilation: int = 1) -> bytes:
    """ConvolutionParameter, with a filler that a reader has no use for."""
    fields = integer(1, outputs) + integer(3, pad) + integer(4, kernel) + integer(6, stride)
    return fields + chunk(7, chunk(1, b"gaussian")) + (integer(18, dilation) if dilation > 1 else b"")


def pooling(kernel: int, stride: int, pad: int) -> bytes:
    return integer(1, 0) + integer(2, kernel) + integer(3, stride) + integer(4, pad)


def epsilon(value: float) -> bytes:
    return varint(3 << 3 | 5) + struct.pack("<f", value)


Parameter = tuple[int, bytes]
"""Number of a layer's field, and the content of the message in it."""


def layer(name: str, kind: str, blobs: Sequence[np.ndarray] = (), parameter: Parameter | None = None) -> bytes:
    """One LayerParameter as a field of NetParameter."""
    content = chunk(1, name.encode()) + chunk(2, kind.encode()) + chunk(3, b"data") + chunk(4, name.encode())
    content += b"".join(chunk(7, blob(values)) for values in blobs)
    return chunk(100, content + (chunk(*parameter) if parameter else b""))


def old_layer(name: str, kind: int, blobs: Sequence[np.ndarray] = (), parameter: Parameter | None = None) -> bytes:
    """One V1LayerParameter as a field of NetParameter."""
    content = chunk(4, name.encode()) + integer(5, kind) + b"".join(chunk(6, blob(values, True)) for values in blobs)
    return chunk(2, content + (chunk(*parameter) if parameter else b""))


CONVOLUTION, POOLING, BATCH_NORM = 106, 121, 139
