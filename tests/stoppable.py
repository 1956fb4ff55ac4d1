"""A dataset of one's own, in a module that workers cannot import, whose third label waits while a file is there."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tiny
from numpy.typing import NDArray

from deeplab_ray.datasets import Dataset, camvid
from deeplab_ray.datasets.formats import Index

IMAGES = 5
HEIGHT, WIDTH = 30, 40
_WAITS = HEIGHT + 1


@dataclass(frozen=True)
class Waiting(Index):
    """CamVid's labels. Decoding one of a certain height waits while the file `stop` exists."""

    stop: str = ""

    def decode(self, data: bytes, height: int, width: int, drawn: Any) -> NDArray[np.uint8]:
        stop = Path(self.stop)
        while height == _WAITS and stop.exists():
            stop.with_name(f"{stop.name}.reached").touch()
            time.sleep(0.1)
        return super().decode(data, height, width, drawn)


def dataset(stop: str | Path) -> Dataset:
    """In CamVid's layout."""
    base = camvid.DATASET
    return replace(base, name="stoppable", format=Waiting(base.label_values, "stoppable", str(stop)))


def picture(number: int) -> NDArray[np.uint8]:
    """Image `number`; the third is higher than the others."""
    return np.random.default_rng(number).integers(0, 256, (_WAITS if number == 2 else HEIGHT, WIDTH, 3), np.uint8)


def pictures(folder: Path) -> Path:
    """A split `val` of IMAGES images named 0000, 0001, …"""
    for number in range(IMAGES):
        tiny.write_png(folder / "val" / f"{number:04d}.png", picture(number))
        tiny.write_png(folder / "valannot" / f"{number:04d}.png", picture(number)[..., 0] % 12)
    return folder
