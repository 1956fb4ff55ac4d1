"""The CRF over points, images of any channels and volumes, beside exact mean field and pydensecrf."""

import pickle
from typing import Any

import numpy as np
import pytest
from fields import random_case, scene, softmax

from deeplab_ray.crf import (
    CRFParams,
    DenseCRF,
    GridCRF,
    Kernel,
    Outcome,
    PointCRF,
    bilateral_kernel,
    entropy,
    spatial_kernel,
)
from deeplab_ray.crf.grid_kernels import equation_3
from deeplab_ray.crf.kernel import Normalisation


def exact_kernel(kernel: Kernel) -> np.ndarray:
    """N×N, float64: the kernel of every pair of points, normalised."""
    features = kernel.features.astype(float)
    values = np.exp(-((features[:, :, None] - features[:, None]) ** 2).sum(0) / 2)
    sums = values.sum(1)
    left, right = {"symmetric": (0.5, 0.5), "before": (0, 1), "after": (1, 0)}[kernel.normalisation]
    return kernel.weight * values / sums[:, None] ** left / sums**right


def exact_costs(kernel: Kernel, classes: int) -> np.ndarray:
    given = kernel.compatibility
    if given is None:
        return -np.eye(classes)
    return -np.diag(given) if given.ndim == 1 else given.astype(float)


def exact_beliefs(kernels: list[Kernel], probabilities: np.ndarray, iterations: int) -> np.ndarray:
    """Mean field over every pair of points, float64."""
    flat = probabilities.reshape(len(probabilities), -1).astype(float)
    scores = np.log(np.clip(flat, 1e-5, 1))
    q = softmax(scores)
    for _ in range(iterations):
        q = softmax(scores - sum(exact_costs(k, len(q)) @ q @ exact_kernel(k).T for k in kernels))
    return q.reshape(probabilities.shape)


