"""Cityscapes, coarse annotations: those of 19,998 more images (train_extra), and of the fine ones' train and val."""

from collections.abc import Sequence

from deeplab_ray.datasets import cityscapes
from deeplab_ray.datasets.base import Dataset, Pair
from deeplab_ray.storage.location import Location

_KIND = "gtCoarse"


def _pairs(source: Location, split: str) -> list[Pair]:
    return cityscapes.read_pairs(source, split, _KIND)


def _unused(source: Location, split: str, pairs: Sequence[Pair]) -> list[str]:
    return cityscapes.unused(source, split, pairs, _KIND)


DATASET = Dataset(
    name="cityscapes_coarse",
    title="Cityscapes coarse, 19 classes: leftImg8bit/ + gtCoarse/",
    classes=cityscapes.CLASSES,
    palette=cityscapes.PALETTE,
    splits=("train", "train_extra", "val"),
    label_values=cityscapes.LABEL_VALUES,
    pairs=_pairs,
    published={"train": 2975, "train_extra": 19998, "val": 500},
    format=cityscapes.FORMAT,
    unused=_unused,
)
