"""The datasets, by name: what jobs/prepare.py reads."""

from importlib import import_module

from deeplab_ray.datasets.base import Dataset, Pair
from deeplab_ray.errors import UserError

__all__ = ["Dataset", "Pair", "get", "names"]

# One line a dataset: the name of its module here, which is the dataset's own and holds it as DATASET.
_MODULES = (
    "ade20k",
    "camvid",
    "cityscapes",
    "cityscapes_coarse",
    "coco",
    "coco14",
    "context",
    "personpart",
    "scenes",
    "voc11",
    "voc12",
)


def names() -> list[str]:
    """Names of all datasets, sorted."""
    return sorted(_MODULES)


def get(name: str) -> Dataset:
    """The dataset of that name; UserError, listing the names, if there is none."""
    if name not in _MODULES:
        raise UserError(f"unknown dataset {name!r}: take one of {', '.join(names())}")
    dataset: Dataset = import_module(f"deeplab_ray.datasets.{name}").DATASET
    return dataset