def some_points(dimensions: int, points: int = 250, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Two clouds of points, and undecided probabilities that lean towards the right one."""
    rng = np.random.default_rng(dimensions)
    second = np.arange(points) % 2
    features = rng.normal(size=(dimensions, points)) + 3 * second / np.sqrt(dimensions)
    scores = rng.normal(size=(classes, points))
    scores[0] += 1 - second
    scores[1] += second
    return features, softmax(scores).astype(np.float32)


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4])
@pytest.mark.parametrize("normalisation", ["symmetric", "before", "after"])
def test_points_are_near_exact_mean_field(dimensions: int, normalisation: Normalisation) -> None:
    features, probabilities = some_points(dimensions)
    kernels = [
        Kernel(features, 3, normalisation=normalisation),
        Kernel(features[:1] / 2, 1, compatibility=[[0, 2, 1], [2, 0, 1], [1, 1, 0]], normalisation=normalisation),
    ]
    found = PointCRF(kernels, 5).refine(probabilities)
    exact = exact_beliefs(kernels, probabilities, 5)
    # The lattice only approximates Gaussians: measured were 0.011 on average at most, and 0.97 of the labels.
    assert np.abs(found - exact).mean() < 0.02
    assert (found.argmax(0) == exact.argmax(0)).mean() > 0.95
    # The CRF itself moves beliefs by 0.18 to 0.24.
    assert np.abs(exact - probabilities).mean() > 0.15


def test_without_a_normalisation_a_crowd_weighs_more_than_a_loner() -> None:
    places = np.concatenate([np.linspace(-1, 1, 99), [30]])
    probabilities = np.repeat(np.float32([[0.4], [0.6]]), 100, axis=1)
    found = PointCRF([Kernel(places[None], 0.1, normalisation="none")], 1).refine(probabilities)[1, [49, 99]]
    message = 0.1 * 0.2 * np.array([np.exp(-(places[:99] ** 2) / 2).sum(), 1])
    # 0.89 and 0.60; the lattice's response falls short of the Gaussians' sum by a tenth and a quarter.
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-message) * 4 / 6), atol=0.02)


@pytest.mark.parametrize("compatibility", [None, [1, 0.5, 2, 0, 1], 1 - np.eye(5)])
def test_an_images_kernels_give_what_its_own_engine_gives(compatibility: Any) -> None:
    image, probabilities = scene(5, 20, 31)
    params = CRFParams()
    expected = DenseCRF(params, compatibility=compatibility, tolerance=0).refine(image, probabilities)
    kernels = equation_3(params, image, channel_axis=-1, compatibility=compatibility)
    np.testing.assert_allclose(PointCRF(kernels).refine(probabilities), expected, atol=1e-5)


def test_any_number_of_classes_compiles_the_same_functions() -> None:
    from deeplab_ray.crf import point_kernels

    features, _ = some_points(2, 40)
    for classes in (2, 3, 7, 16, 17, 33, 100, 150):
        probabilities = np.full((classes, 40), 1 / classes, np.float32)
        refined = PointCRF([Kernel(features)], 1).refine(probabilities)
        np.testing.assert_allclose(refined, 1 / classes, atol=1e-6)
    assert len(point_kernels.splat.signatures) <= 3


def test_grids_of_any_kind_are_near_exact_mean_field() -> None:
    rng = np.random.default_rng(0)
    params = CRFParams(w1=4, sigma_alpha=6, sigma_beta=30, w2=2, sigma_gamma=2, iterations=5)
    for shape, channels, kind, options in (
        ((14, 15), (), np.uint8, {}),
        ((14, 15), (), np.float64, {}),
        ((14, 15), (4,), np.uint16, {"channel_axis": -1}),
        ((4, 7, 8), (), np.int16, {"spacing": (5, 1, 1)}),
        ((3, 6, 7), (2,), np.float32, {"channel_axis": 3, "spacing": (0.5, 1, 2)}),
    ):
        left = np.indices(shape)[-1] < shape[-1] // 2
        image = np.where(left.reshape(*shape, *(1 for _ in channels)), 50, 150) + rng.normal(0, 8, (*shape, *channels))
        scores = rng.normal(size=(3, *shape))
        scores[0] += left
        scores[1] += ~left
        probabilities = softmax(scores).astype(np.float32)
        crf = GridCRF(params, **options)  # type: ignore[arg-type]
        found = crf.refine(image.astype(kind), probabilities)
        exact = exact_beliefs(equation_3(params, image.astype(kind), **options), probabilities, 5)  # type: ignore[arg-type]
        assert found.shape == probabilities.shape
        assert np.abs(found - exact).mean() < 0.015, (shape, kind)
        assert np.array_equal(crf.labels(image.astype(kind), probabilities), found.argmax(axis=0))


def test_spacing_and_widths_have_one_unit() -> None:
    """Slices 5 mm apart: what is 5 voxels away within a slice is one voxel away across."""
    positions = spatial_kernel((3, 4, 5), (10, 4, 2), spacing=(5, 1, 0.5)).features.reshape(3, 3, 4, 5)
    np.testing.assert_allclose(positions[:, 2, 3, 4], [4 * 0.5 / 2, 3 / 4, 2 * 5 / 10])
    volume = np.random.default_rng(0).random((3, 4, 5)).astype(np.float32)
    same = [bilateral_kernel(volume, 6 * unit, 0.1, spacing=np.multiply(unit, (5, 1, 1))).features for unit in (1, 4)]  # type: ignore[arg-type]
    np.testing.assert_allclose(*same, rtol=1e-6)


def test_a_volume_equals_the_reference() -> None:
    densecrf = pytest.importorskip("pydensecrf.densecrf", reason="the extra 'pydensecrf' is not installed")
    from pydensecrf import utils

    rng = np.random.default_rng(0)
    volume = rng.integers(0, 3000, (5, 9, 8)).astype(np.uint16)
    probabilities = softmax(rng.normal(size=(4, 5, 9, 8))).astype(np.float32)
    found = GridCRF(CRFParams(4, 6, 800, 2, 3, 5), spacing=(5, 1, 1)).refine(volume, probabilities)
    # x, y, z for its z, y, x.
    reference = densecrf.DenseCRF(volume.size, 4)
    mirror = volume.transpose(2, 1, 0)
    order = np.arange(volume.size).reshape(volume.shape).transpose(2, 1, 0).ravel()
    unary = np.ascontiguousarray(utils.unary_from_softmax(probabilities)[:, order])
    reference.setUnaryEnergy(unary)
    reference.addPairwiseEnergy(utils.create_pairwise_gaussian((3, 3, 3 / 5), mirror.shape), 2)
    reference.addPairwiseEnergy(utils.create_pairwise_bilateral((6, 6, 6 / 5), 800, mirror), 4)
    expected = np.array(reference.inference(5))
    np.testing.assert_allclose(found.reshape(4, -1)[:, order], expected, atol=1e-5)


@pytest.mark.parametrize("points", [1, 50])
def test_beliefs_after_each_iteration(points: int) -> None:
    features, probabilities = some_points(2, points, classes=4)
    kernel = Kernel(features, 2)
    seen: list[tuple[int, np.ndarray]] = []
    PointCRF([kernel], 4).refine(probabilities, on_iteration=lambda number, beliefs: seen.append((number, beliefs)))
    assert [number for number, _ in seen] == [1, 2, 3, 4]
    for number, beliefs in seen:
        assert np.array_equal(beliefs, PointCRF([kernel], number).refine(probabilities))


def test_an_ordinary_image_goes_to_the_faster_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    image, probabilities = scene(5, 20, 31)
    expected = DenseCRF(CRFParams()).refine(image, probabilities)
    planar = np.ascontiguousarray(image.transpose(2, 0, 1))
    monkeypatch.setattr(PointCRF, "refine", None)
    assert np.array_equal(GridCRF(CRFParams(), channel_axis=-1).refine(image, probabilities), expected)
    assert np.array_equal(GridCRF(CRFParams(), channel_axis=0).refine(planar, probabilities), expected)


def test_kernels_travel_without_their_lattice() -> None:
    features, probabilities = some_points(2)
    crf = PointCRF([Kernel(features, 2)], 3)
    expected = crf.refine(probabilities)
    sent = pickle.dumps(crf)
    assert len(sent) < 2 * features.size * 4
    assert np.array_equal(pickle.loads(sent).refine(probabilities), expected)


def test_bad_points_are_refused() -> None:
    features, probabilities = some_points(2)
    kernel = Kernel(features)
    cases: list[tuple[Any, str]] = [
        (lambda: Kernel(features[0]), "features must be D×N"),
        (lambda: Kernel(features[:, :0]), "at least one feature and one point"),
        (lambda: Kernel(features / 0), "features must be finite: is a width 0"),
        (lambda: Kernel(features * 1e7), "standard deviations from 0, too far for float32: take larger widths"),
        (lambda: Kernel(features, np.nan), "weight of a kernel must be finite"),
        (lambda: Kernel(features, normalisation="row"), "choose one of none, before, after, symmetric"),  # type: ignore[arg-type]
        (lambda: Kernel(features, compatibility=[[0, 1], [2, 0]]), "must be symmetric"),
        (lambda: PointCRF([]), "at least one kernel"),
        (lambda: PointCRF([kernel, Kernel(features[:, 1:])]), "all of them of the same points"),
        (lambda: PointCRF([kernel], 0), "iterations 0 must be at least 1"),
        (lambda: PointCRF([kernel]).refine(), "either probabilities or energies"),
        (lambda: PointCRF([kernel]).refine(probabilities[:, 1:]), "kernels' 250 points"),
        (lambda: PointCRF([kernel]).refine(probabilities[:1]), "C ≥ 2"),
        (lambda: PointCRF([kernel]).refine(probabilities * 2), "sum to one"),
        (lambda: PointCRF([kernel]).refine(energies=probabilities / 0), "energies must be finite"),
        (lambda: PointCRF([kernel]).refine(probabilities.astype(int)), "must be floating-point"),
        (lambda: PointCRF([Kernel(features, compatibility=[1, 1])]).refine(probabilities), "for 2 classes"),
        (lambda: spatial_kernel((3, 4), (1, 2, 3)), "one number or 2 widths, as there are 2 axes"),
        (lambda: spatial_kernel((3, 4), 1, spacing=0), "spacings must be above 0"),
        (lambda: GridCRF(CRFParams()).refine(np.zeros((3, 4), bool), probabilities), "not bool"),
        (lambda: GridCRF(CRFParams(), channel_axis=2).refine(np.zeros((3, 4)), probabilities), "has no axis 2"),
        (lambda: GridCRF(CRFParams()).refine(np.zeros((5, 4)), probabilities), r"image's grid \(5, 4\)"),
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        for call, sentence in cases:
            with pytest.raises(ValueError, match=sentence):
                call()


def test_observing_tells_which_classes_went() -> None:
    image, probabilities = scene(4, 30, 30)
    # One pixel of a class of its own, surrounded by a sure class; and a class that never was.
    probabilities[:] = 0.02
    probabilities[0] = 0.94
    probabilities[:, 15, 15] = (0.45, 0.02, 0.51, 0.02)
    params = CRFParams(3, 20, 13, 3, 2, 5)
    for outcome in (
        DenseCRF(params).observe(image, probabilities),
        GridCRF(params).observe(image[..., 0], probabilities),
        PointCRF(equation_3(params, image, channel_axis=-1), 5).observe(energies=-np.log(probabilities)),
    ):
        assert outcome.before.tolist() == [899, 0, 1, 0]
        assert outcome.after.tolist() == [900, 0, 0, 0]
        assert outcome.removed.tolist() == [False, False, True, False]
        assert outcome.labels.shape == outcome.entropy.shape == (30, 30)
        assert np.array_equal(outcome.labels, outcome.beliefs.argmax(axis=0))
        assert len(outcome.kl) == 6


def test_entropy_is_in_nats() -> None:
    given = np.float32([[1, 0.5, 0.25], [0, 0.5, 0.25], [0, 0, 0.5]])
    np.testing.assert_allclose(entropy(given), [0, np.log(2), 1.5 * np.log(2)], atol=1e-6)


def test_the_kl_divergence_falls_and_is_that_of_the_distribution() -> None:
    """By the sum over every labelling of six points, for a kernel that the lattice holds exactly: all points alike."""
    rng = np.random.default_rng(0)
    probabilities = softmax(rng.normal(size=(2, 6))).astype(np.float32)
    kernel = Kernel(np.zeros((1, 6)), 1.5)
    outcome: Outcome = PointCRF([kernel], 20).observe(probabilities)
    pairwise = exact_kernel(kernel)
    labellings = np.stack(np.unravel_index(np.arange(64), (2,) * 6))
    agree = labellings[:, None] == labellings
    energy = (-np.log(probabilities[labellings, np.arange(6)[:, None]])).sum(0)
    energy += -0.5 * (pairwise[..., None] * agree).sum((0, 1))
    log_z = np.log(np.exp(-energy).sum())
    for beliefs, kl in ((probabilities, outcome.kl[0]), (outcome.beliefs, outcome.kl[-1])):
        q = beliefs[labellings, np.arange(6)[:, None]].prod(0)
        # What a point does to itself is a constant of a labelling, but not of independent beliefs.
        own = 0.5 * (np.diag(pairwise) * (1 - (beliefs**2).sum(0))).sum()
        assert kl == pytest.approx((q * (np.log(q) + energy)).sum() + own, abs=1e-4)
        assert kl + log_z > 0
    assert outcome.kl[-1] < outcome.kl[0]


def test_the_kl_divergence_of_random_images_falls() -> None:
    for seed in range(5):
        image, probabilities, _, _ = random_case(seed)
        kl = DenseCRF(CRFParams(3, 49, 5, 3, 3)).observe(image[:40, :40], probabilities[:, :40, :40]).kl
        assert kl[-1] < kl[0]
        assert np.isfinite(kl).all()
