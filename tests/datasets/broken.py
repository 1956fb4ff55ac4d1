"""A set of drawn street scenes that is whole, and ways to break it."""

import dataclasses
import io
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deeplab_ray import datasets
from deeplab_ray.datasets import Dataset, survey
from deeplab_ray.datasets.base import resolve
from deeplab_ray.datasets.doctor import Finding, examine
from deeplab_ray.scenes.draw import render
from deeplab_ray.storage.location import Location, locate

# Those made here have fewer images than the published ones, and labels in numbers.
CAMVID = dataclasses.replace(datasets.get("camvid"), published={}, format=None)
CITYSCAPES = dataclasses.replace(datasets.get("cityscapes"), published={})
COUNTS = {"train": 8, "val": 4}
HEIGHT, WIDTH = 96, 128
# Ids of scenes → 0..10, and 11 for what is no class, as in CamVid: trucks are cars, the car's bonnet is none.
_IDS = {7: 0, 8: 1, 11: 2, 17: 3, 20: 4, 21: 5, 23: 6, 24: 7, 25: 8, 26: 9, 27: 9, 33: 10, 1: 11, 4: 11}


@cache
def scene(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture, uint8 96×128×3, and its label, uint8 96×128 of 0..11."""
    image, ids = render(0, number, HEIGHT, WIDTH)
    table = np.zeros(256, np.uint8)
    table[list(_IDS)] = list(_IDS.values())
    return image, table[ids]


def street(folder: Path) -> Path:
    """A set in CamVid's layout, of which nothing is wrong."""
    for split, count in COUNTS.items():
        for number in range(count):
            image, label = scene(number + (100 if split == "val" else 0))
            save(folder / split / f"{number:04d}.png", image)
            save(folder / f"{split}annot" / f"{number:04d}.png", label)
    return folder


def save(path: Path, pixels: np.ndarray, kind: str = "PNG", **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, kind, **options)
    path.write_bytes(stream.getvalue())


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def change(
    folder: Path, how: Callable[[np.ndarray], np.ndarray], pattern: str = "*annot/*.png", **options: Any
) -> None:
    """Write files anew, changed."""
    for path in sorted(folder.glob(pattern)):
        save(path, how(pixels(path)), **options)


def look(dataset: Dataset, source: Path | Location, **options: Any) -> list[Finding]:
    """What the doctor says of the train and val splits of a set."""
    place = source if isinstance(source, Location) else locate(source)
    facts = {}
    for split in COUNTS:
        parts = []
        for pair in dataset.pairs(place, split):
            image = resolve(place, pair.image).read_bytes()
            label = resolve(place, pair.label).read_bytes() if pair.label else b""
            parts.append(survey.look_at(dataset.labels, pair, image, label, survey.Options(**options)))
        facts[split] = survey.merge(parts)
    return examine(facts, dataset)


def serious(findings: list[Finding]) -> list[str]:
    """The codes of errors and warnings."""
    return [finding.code for finding in findings if finding.severity != "note"]


def the_only(findings: list[Finding], severity: str) -> Finding:
    """The only finding of a severity."""
    (finding,) = (finding for finding in findings if finding.severity == severity)
    return finding
