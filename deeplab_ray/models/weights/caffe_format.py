"""Reading .caffemodel files without Caffe.

A .caffemodel is a serialised protocol buffer `NetParameter`. The schema below declares the fields that matter here,
with their numbers in BVLC's caffe.proto (also of the older `V1LayerParameter`, in which ImageNet's VGG-16 is written);
google.protobuf skips the rest. Arrays are declared as bytes: a packed array of floats is encoded as just that, and
NumPy reads it at once instead of number by number.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from torch import Tensor

from deeplab_ray.errors import UserError

# Message: field → (number, type, default). A type with a capital letter is another message here, [] a repeated field.
_SCHEMA: dict[str, dict[str, tuple[int, str, str]]] = {
    "Shape": {"dim": (1, "int64[]", "")},
    "Blob": {
        "num": (1, "int32", ""),
        "channels": (2, "int32", ""),
        "height": (3, "int32", ""),
        "width": (4, "int32", ""),
        "data": (5, "bytes[]", ""),
        "shape": (7, "Shape", ""),
        "double_data": (8, "bytes[]", ""),
    },
    "Convolution": {
        "pad": (3, "uint32[]", ""),
        "kernel_size": (4, "uint32[]", ""),
        "group": (5, "uint32", "1"),
        "stride": (6, "uint32[]", ""),
        "pad_h": (9, "uint32", "0"),
        "pad_w": (10, "uint32", "0"),
        "kernel_h": (11, "uint32", "0"),
        "kernel_w": (12, "uint32", "0"),
        "stride_h": (13, "uint32", "0"),
        "stride_w": (14, "uint32", "0"),
        "dilation": (18, "uint32[]", ""),
    },
    "Pooling": {
        "pool": (1, "int32", "0"),
        "kernel_size": (2, "uint32", "0"),
        "stride": (3, "uint32", "1"),
        "pad": (4, "uint32", "0"),
        "kernel_h": (5, "uint32", "0"),
        "kernel_w": (6, "uint32", "0"),
        "stride_h": (7, "uint32", "0"),
        "stride_w": (8, "uint32", "0"),
        "pad_h": (9, "uint32", "0"),
        "pad_w": (10, "uint32", "0"),
    },
    "BatchNorm": {"eps": (3, "float", "1e-5")},
    "Layer": {
        "name": (1, "string", ""),
        "type": (2, "string", ""),
        "blobs": (7, "Blob[]", ""),
        "convolution": (106, "Convolution", ""),
        "pooling": (121, "Pooling", ""),
        "batch_norm": (139, "BatchNorm", ""),
    },
    "V1Layer": {
        "name": (4, "string", ""),
        "type": (5, "int32", ""),
        "blobs": (6, "Blob[]", ""),
        "convolution": (10, "Convolution", ""),
        "pooling": (19, "Pooling", ""),
    },
    "Net": {"name": (1, "string", ""), "layers": (2, "V1Layer[]", ""), "layer": (100, "Layer[]", "")},
}
# V1LayerParameter.LayerType of the layers that have weights or geometry.
_V1_TYPES = {4: "Convolution", 14: "InnerProduct", 17: "Pooling", 39: "Deconvolution"}
_PACKAGE = "deeplab_ray.caffe"


def _net_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto2")
    kinds = descriptor_pb2.FieldDescriptorProto
    for message_name, fields in _SCHEMA.items():
        message = file.message_type.add(name=message_name)
        for name, (number, kind, default) in fields.items():
            repeated, base = kind.endswith("[]"), kind.removesuffix("[]")
            described = message.field.add(
                name=name, number=number, label=kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            )
            if base in _SCHEMA:
                described.type, described.type_name = kinds.TYPE_MESSAGE, f".{_PACKAGE}.{base}"
            else:
                described.type = getattr(kinds, f"TYPE_{base.upper()}")
            if default:
                described.default_value = default
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Net"))


_NET = _net_class()


@dataclass(frozen=True)
class Sliding:
    """How a layer slides over its input: kernel size, stride, padding and dilation, each for rows and for columns."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class Layer:
    """One layer of a .caffemodel."""

    name: str
    type: str
    blobs: list[Tensor] = field(repr=False)
    window: Sliding | None
    """Window of a convolution or a pool; None for other layers, or if the file does not say."""
    epsilon: float | None
    """Epsilon of a batch norm; None for other layers."""


@dataclass(frozen=True)
class CaffeNet:
    """The content of a .caffemodel."""

    where: str
    """The file, for messages."""
    layers: list[Layer]


def parse(content: bytes, where: str) -> CaffeNet:
    """Read the layers of a .caffemodel, in order. Raises UserError if it is not one, or an array in it is broken.

    where: the file, for messages.
    """
    net = _NET()
    try:
        net.ParseFromString(content)
    except DecodeError as error:
        raise UserError(f"{where} is not a .caffemodel ({error}): the file is broken, or of another kind") from None
    layers = [_layer(layer, layer.type, where) for layer in net.layer]
    layers += [_layer(layer, _V1_TYPES.get(layer.type, ""), where) for layer in net.layers]
    if not any(layer.blobs for layer in layers):
        raise UserError(f"{where} holds no layer with weights: give a .caffemodel, not its prototxt")
    return CaffeNet(where, layers)


def _layer(layer: Any, kind: str, where: str) -> Layer:
    window = None
    if kind in ("Convolution", "Deconvolution") and layer.HasField("convolution"):
        window = _convolution(layer.convolution)
    elif kind == "Pooling" and layer.HasField("pooling"):
        window = _pooling(layer.pooling)
    epsilon = layer.batch_norm.eps if kind == "BatchNorm" else None
    return Layer(layer.name, kind, [_blob(blob, f"{where}: {layer.name}") for blob in layer.blobs], window, epsilon)


def _blob(blob: Any, where: str) -> Tensor:
    shape = list(blob.shape.dim) or [blob.num, blob.channels, blob.height, blob.width]
    kind, chunks = ("<f8", blob.double_data) if blob.double_data else ("<f4", blob.data)
    content = b"".join(chunks)
    # This read-only view is never handed out; the tensor is a copy.
    values = np.frombuffer(content, kind) if len(content) % int(kind[2:]) == 0 else np.empty(0)
    if values.size != int(np.prod(shape)):
        raise UserError(f"{where} holds {len(content)} bytes for an array of {shape}: the file is broken")
    return torch.from_numpy(values.astype(np.float32)).reshape(shape)


def _convolution(param: Any) -> Sliding:
    kernel = _pair(param, "kernel", list(param.kernel_size), 0)
    stride = _pair(param, "stride", list(param.stride), 1)
    pad = _pair(param, "pad", list(param.pad), 0)
    dilation = list(param.dilation) or [1]
    return Sliding(kernel, stride, pad, (dilation[0], dilation[-1]))


def _pooling(param: Any) -> Sliding:
    kernel = _pair(param, "kernel", [param.kernel_size], 0)
    return Sliding(kernel, _pair(param, "stride", [param.stride], 1), _pair(param, "pad", [param.pad], 0))


def _pair(param: Any, name: str, values: list[int], default: int) -> tuple[int, int]:
    """Return a setting for rows and for columns: from the fields …_h and …_w if they are set, else from `values`, which
    are one for both or one for each."""
    both = (getattr(param, f"{name}_h"), getattr(param, f"{name}_w"))
    if any(both):
        return both
    return (values[0], values[-1]) if values else (default, default)
