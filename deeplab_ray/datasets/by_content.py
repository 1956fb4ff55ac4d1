"""Labels of several formats in one set: what a file begins with tells which it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deeplab_ray.datasets.formats import LabelFormat, Look, Value

Content = Literal["png", "colours", "mat", "json"]
"""Kinds of files: a PNG of one channel or with a palette, one in RGB, MATLAB's, and JSON."""

_PNG = b"\x89PNG"
# Where a PNG says what its channels are, and its values for RGB with and without transparency.
_COLOUR_TYPE, _RGB = 25, (2, 6)


@dataclass(frozen=True)
class ByContent:
    """Labels of several formats; a file of another kind is read by the first, which says what is wrong with it."""

    formats: Mapping[Content, LabelFormat]

    def look(self, data: bytes, height: int, width: int, drawn: Any) -> Look:
        return self._format(data).look(data, height, width, drawn)

    def train_id(self, value: Value) -> int | None:
        meant = (format.train_id(value) for format in self.formats.values())
        return next((train_id for train_id in meant if train_id is not None), None)

    def decode(self, data: bytes, height: int, width: int, drawn: Any) -> NDArray[np.uint8]:
        return self._format(data).decode(data, height, width, drawn)

    def _format(self, data: bytes) -> LabelFormat:
        return self.formats.get(_content(data)) or next(iter(self.formats.values()))


def _content(data: bytes) -> Content:
    if data.startswith(b"MATLAB"):
        return "mat"
    if data.startswith(_PNG) and data[_COLOUR_TYPE : _COLOUR_TYPE + 1] in (bytes([kind]) for kind in _RGB):
        return "colours"
    return "json" if data.lstrip()[:1] == b"{" else "png"
