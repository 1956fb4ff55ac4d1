"""Labels in MATLAB's `.mat` files of version 5."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from deeplab_ray.datasets.formats import MOST_VALUES, Look, Value
from deeplab_ray.errors import quote

KIND = "MATLAB file"


def read(data: bytes, field: str) -> Any:
    """A variable of a `.mat` file: arrays as NumPy's, structs as objects with their fields as attributes, arrays of
    one element as that element. ValueError if the file cannot be read or has no such variable."""
    try:
        variables = loadmat(io.BytesIO(data), squeeze_me=True, struct_as_record=False)
    except NotImplementedError:
        raise ValueError("label is a MATLAB file of version 7.3, not 5: save it by MATLAB with -v7") from None
    except Exception as error:  # broken files raise almost anything in SciPy
        raise ValueError(f"label is no MATLAB file that can be read ({quote(error)})") from None
    if field not in variables:
        there = ", ".join(sorted(name for name in variables if not name.startswith("__"))) or "nothing"
        raise ValueError(f"label has no variable {field}, only {there}")
    return variables[field]


def get(struct: Any, field: str) -> Any:
    """A field of a struct; ValueError if it has none."""
    if not hasattr(struct, field):
        raise ValueError(f"label has no field {field} where one should be")
    return getattr(struct, field)


@dataclass(frozen=True)
class Numbers:
    """`.mat` files with a matrix of numbers, which are looked up in a table."""

    path: tuple[str, ...]
    """Name of the variable, and of the fields down to the matrix."""
    values: Mapping[int, int]
    """Number → train id. Any other number is an error."""
    name: str
    """Whose table it is, for messages."""

    def look(self, data: bytes, height: int, width: int, drawn: Any) -> Look:
        raw = self._matrix(data)
        values, counts = np.unique(raw, return_counts=True)
        order = np.argsort(-counts, kind="stable")[:MOST_VALUES]
        found: dict[Value, int] = {int(values[i]): int(counts[i]) for i in order}
        rows, columns = raw.shape
        return Look(KIND, rows, columns, found, len(values))

    def train_id(self, value: Value) -> int | None:
        return self.values.get(value) if isinstance(value, int) else None

    def decode(self, data: bytes, height: int, width: int, drawn: Any) -> NDArray[np.uint8]:
        raw = self._matrix(data)
        values, places, counts = np.unique(raw, return_inverse=True, return_counts=True)
        unknown = [i for i, value in enumerate(values) if int(value) not in self.values]
        if unknown:
            more = f", nor are {len(unknown) - 1} other values" if len(unknown) > 1 else ""
            first = unknown[0]
            raise ValueError(
                f"label value {values[first]} ({counts[first]} pixels) is not in {self.name}'s table{more}"
            )
        return np.array([self.values[int(value)] for value in values], np.uint8)[places].reshape(raw.shape)

    def _matrix(self, data: bytes) -> NDArray[np.int64]:
        variable, *fields = self.path
        found = read(data, variable)
        for field in fields:
            found = get(found, field)
        matrix = np.atleast_2d(np.asarray(found))
        if matrix.ndim != 2 or not matrix.size or not np.issubdtype(matrix.dtype, np.number):
            raise ValueError(f"label's {'.'.join(self.path)} is no matrix of numbers")
        whole = matrix.astype(np.int64)
        if (whole != matrix).any():
            raise ValueError(f"label's {'.'.join(self.path)} holds numbers that are not whole")
        return whole
