"""The confusion matrix of a segmentation, and the scores that are read off it.

Matrices of single images add up to that of a split; the scores are taken from the sum, as the PASCAL VOC and
Cityscapes benchmarks do, not averaged over images.
"""

import numpy as np
from numpy.typing import NDArray

from deeplab_ray.labels import IGNORE


def check_ids(label: np.ndarray, prediction: np.ndarray, classes: int) -> NDArray[np.bool_]:
    """Return which pixels are counted: those whose label is not 255.

    Raises ValueError unless both are integers of one shape, the label 0..C−1 or 255, the prediction 0..C−1.
    """
    if label.shape != prediction.shape:
        raise ValueError(f"label is {label.shape}, prediction {prediction.shape}: the shapes must be equal")
    for name, ids in (("label", label), ("prediction", prediction)):
        if not np.issubdtype(ids.dtype, np.integer):
            raise ValueError(f"{name} is {ids.dtype}, but train ids are integers")
    if prediction.size and (prediction.min() < 0 or prediction.max() >= classes):
        raise ValueError(f"prediction holds {_outside(prediction, classes)}, outside 0..{classes - 1}")
    counted = label != IGNORE
    if label.min(initial=0, where=counted) < 0 or label.max(initial=0, where=counted) >= classes:
        wrong = _outside(label[counted], classes)
        raise ValueError(f"label holds {wrong}, outside 0..{classes - 1} and {IGNORE} (ignore)")
    return counted


def confusion_matrix(label: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """Count pixels by true and predicted class.

    label: H×W (or any shape) of integer train ids, 255 = ignore: these pixels are not counted.
    prediction: the same shape, integer train ids 0..C−1, at ignored pixels too.
    Returns int64 C×C, rows = truth, columns = prediction.
    Raises ValueError if the shapes differ or an id lies outside 0..C−1.
    """
    counted = check_ids(label, prediction, classes)
    truth = label[counted].astype(np.int64)
    pairs = truth * classes + prediction[counted].astype(np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def iou(confusion: np.ndarray) -> NDArray[np.float64]:
    """Intersection over union of each class: n_ii / (Σ_j n_ij + Σ_j n_ji − n_ii).

    confusion: C×C, rows = truth. Returns float64 C in 0..1, NaN if a class is neither in the truth nor
    predicted.
    """
    hits = np.diag(confusion).astype(np.float64)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - hits
    return _ratio(hits, union)


def class_accuracy(confusion: np.ndarray) -> NDArray[np.float64]:
    """Share of each class's true pixels that are right: n_ii / Σ_j n_ij.

    confusion: C×C, rows = truth. Returns float64 C in 0..1, NaN if a class is not in the truth.
    """
    hits = np.diag(confusion).astype(np.float64)
    return _ratio(hits, confusion.sum(axis=1))


def mean_iou(confusion: np.ndarray) -> float:
    """Mean of `iou` over the classes that have one, in 0..1; NaN for an empty matrix.

    This is the benchmarks' rule, for a headline. It may average two predictions over different sets of classes: a
    single pixel called a class that is not in the truth takes the mean down by a whole class. To compare, take
    `mean_iou_of_truth`.
    """
    return _mean(iou(confusion))


def mean_iou_of_truth(confusion: np.ndarray) -> float:
    """Mean of `iou` over the classes with at least one true pixel, in 0..1; NaN for an empty matrix.

    The set of classes is the same for all predictions of the same pixels, so that their means can be compared.
    """
    return _mean(iou(confusion)[confusion.sum(axis=1) > 0])


def pixel_accuracy(confusion: np.ndarray) -> float:
    """Share of the counted pixels that are right, Σ_i n_ii / Σ_ij n_ij, in 0..1; NaN for an empty matrix."""
    total = confusion.sum()
    return float(np.trace(confusion) / total) if total else float("nan")


def mean_class_accuracy(confusion: np.ndarray) -> float:
    """Mean of `class_accuracy` over the classes of the truth, in 0..1; NaN for an empty matrix.

    "Mean accuracy" of Long, Shelhamer and Darrell, Fully Convolutional Networks (CVPR 2015), section 5.
    """
    return _mean(class_accuracy(confusion))


def frequency_weighted_iou(confusion: np.ndarray) -> float:
    """Mean of `iou` weighted by each class's true pixels, in 0..1; NaN for an empty matrix.

    Σ_i t_i n_ii / (t_i + Σ_j n_ji − n_ii) / Σ_k t_k with t_i = Σ_j n_ij: "frequency weighted IU" of Long, Shelhamer and
    Darrell, Fully Convolutional Networks (CVPR 2015), section 5.
    """
    pixels = confusion.sum(axis=1)
    if not pixels.any():
        return float("nan")
    return float(np.nan_to_num(iou(confusion)) @ pixels / pixels.sum())


def _mean(scores: NDArray[np.float64]) -> float:
    scores = scores[~np.isnan(scores)]
    return float(scores.mean()) if scores.size else float("nan")


def _ratio(part: np.ndarray, whole: np.ndarray) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _outside(ids: np.ndarray, classes: int) -> int:
    return int(ids[(ids < 0) | (ids >= classes)].flat[0])
