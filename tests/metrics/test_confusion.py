"""The confusion matrix against a plain loop, and the scores against figures worked out by hand."""

import math

import numpy as np
import pytest

from deeplab_ray.metrics import (
    class_accuracy,
    confusion_matrix,
    frequency_weighted_iou,
    iou,
    mean_class_accuracy,
    mean_iou,
    mean_iou_of_truth,
    pixel_accuracy,
)


def looped(label: np.ndarray, prediction: np.ndarray, classes: int) -> list[list[int]]:
    counts = [[0] * classes for _ in range(classes)]
    for truth, guess in zip(label.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if truth != 255:
            counts[truth][guess] += 1
    return counts


@pytest.mark.parametrize("classes", [1, 2, 11, 21, 150])
def test_equals_a_loop_over_the_pixels(classes: int) -> None:
    rng = np.random.default_rng(classes)
    label = rng.integers(0, classes, (61, 47), dtype=np.uint8)
    label[rng.random(label.shape) < 0.2] = 255
    prediction = rng.integers(0, classes, label.shape, dtype=np.uint8)
    counts = confusion_matrix(label, prediction, classes)
    assert counts.dtype == np.int64
    assert counts.tolist() == looped(label, prediction, classes)


def test_figures_by_hand() -> None:
    label = np.array([[0, 0, 0, 1], [1, 1, 2, 255]], np.uint8)
    prediction = np.array([[0, 0, 1, 1], [1, 2, 0, 3]], np.uint8)
    counts = confusion_matrix(label, prediction, 5)
    assert counts[:3, :3].tolist() == [[2, 1, 0], [0, 2, 1], [1, 0, 0]]  # rows are the truth
    assert counts.sum() == 7
    assert iou(counts)[:3] == pytest.approx([2 / 4, 2 / 4, 0])
    assert np.isnan(iou(counts)[3:]).all()  # class 3 is predicted at the ignored pixel only, 4 nowhere
    assert mean_iou(counts) == pytest.approx(1 / 3)
    assert pixel_accuracy(counts) == pytest.approx(4 / 7)
    assert class_accuracy(counts)[:3] == pytest.approx([2 / 3, 2 / 3, 0])
    assert np.isnan(class_accuracy(counts)[3:]).all()
    assert mean_class_accuracy(counts) == pytest.approx(4 / 9)
    assert frequency_weighted_iou(counts) == pytest.approx((3 * 2 / 4 + 3 * 2 / 4 + 1 * 0) / 7)


def test_class_predicted_but_never_true_scores_zero_for_the_benchmark_and_does_not_count_in_comparisons() -> None:
    counts = confusion_matrix(np.zeros((2, 2), np.uint8), np.array([[0, 0], [0, 1]], np.uint8), 2)
    assert iou(counts) == pytest.approx([0.75, 0])
    assert mean_iou(counts) == pytest.approx(0.375)
    assert mean_iou_of_truth(counts) == pytest.approx(0.75)
    assert mean_class_accuracy(counts) == pytest.approx(0.75)
    assert frequency_weighted_iou(counts) == pytest.approx(0.75)


def test_matrices_of_images_add_up() -> None:
    rng = np.random.default_rng(0)
    label, prediction = rng.integers(0, 4, (2, 6, 8, 8), dtype=np.uint8)
    parts = sum(confusion_matrix(a, b, 4) for a, b in zip(label, prediction, strict=True))
    assert np.array_equal(parts, confusion_matrix(label, prediction, 4))


def test_nothing_counted_scores_nan() -> None:
    counts = confusion_matrix(np.full((3, 3), 255, np.uint8), np.zeros((3, 3), np.uint8), 3)
    assert counts.sum() == 0
    for score in (mean_iou, mean_iou_of_truth, pixel_accuracy, mean_class_accuracy, frequency_weighted_iou):
        assert math.isnan(score(counts))
    assert np.isnan(class_accuracy(counts)).all()


def test_refuses_what_cannot_be_compared() -> None:
    label = np.zeros((2, 3), np.uint8)
    with pytest.raises(ValueError, match=r"shapes must be equal"):
        confusion_matrix(label, label.T, 3)
    with pytest.raises(ValueError, match=r"prediction holds 3, outside 0\.\.2"):
        confusion_matrix(label, label + 3, 3)
    with pytest.raises(ValueError, match=r"label holds 7, outside 0\.\.2"):
        confusion_matrix(label + 7, label, 3)
    with pytest.raises(ValueError, match="train ids are integers"):
        confusion_matrix(label, label.astype(np.float32), 3)
