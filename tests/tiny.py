"""Tiny data sets, made on the spot."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 12, 20


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(pixels))


def camvid(folder: Path, height: int = HEIGHT, width: int = WIDTH, **counts: int) -> Path:
    """A CamVid folder with `counts[split]` noise images a split, named 0000, 0001, …; labels 0..11."""
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        for number in range(count):
            image = rng.integers(0, 256, (height, width, 3), np.uint8)
            write_png(folder / split / f"{number:04d}.png", image)
            label = rng.integers(0, 12, (height, width), np.uint8)
            write_png(folder / f"{split}annot" / f"{number:04d}.png", label)
    return folder
