"""The formats that predictions are written in, by their names."""

from collections.abc import Callable
from typing import Literal

from deeplab_ray.errors import UserError
from deeplab_ray.labels import ClassTable
from deeplab_ray.outputs.label_files import Cityscapes, Index, Voc
from deeplab_ray.outputs.overlay import Overlay
from deeplab_ray.outputs.prediction import Format, Prediction
from deeplab_ray.outputs.scores import Scores, StoredScores, read_scores

__all__ = ["NAMES", "Format", "Prediction", "StoredScores", "Values", "make", "read_scores"]

Values = Literal["train-ids", "own"]
"""What the pixels of `index` hold: train ids 0..C−1, or the values of the class table."""

_MAKERS: dict[str, Callable[[ClassTable, Values], Format]] = {
    "cityscapes": lambda classes, values: Cityscapes(classes),
    "voc": lambda classes, values: Voc(classes),
    "index": Index,
    "overlay": lambda classes, values: Overlay(classes),
    "scores": lambda classes, values: Scores(),
}

NAMES = tuple(_MAKERS)
"""What `make` knows."""


def make(name: str, classes: ClassTable, values: Values = "train-ids") -> Format:
    """Return the format of this name for predictions of these classes; `values` is for `index` alone.

    Raises UserError for a name that is none of `NAMES`.
    """
    if name not in _MAKERS:
        raise UserError(f"there is no format {name!r}: take one of {', '.join(NAMES)}")
    return _MAKERS[name](classes, values)
