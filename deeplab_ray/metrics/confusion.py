"""The confusion matrix of a segmentation, and intersection over union.

Matrices of single images add up to that of a split; the scores are taken from the sum, as the PASCAL VOC and
Cityscapes benchmarks do, not averaged over images.
"""

import numpy as np

from deeplab_ray.labels import IGNORE


def confusion_matrix(label: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """Count pixels by true and predicted class.

    label: H×W (or any shape) of integer train ids, 255 = ignore: these pixels are not counted.
    prediction: the same shape, integer train ids 0..C−1, at ignored pixels too.
    Returns int64 C×C, rows = truth, columns = prediction.
    Raises ValueError if the shapes differ or an id lies outside 0..C−1.
    """
    if label.shape != prediction.shape:
        raise ValueError(f"label is {label.shape}, prediction {prediction.shape}: the shapes must be equal")
    for name, ids in (("label", label), ("prediction", prediction)):
        if not np.issubdtype(ids.dtype, np.integer):
            raise ValueError(f"{name} is {ids.dtype}, but train ids are integers")
    if prediction.size and (prediction.min() < 0 or prediction.max() >= classes):
        raise ValueError(f"prediction holds {_outside(prediction, classes)}, outside 0..{classes - 1}")
    counted = label != IGNORE
    truth = label[counted].astype(np.int64)
    if truth.size and (truth.min() < 0 or truth.max() >= classes):
        raise ValueError(f"label holds {_outside(truth, classes)}, outside 0..{classes - 1} and {IGNORE} (ignore)")
    pairs = truth * classes + prediction[counted].astype(np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def iou(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union of each class: n_ii / (Σ_j n_ij + Σ_j n_ji − n_ii).

    confusion: C×C, rows = truth. Returns float64 C in 0..1, NaN if a class is neither in the truth nor
    predicted.
    """
    hits = np.diag(confusion).astype(np.float64)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - hits
    return np.divide(hits, union, out=np.full_like(hits, np.nan), where=union > 0)


def mean_iou(confusion: np.ndarray) -> float:
    """Mean of `iou` over the classes that have one, in 0..1; NaN for an empty matrix."""
    scores = iou(confusion)
    scores = scores[~np.isnan(scores)]
    return float(scores.mean()) if scores.size else float("nan")


def pixel_accuracy(confusion: np.ndarray) -> float:
    """Share of the counted pixels that are right, in 0..1; NaN for an empty matrix."""
    total = confusion.sum()
    return float(np.trace(confusion) / total) if total else float("nan")


def _outside(ids: np.ndarray, classes: int) -> int:
    return int(ids[(ids < 0) | (ids >= classes)].flat[0])
