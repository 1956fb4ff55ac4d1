"""Memory that is allocated once and used again."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab_ray.crf.lattice import HashBuffers


class Workspace:
    """Buffers that are allocated once and used for every image."""

    def __init__(self) -> None:
        self.table = HashBuffers()
        self._held: dict[str, NDArray[Any]] = {}

    def get(self, name: str, size: int, kind: Any = np.float32) -> NDArray[Any]:
        """Return the buffer `name` with this length; it is kept between calls, and holds zeros when it is new."""
        held = self._held.get(name)
        if held is None or len(held) < size:
            # Release the old buffer before the new one is allocated.
            self._held.pop(name, None)
            held = None
            held = self._held[name] = _aligned_zeros(size + size // 8, kind)
        return held[:size]


def _aligned_zeros(size: int, kind: Any) -> NDArray[Any]:
    """Return zeros that begin at a cache line, so that a row of 16 lanes lies in one."""
    item = np.dtype(kind).itemsize
    raw = np.zeros(size * item + 64, np.uint8)
    skip = -raw.ctypes.data % 64
    return raw[skip : skip + size * item].view(kind)
