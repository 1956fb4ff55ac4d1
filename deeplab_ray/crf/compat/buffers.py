"""Checks of arguments, with the exceptions that pydensecrf's typed arguments raise."""

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

_C_NAMES = {
    "bool": "bool",
    "int8": "signed char",
    "uint8": "unsigned char",
    "int16": "short",
    "uint16": "unsigned short",
    "int32": "int",
    "uint32": "unsigned int",
    "int64": "long",
    "uint64": "unsigned long",
    "float32": "float",
    "float64": "double",
}


def take(value: Any, name: str, dimensions: int, kind: type[np.generic] = np.float32) -> NDArray[Any]:
    """Return an argument as an array. Raises TypeError if it is None or no array, ValueError for another layout."""
    if value is None:
        raise TypeError(f"Argument '{name}' must not be None")
    try:
        array = np.asarray(memoryview(value))
    except TypeError:
        raise TypeError(f"a bytes-like object is required, not '{type(value).__name__}'") from None
    if not array.flags.c_contiguous:
        raise ValueError("ndarray is not C-contiguous")
    if array.ndim != dimensions:
        raise ValueError(f"Buffer has wrong number of dimensions (expected {dimensions}, got {array.ndim})")
    if array.dtype != kind:
        wanted, got = (_C_NAMES.get(np.dtype(which).name, np.dtype(which).name) for which in (kind, array.dtype))
        raise ValueError(f"Buffer dtype mismatch, expected '{wanted}' but got '{got}'")
    return array


def take_compatibility(compat: Any, labels: int) -> float | NDArray[np.float32]:
    """Return a label compatibility: a number (Potts), or costs as a vector of `labels` or a symmetric matrix of them.

    A matrix that is not symmetric is averaged with its transpose. Raises TypeError or ValueError for anything else.
    """
    if isinstance(compat, Real):
        return float(_finite(np.float64(float(compat))))
    dimensions = memoryview(compat).ndim
    if dimensions not in (1, 2):
        raise ValueError("LabelCompatibility of dimension >2 not meaningful.")
    array = take(compat, "compat", dimensions)
    if array.shape != (labels,) * dimensions:
        raise ValueError(f"Bad shape for label compatibility (Need {(labels,) * dimensions}, got {array.shape})")
    return _finite(array.copy() if dimensions == 1 else np.float32(0.5) * (array + array.T))


def _finite(compat: Any) -> Any:
    if not np.isfinite(compat).all():
        raise ValueError("the label compatibility must be finite")
    return compat
