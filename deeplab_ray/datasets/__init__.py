"""The datasets, by name."""

from deeplab_ray.datasets.base import IGNORE, Dataset, Pair, decode_image
from deeplab_ray.datasets.camvid import CAMVID
from deeplab_ray.datasets.cityscapes import CITYSCAPES
from deeplab_ray.datasets.scenes import SCENES
from deeplab_ray.datasets.voc12 import VOC12
from deeplab_ray.errors import UserError

__all__ = ["IGNORE", "Dataset", "Pair", "decode_image", "get", "names"]

_DATASETS = {dataset.name: dataset for dataset in (CAMVID, CITYSCAPES, SCENES, VOC12)}


def names() -> list[str]:
    """Names of all datasets, sorted."""
    return sorted(_DATASETS)


def get(name: str) -> Dataset:
    """The dataset of that name; UserError, listing the names, where there is none."""
    if name not in _DATASETS:
        raise UserError(f"unknown dataset {name!r}: take one of {', '.join(names())}")
    return _DATASETS[name]
