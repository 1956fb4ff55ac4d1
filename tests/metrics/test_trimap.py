"""Trimap bands against a search over all pairs of pixels, and their scores against confusion matrices."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from deeplab_ray.metrics import (
    WIDTHS,
    boundary_distance,
    confusion_matrix,
    mean_iou_of_truth,
    trimap_counts,
    trimap_iou,
)


def blobs(seed: int, height: int, width: int, classes: int) -> NDArray[np.uint8]:
    """Regions of a few pixels' to the whole picture's size, some of them void."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    sites = rng.random((int(rng.integers(1, 9)), 2)) * (height, width)
    nearest = np.argmin([(y - a) ** 2 + (x - b) ** 2 for a, b in sites], axis=0)
    label = rng.integers(0, classes, len(sites), dtype=np.uint8)[nearest]
    label[rng.random(label.shape) < rng.choice([0, 0.02])] = 255
    return label


def searched(label: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Distance of each pixel to the nearest of another value: over all pairs of pixels."""
    y, x = (axis.ravel() for axis in np.indices(label.shape))
    apart = np.hypot(y[:, None] - y, x[:, None] - x)
    other = label.reshape(-1, 1) != label.reshape(1, -1)
    return np.where(other, apart, np.inf).min(axis=1).reshape(label.shape)


@pytest.mark.parametrize("seed", range(40))
def test_distance_is_that_to_the_nearest_pixel_of_another_label(seed: int) -> None:
    rng = np.random.default_rng(seed)
    label = blobs(seed, *rng.integers(1, 50, 2), classes=3)
    limit = int(rng.choice([1, 2, 7, 40, 254]))
    expected = np.minimum(np.ceil(searched(label)), limit + 1)
    distance = boundary_distance(label, limit)
    assert distance.dtype == np.uint8
    assert np.array_equal(distance, expected)


def test_distance_is_exact_in_a_picture_wider_and_higher_than_the_bands() -> None:
    label = np.zeros((600, 700), np.uint8)
    label[300, 350] = 1
    y, x = np.indices(label.shape)
    expected = np.ceil(np.hypot(y - 300, x - 350)).clip(1)
    for limit in (40, 254):
        assert np.array_equal(boundary_distance(label, limit), expected.clip(max=limit + 1))


@pytest.mark.parametrize("seed", range(10))
def test_counts_are_those_of_a_confusion_matrix_within_each_band(seed: int) -> None:
    rng = np.random.default_rng(seed)
    label, prediction = blobs(seed, 40, 45, 4), rng.integers(0, 4, (40, 45), dtype=np.uint8)
    distance = searched(label)
    counts = trimap_counts(label, prediction, 4)
    assert counts.dtype == np.int64
    assert counts.shape == (len(WIDTHS), 3, 4)
    for width, band, score in zip(WIDTHS, counts, trimap_iou(counts), strict=True):
        matrix = confusion_matrix(np.where(distance <= width, label, 255), prediction, 4)
        assert band.tolist() == [np.diag(matrix).tolist(), matrix.sum(axis=1).tolist(), matrix.sum(axis=0).tolist()]
        assert score == pytest.approx(mean_iou_of_truth(matrix), nan_ok=True)


def test_figures_by_hand() -> None:
    """A row of 8 pixels with a void in it: bands grow from the void and from where 0 meets 1."""
    label = np.array([[0, 0, 0, 255, 0, 0, 1, 1]], np.uint8)
    prediction = np.array([[2, 0, 0, 1, 0, 1, 1, 0]], np.uint8)
    assert boundary_distance(label).tolist() == [[3, 2, 1, 1, 1, 1, 1, 2]]
    counts = trimap_counts(label, prediction, 3, widths=(1, 2, 3))
    assert counts[0].tolist() == [[2, 1, 0], [3, 1, 0], [2, 2, 0]]
    assert counts[1].tolist() == [[3, 1, 0], [4, 2, 0], [4, 2, 0]]
    assert counts[2].tolist() == [[3, 1, 0], [5, 2, 0], [4, 2, 1]]
    assert trimap_iou(counts) == pytest.approx([(2 / 3 + 1 / 2) / 2, (3 / 5 + 1 / 3) / 2, (3 / 6 + 1 / 3) / 2])


def test_counts_of_images_add_up_whatever_their_sizes() -> None:
    rng = np.random.default_rng(0)
    labels = [blobs(seed, 20 + seed, 30, 3) for seed in range(5)]
    predictions = [rng.integers(0, 3, label.shape, dtype=np.uint8) for label in labels]
    total = np.sum([trimap_counts(*pair, 3) for pair in zip(labels, predictions, strict=True)], axis=0)
    # The same pixels, with the labels' distances, as one image.
    flat = [np.concatenate([part.ravel() for part in parts])[None] for parts in (labels, predictions)]
    distance = np.concatenate([boundary_distance(label).ravel() for label in labels])[None]
    assert np.array_equal(total, trimap_counts(*flat, 3, distance=distance))


def test_widths_are_taken_as_given_and_distances_may_be_shared() -> None:
    label, prediction = blobs(3, 60, 60, 3), blobs(4, 60, 60, 3) % 3
    every = trimap_counts(label, prediction, 3)
    distance = boundary_distance(label, 60)
    assert np.array_equal(trimap_counts(label, prediction, 3, widths=(30, 5), distance=distance), every[[29, 4]])


def test_image_without_boundary_or_without_counted_pixels_has_no_band() -> None:
    for label in (np.zeros((9, 9), np.uint8), np.full((9, 9), 255, np.uint8), np.zeros((0, 5), np.uint8)):
        counts = trimap_counts(label, np.zeros_like(label), 2)
        assert not counts.any()
        assert all(math.isnan(score) for score in trimap_iou(counts))


def test_class_that_is_called_but_not_true_does_not_count_as_one() -> None:
    label = np.array([[0, 0, 255]], np.uint8)
    counts = trimap_counts(label, np.array([[0, 1, 0]], np.uint8), 2, widths=(2,))
    assert trimap_iou(counts) == pytest.approx([0.5])


def test_refuses_what_cannot_be_counted() -> None:
    label = np.zeros((4, 5), np.uint8)
    with pytest.raises(ValueError, match="shapes must be equal"):
        trimap_counts(label, label.T, 2)
    with pytest.raises(ValueError, match="shapes must be equal"):
        trimap_counts(label, label, 2, distance=boundary_distance(label.T.copy()))
    with pytest.raises(ValueError, match=r"prediction holds 3, outside 0\.\.1"):
        trimap_counts(label, label + 3, 2)
    for widths in ((), (0,), (3, 255)):
        with pytest.raises(ValueError, match=r"each in 1\.\.254"):
            trimap_counts(label, label, 2, widths=widths)
    with pytest.raises(ValueError, match="must be uint8 H×W"):
        boundary_distance(label.astype(np.int64))
    with pytest.raises(ValueError, match=r"limit 255: it must lie in 1\.\.254"):
        boundary_distance(label, 255)
