"""pydensecrf's programs run with the import changed, and give what pydensecrf gives."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import programs
import pytest

import deeplab_ray.crf.compat as ours
from deeplab_ray.crf import mean_field
from deeplab_ray.crf.compat import densecrf, utils

STORED = programs.stored()
POINTS = programs.HEIGHT * programs.WIDTH


@pytest.fixture
def reference() -> Any:
    """pydensecrf itself: its modules densecrf and utils."""
    model = pytest.importorskip("pydensecrf.densecrf", reason="the extra 'pydensecrf' is not installed")
    from pydensecrf import utils as functions

    return model, functions


@pytest.mark.parametrize(("features", "normalisation", "compat"), programs.COMBINATIONS)
def test_every_kernel_equals_the_reference(features: str, normalisation: str, compat: str) -> None:
    beliefs = [
        programs.one_call(ours, utils, features, normalisation, compat, kernel).inference(programs.ITERATIONS)
        for kernel in ours.KernelType
    ]
    expected = STORED[f"{features}/{normalisation}/{compat}"] / programs.LEVELS
    np.testing.assert_allclose(beliefs[0], expected, rtol=0, atol=1e-5 + 0.5 / programs.LEVELS)
    # A type of kernel says what could be learned; inference is the same.
    assert np.array_equal(beliefs[0], beliefs[1])
    assert np.array_equal(beliefs[0], beliefs[2])


def test_the_stored_results_are_what_the_reference_gives(reference: Any) -> None:
    for name, array in programs.record(*reference).items():
        np.testing.assert_allclose(array, STORED[name], rtol=1e-5, atol=1)


@pytest.mark.parametrize("name", ["2-D", "features"])
def test_an_annotated_image(name: str) -> None:
    labels, falling = programs.annotated_image(densecrf, utils, name == "2-D")
    assert np.array_equal(labels, STORED[f"{name}/labels"])
    np.testing.assert_allclose(falling, STORED[f"{name}/falling"], rtol=1e-5)


def standard_case(module: Any, classes: int, weight: float = 3.0, width: Any = 2) -> Any:
    image, rng = programs.picture(), np.random.default_rng(classes)
    crf = module.DenseCRF2D(programs.WIDTH, programs.HEIGHT, classes)
    crf.setUnaryEnergy(rng.uniform(0, 3, (classes, POINTS)).astype(np.float32))
    crf.addPairwiseGaussian(width, 3)
    crf.addPairwiseBilateral(20, 13, image, weight)
    return crf


@pytest.mark.parametrize("classes", [2, 21, 40])
def test_the_usual_case_takes_the_engine_for_images_and_gives_the_same(
    classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    crf = standard_case(ours, classes)
    general = densecrf.DenseCRF.inference(crf, 5)
    with monkeypatch.context() as patch:
        patch.setattr(mean_field.MeanField, "step", None)
        fast = crf.inference(5)
    assert (fast.shape, fast.dtype) == ((classes, POINTS), np.float32)
    np.testing.assert_allclose(fast, general, atol=1e-5)


@pytest.mark.parametrize(
    ("weight", "width"),
    [(-1.0, 2), (3.0, (2, 3)), (3.0, 1e-5), (3.0, np.inf), (1e4, 2)],
    ids=["negative", "x, y", "narrow", "wide", "strong"],
)
def test_what_the_engine_for_images_does_not_know_is_computed_too(reference: Any, weight: float, width: Any) -> None:
    expected = np.array(standard_case(reference[0], 5, weight, width).inference(3))
    np.testing.assert_allclose(standard_case(ours, 5, weight, width).inference(3), expected, atol=1e-4)


def test_infinite_energies_forbid_a_label(reference: Any) -> None:
    results = []
    for module in (ours, reference[0]):
        crf = standard_case(module, 3)
        energies = np.ones((3, POINTS), np.float32)
        energies[1, ::3] = np.inf
        crf.setUnaryEnergy(energies)
        results.append(np.array(crf.inference(3)))
    assert results[0][1, ::3].max() < 1e-20
    np.testing.assert_allclose(*results, atol=1e-5)


def test_the_map_is_the_most_probable_label() -> None:
    crf = standard_case(ours, 5)
    labels = crf.map(3)
    assert labels.dtype == np.int16
    assert np.array_equal(labels, crf.inference(3).argmax(axis=0))


def test_without_energies() -> None:
    """As in pydensecrf: without unary energies all labels are alike, but the first beliefs of a step are zeros."""
    crf = ours.DenseCRF(6, 3)
    np.testing.assert_allclose(crf.inference(2), 1 / 3, rtol=1e-6)
    beliefs, *_ = crf.startInference()
    assert beliefs.shape == (3, 6)
    assert not beliefs.any()
    crf.setUnaryEnergy(np.log(np.float32([[1] * 6, [2] * 6, [5] * 6])))
    expected = np.array([10, 5, 2])[:, None] / 17
    for result in (crf.startInference()[0], crf.inference(0), crf.inference(3)):
        np.testing.assert_allclose(result, np.broadcast_to(expected, (3, 6)), rtol=1e-5)


def test_unary_objects() -> None:
    weights, features = np.float32([[1, 2], [3, 4], [0, 1]]), np.float32([[0, 1, 2, 1], [1, 0, 1, 2]])
    results = []
    for unary in (ours.LogisticUnary(weights, features), ours.ConstUnary(weights @ features)):
        crf = ours.DenseCRF(4, 3)
        crf.setUnary(unary)
        results.append(crf.inference(1))
    crf.setUnaryEnergy(np.ascontiguousarray(weights @ features), np.eye(4, dtype=np.float32))
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(crf.inference(1), results[0])


def test_what_is_given_is_copied_and_may_be_read_only() -> None:
    image, energies = programs.picture(), np.float32(np.random.default_rng(0).uniform(0, 3, (3, POINTS)))
    costs = np.float32([-2, -1, -3])
    given = (image, energies, costs)
    results = []
    for spoil in (False, True):
        for array in given:
            array.setflags(write=False)
        crf = ours.DenseCRF2D(programs.WIDTH, programs.HEIGHT, 3)
        crf.setUnaryEnergy(energies)
        crf.addPairwiseBilateral(20, 13, image, costs)
        if spoil:
            for array in given:
                array.setflags(write=True)
                array[:] = 0
        results.append(crf.inference(2))
    assert np.array_equal(*results)


FLAT = np.zeros((2, 12), np.float32)
IMAGE = np.zeros((3, 4, 3), np.uint8)
MISTAKES: list[tuple[Callable[[Any], object], type[Exception], str]] = [
    (lambda c: c.setUnaryEnergy(FLAT.astype(np.float64)), ValueError, "expected 'float' but got 'double'"),
    (lambda c: c.setUnaryEnergy(FLAT.astype(np.int64)), ValueError, "expected 'float' but got 'long'"),
    (lambda c: c.setUnaryEnergy(np.asfortranarray(FLAT)), ValueError, "ndarray is not C-contiguous"),
    (lambda c: c.setUnaryEnergy(FLAT[:, :11].copy()), ValueError, r"unary energy \(Need \(2, 12\), got \(2, 11\)\)"),
    (lambda c: c.setUnaryEnergy(FLAT.reshape(2, 3, 4)), ValueError, r"dimensions \(expected 2, got 3\)"),
    (lambda c: c.setUnaryEnergy(None), TypeError, "Argument 'u' must not be None"),
    (lambda c: c.setUnaryEnergy([[1.0]]), TypeError, "a bytes-like object is required, not 'list'"),
    (lambda c: c.setUnary(FLAT), TypeError, "Argument 'u' has incorrect type"),
    (lambda c: c.addPairwiseGaussian(3, np.ones((2, 2, 2), np.float32)), ValueError, "dimension >2 not meaningful"),
    (lambda c: c.addPairwiseGaussian(3, np.ones((2, 2))), ValueError, "expected 'float' but got 'double'"),
    (lambda c: c.addPairwiseGaussian(3, [1, 2]), TypeError, "a bytes-like object is required, not 'list'"),
    (lambda c: c.addPairwiseBilateral(3, 3, IMAGE[:2].copy(), 3), ValueError, r"pairwise bilateral \(Need \(3, 4, 3\)"),
    (lambda c: c.addPairwiseBilateral(3, 3, IMAGE.repeat(2, 2), 3), ValueError, "only works for RGB images"),
    (lambda c: c.addPairwiseBilateral(3, 3, np.float32(IMAGE), 3), ValueError, "'unsigned char' but got 'float'"),
    (lambda c: c.addPairwiseBilateral(3, 3, IMAGE[..., 0].copy(), 3), ValueError, r"\(expected 3, got 2\)"),
    (lambda c: c.addPairwiseEnergy(FLAT[:, :11].copy(), 3), ValueError, r"Need \(\?, 12\), got \(2, 11\)"),
    (lambda c: c.addPairwiseEnergy(FLAT.astype(np.float64), 3), ValueError, "expected 'float' but got 'double'"),
    (lambda c: c.inference(niter=3), TypeError, "keyword"),
]  # fmt: skip


@pytest.mark.parametrize("mistake", range(len(MISTAKES)))
def test_mistakes_raise_what_the_reference_raises(mistake: int) -> None:
    call, kind, sentence = MISTAKES[mistake]
    with pytest.raises(kind, match=sentence):
        call(ours.DenseCRF2D(4, 3, 2))


def test_those_mistakes_are_the_references_own(reference: Any) -> None:
    for call, kind, sentence in MISTAKES:
        with pytest.raises(kind, match=sentence):
            call(reference[0].DenseCRF2D(4, 3, 2))


def test_what_the_reference_would_misread_is_refused() -> None:
    crf = ours.DenseCRF2D(4, 3, 2)
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: crf.addPairwiseGaussian(3, np.ones(3, np.float32)), r"compatibility \(Need \(2,\), got \(3,\)\)"),
        (lambda: crf.addPairwiseGaussian(3, np.ones((2, 3), np.float32)), r"Need \(2, 2\), got \(2, 3\)"),
        (lambda: crf.addPairwiseGaussian(0, 3), "widths must be above 0"),
        (lambda: crf.addPairwiseGaussian(3, np.nan), "compatibility must be finite"),
        (lambda: crf.addPairwiseGaussian(3, 3, normalization=7), "7 is not a valid NormalizationType"),
        (lambda: crf.addPairwiseEnergy(np.full_like(FLAT, np.nan), 3), "features must be finite"),
        (lambda: crf.addPairwiseEnergy(FLAT + np.float32(1e8), 3), "too far for float32: take larger widths"),
    ]
    for call, sentence in cases:
        with pytest.raises(ValueError, match=sentence):
            call()


def test_energies_from_labels() -> None:
    labels = np.array([[1, 2, 0], [3, 3, 1]])
    energies = utils.unary_from_labels(labels, 3, 0.7)
    assert energies.dtype == np.float32
    expected = np.full((3, 6), 0.15)
    expected[[0, 1, 2, 2, 0], [0, 1, 3, 4, 5]] = 0.7
    expected[:, 2] = 1 / 3
    np.testing.assert_allclose(np.exp(-energies), expected, rtol=1e-5)
    certain = utils.unary_from_labels(labels, 4, 0.7, zero_unsure=False)
    np.testing.assert_allclose(np.exp(-certain).sum(axis=0), 1, rtol=1e-5)
    assert np.array_equal(certain.argmin(axis=0), labels.ravel())
    with pytest.raises(AssertionError, match=r"`gt_prob must be in \(0,1\)"):
        utils.unary_from_labels(labels, 3, 1.0)


def test_energies_from_probabilities(caplog: pytest.LogCaptureFixture) -> None:
    given = np.array([[[1, 0.25]], [[0, 0.75]]])
    np.testing.assert_allclose(np.exp(-utils.unary_from_softmax(given)), [[1, 0.25], [1e-5, 0.75]], rtol=1e-5)
    mixed = utils.unary_from_softmax(given, scale=0.6)
    np.testing.assert_allclose(np.exp(-mixed), [[0.8, 0.35], [0.2, 0.65]], rtol=1e-5)
    with pytest.raises(AssertionError, match=r"`scale` needs to be in \(0,1\]"):
        utils.unary_from_softmax(given, scale=1.5)
    with caplog.at_level(logging.WARNING), np.errstate(divide="ignore"):
        assert np.isinf(utils.softmax_to_unary(given)[1, 0])
        assert np.array_equal(
            utils.compute_unary(np.array([1, 2]), 2, 0.6), utils.unary_from_labels(np.array([1, 2]), 2, 0.6)
        )
    assert "softmax_to_unary is deprecated, use unary_from_softmax instead" in caplog.text
    assert "compute_unary is deprecated, use unary_from_labels instead" in caplog.text


def test_features_of_any_dimension() -> None:
    volume = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    features = utils.create_pairwise_bilateral((1, 2, 4), 5, volume)
    assert (features.shape, features.dtype) == ((4, 24), np.float32)
    for n, place in enumerate(np.ndindex(2, 3, 4)):
        np.testing.assert_allclose(features[:, n], [place[0], place[1] / 2, place[2] / 4, n / 5], rtol=1e-6)
    assert np.array_equal(utils.create_pairwise_gaussian((1, 2, 4), (2, 3, 4)), features[:3])
    # Channels in the middle, a width each.
    colour = utils.create_pairwise_bilateral((1, 1), (2, 4, 8), volume, chdim=1)
    np.testing.assert_allclose(colour[2:, 5], [volume[1, 0, 1] / 2, volume[1, 1, 1] / 4, volume[1, 2, 1] / 8])
    assert volume[1, 2, 3] == 23


def test_functions_equal_the_references(reference: Any) -> None:
    labels, planes, image = programs.annotation(), programs.probabilities(), programs.picture()
    for call in (
        lambda u: u.unary_from_labels(labels, 3, 0.6),
        lambda u: u.unary_from_labels(labels, 4, 0.6, zero_unsure=False),
        lambda u: u.unary_from_softmax(planes),
        lambda u: u.unary_from_softmax(planes, 0.8, None),
        lambda u: u.create_pairwise_gaussian((3, 2), image.shape[:2]),
        lambda u: u.create_pairwise_bilateral((3, 2), (9, 8, 7), image, 2),
        lambda u: u.create_pairwise_bilateral((3, 2), 9, image[..., 0]),
    ):
        expected, found = call(reference[1]), call(utils)
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
