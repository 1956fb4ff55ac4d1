"""Folders of images and labels, made on the spot."""

from pathlib import Path
from typing import Any

import numpy as np
from broken import save

from deeplab_ray.datasets import Dataset, survey
from deeplab_ray.datasets.base import Pair, resolve
from deeplab_ray.datasets.facts import Facts
from deeplab_ray.datasets.folder import Folder, FolderOptions, open_folder
from deeplab_ray.storage.location import locate

HEIGHT, WIDTH = 20, 30


def photo(path: Path, seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> None:
    """An image of noise, in the format that its name's ending says."""
    kinds = {"jpg": "JPEG", "jpeg": "JPEG", "tif": "TIFF", "ppm": "PPM"}
    ending = path.suffix[1:].lower()
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    save(path, pixels, kinds.get(ending, ending.upper()))


def stripes(*values: Any) -> np.ndarray:
    """A label of equal areas side by side, one a value; uint8 20×30 (×3 for colours)."""
    return np.array([values[column * len(values) // WIDTH] for column in range(WIDTH)], np.uint8)[None].repeat(
        HEIGHT, 0
    )


def opened(root: Path, **options: Any) -> Folder:
    """The folders `images` and `labels` of `root`."""
    return open_folder(FolderOptions(**{"images": str(root / "images"), "labels": str(root / "labels"), **options}))


def members(dataset: Dataset) -> dict[str, list[Pair]]:
    return {split: dataset.pairs(locate("/"), split) for split in dataset.splits}


def label_of(dataset: Dataset, id: str) -> np.ndarray:
    """Train ids of an image, as they are prepared."""
    (pair,) = (pair for pairs in members(dataset).values() for pair in pairs if pair.id == id)
    data = resolve(locate("/"), pair.label).read_bytes() if pair.label else b""
    return dataset.labels.decode(data, HEIGHT, WIDTH, pair.drawn)


def looked_at(folder: Folder, dataset: Dataset | None = None) -> dict[str, Facts]:
    """The survey of all splits."""
    dataset = dataset or folder.dataset
    options = survey.Options(knows_values=bool(dataset.classes))
    facts = {}
    for split, pairs in members(dataset).items():
        parts = []
        for pair in pairs:
            try:
                image = resolve(locate("/"), pair.image).read_bytes()
                label = resolve(locate("/"), pair.label).read_bytes() if pair.label else b""
            except FileNotFoundError as error:
                parts.append(survey.of_bad(pair, str(error)))
                continue
            parts.append(survey.look_at(dataset.labels, pair, image, label, options))
        facts[split] = survey.merge(parts)
    return facts
