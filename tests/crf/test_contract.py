"""What every backend of the CRF promises: one contract, run for each."""

import importlib.util
import pickle
import sys
from typing import get_args

import numpy as np
import pytest
from fields import exact_mean_field, scene, shaded_scene, softmax
from stored import LEVELS, Case, stored_cases

from deeplab_ray.crf import CRFParams, DenseCRF
from deeplab_ray.crf.model import Backend
from deeplab_ray.errors import UserError

PAPER = CRFParams()


@pytest.fixture(params=get_args(Backend))
def backend(request: pytest.FixtureRequest) -> Backend:
    if request.param != "numba" and importlib.util.find_spec(request.param) is None:
        pytest.skip({"torch": "PyTorch", "pydensecrf": "the extra 'pydensecrf'"}[request.param] + " is not installed")
    return request.param


def test_without_kernels_the_probabilities_come_back(backend: Backend) -> None:
    image, probabilities = scene()
    probabilities[:, 0, 0] = (1, 0, 0, 0)
    refined = DenseCRF(CRFParams(w1=0, w2=0), backend).refine(image, probabilities)
    clamped = np.clip(probabilities, 1e-5, 1)
    np.testing.assert_allclose(refined, clamped / clamped.sum(0), rtol=1e-4)


@pytest.mark.parametrize("classes", [2, 4, 21])
def test_result_is_a_distribution_and_inputs_stay(backend: Backend, classes: int) -> None:
    image, probabilities = scene(classes)
    before = image.copy(), probabilities.copy()
    image.setflags(write=False)
    probabilities.setflags(write=False)
    refined = DenseCRF(PAPER, backend).refine(image, probabilities)
    assert (refined.shape, refined.dtype) == (probabilities.shape, np.float32)
    assert refined.min() >= 0
    np.testing.assert_allclose(refined.sum(0), 1, atol=1e-5)
    assert np.array_equal(before[0], image)
    assert np.array_equal(before[1], probabilities)


@pytest.mark.parametrize("params", [PAPER, CRFParams(3, 30, 5, 0, 1, 3), CRFParams(0, 30, 5, 2, 3, 1)])
def test_equals_the_reference_called_by_hand(backend: Backend, params: CRFParams) -> None:
    densecrf = pytest.importorskip("pydensecrf.densecrf", reason="the extra 'pydensecrf' is not installed")
    from pydensecrf.utils import unary_from_softmax

    image, probabilities = scene(5, 20, 31)
    reference = densecrf.DenseCRF2D(31, 20, 5)
    reference.setUnaryEnergy(unary_from_softmax(probabilities))
    if params.w1:
        reference.addPairwiseBilateral(
            (params.sigma_alpha, params.sigma_alpha), (params.sigma_beta,) * 3, image.copy(), params.w1
        )
    if params.w2:
        reference.addPairwiseGaussian((params.sigma_gamma, params.sigma_gamma), params.w2)
    expected = np.array(reference.inference(params.iterations)).reshape(probabilities.shape)
    refined = DenseCRF(params, backend, tolerance=0).refine(image, probabilities)
    np.testing.assert_allclose(refined, expected, atol=1e-5)


@pytest.mark.parametrize("case", stored_cases(), ids=lambda case: case.name)
def test_equals_the_reference_as_it_was_stored(backend: Backend, case: Case) -> None:
    """For machines without pydensecrf; on others, the reference itself shows that the file is what it gives."""
    crf = DenseCRF(case.params, backend, compatibility=case.compatibility, tolerance=0)
    refined = crf.refine(case.image, case.probabilities)
    np.testing.assert_allclose(refined, case.beliefs, rtol=0, atol=1e-5 + 0.5 / LEVELS)


def test_without_its_package_the_reference_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    with pytest.raises(UserError, match=r"pip install 'deeplab-ray\[pydensecrf\]' \(it needs a C\+\+ compiler\)"):
        DenseCRF(PAPER, "pydensecrf")


def test_kernels_that_are_off_are_left_out(backend: Backend) -> None:
    image, probabilities = scene()
    other = np.ascontiguousarray(image[::-1, ::-1])
    spatial = DenseCRF(CRFParams(w1=0, w2=3, sigma_gamma=2), backend)
    assert np.array_equal(spatial.refine(image, probabilities), spatial.refine(other, probabilities))
    bilateral = DenseCRF(CRFParams(w2=0), backend)
    assert not np.array_equal(bilateral.refine(image, probabilities), bilateral.refine(other, probabilities))


@pytest.mark.parametrize(
    ("params", "mean", "largest"),
    [
        (CRFParams(4, 67, 3, 3, 1, 1), 0.009, 0.09),  # measured: 0.0044, 0.044; the CRF moves Q by 0.13 on average
        (CRFParams(4, 67, 3, 3, 1), 0.0005, 0.03),  # 0.0002, 0.014; 0.29
        (CRFParams(3, 20, 13, 0, 1), 0.004, 0.07),  # 0.0019, 0.035; 0.20
        (CRFParams(0, 1, 1, 3, 3), 0.007, 0.075),  # 0.0033, 0.037; 0.12
    ],
)
def test_is_near_exact_mean_field(backend: Backend, params: CRFParams, mean: float, largest: float) -> None:
    """The lattice only approximates the Gaussians; the bounds are twice what was measured on these images."""
    differences = []
    for seed in range(3):
        image, probabilities = scene(seed=seed)
        refined = DenseCRF(params, backend).refine(image, probabilities)
        differences.append(np.abs(refined - exact_mean_field(image, probabilities, params)))
    assert np.mean(differences) < mean
    assert np.max(differences) < largest


def test_single_pixels_may_tip(backend: Backend) -> None:
    """What the lattice's approximation does to images with shading: little on average, all to single pixels."""
    for seed in (0, 1):
        image, probabilities = shaded_scene(seed)
        refined = DenseCRF(PAPER, backend).refine(image, probabilities)
        exact = exact_mean_field(image, probabilities, PAPER)
        assert np.abs(refined - exact).mean() < 0.005  # measured: 0.0009 and 0.0023; the CRF moves them by 0.08
        assert (refined.argmax(axis=0) == exact.argmax(axis=0)).mean() > 0.98
        # If this fails, the approximation became better than DenseCRF's docstring says.
        assert np.abs(refined - exact).max() > 0.5


def test_more_iterations_go_on_from_fewer(backend: Backend) -> None:
    image, probabilities = scene()
    results = [DenseCRF(CRFParams(iterations=n), backend).refine(image, probabilities) for n in (1, 2, 10)]
    assert not np.allclose(results[0], results[1], atol=1e-3)
    assert not np.allclose(results[1], results[2], atol=1e-3)


def test_noise_goes_and_the_edge_stays(backend: Backend) -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros((48, 64), int)
    truth[:, 40:] = 1
    truth[20:28, 30:50] = 1
    image = np.where(truth[..., None] == 1, (200, 80, 60), (70, 110, 150)) + rng.integers(-8, 9, (48, 64, 3))
    scores = np.stack([truth == 0, truth == 1]) * 1.0 + rng.normal(scale=1.2, size=(2, 48, 64))
    probabilities = softmax(scores).astype(np.float32)
    before = (probabilities.argmax(0) == truth).mean()
    refined = DenseCRF(CRFParams(w1=4, sigma_alpha=30, sigma_beta=13, w2=3, sigma_gamma=1), backend).refine(
        image.astype(np.uint8), probabilities
    )
    assert before < 0.8
    assert (refined.argmax(0) == truth).mean() > 0.99


def test_relabelling_commutes(backend: Backend) -> None:
    image, probabilities = scene(6)
    order = np.array([3, 0, 5, 1, 4, 2])
    crf = DenseCRF(PAPER, backend)
    np.testing.assert_allclose(
        crf.refine(image, probabilities[order]), crf.refine(image, probabilities)[order], atol=1e-5
    )


def test_inputs_in_any_memory_layout(backend: Backend) -> None:
    image, probabilities = scene()
    crf = DenseCRF(PAPER, backend)
    expected = crf.refine(image, probabilities)
    channels_last = np.ascontiguousarray(probabilities.transpose(1, 2, 0)).transpose(2, 0, 1)
    assert np.array_equal(crf.refine(np.asfortranarray(image), channels_last), expected)
    mirrored = crf.refine(image[:, ::-1], probabilities[..., ::-1])
    assert np.array_equal(
        mirrored, crf.refine(np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(probabilities[..., ::-1]))
    )


@pytest.mark.parametrize(
    ("given", "cost"),
    [
        (np.ones(4), 1 - np.eye(4)),
        (1 - np.eye(4), 1 - np.eye(4)),
        ([1, 0.5, 2, 0], -np.diag([1, 0.5, 2, 0])),
        ([[0, 1, 2, 1], [1, 0, 1, 3], [2, 1, 0, 0.5], [1, 3, 0.5, 0]],) * 2,
    ],
)
def test_label_compatibilities_are_near_exact_mean_field(backend: Backend, given: np.ndarray, cost: np.ndarray) -> None:
    params = CRFParams(2, 20, 13, 1, 1, 5)
    image, probabilities = scene()
    refined = DenseCRF(params, backend, compatibility=given).refine(image, probabilities)
    difference = np.abs(refined - exact_mean_field(image, probabilities, params, np.asarray(cost)))
    # Measured: 0.005 on average, 0.03 at most; the CRF moves beliefs by 0.2 on average.
    assert difference.mean() < 0.01
    assert difference.max() < 0.08


def test_energies_are_negative_logarithms(backend: Backend) -> None:
    image, probabilities = scene()
    crf = DenseCRF(PAPER, backend)
    np.testing.assert_allclose(
        crf.refine(image, energies=3 - np.log(probabilities)), crf.refine(image, probabilities), atol=1e-5
    )


def test_labels_are_the_arg_max(backend: Backend) -> None:
    image, probabilities = scene(5, 20, 31)
    crf = DenseCRF(PAPER, backend)
    labels = crf.labels(image, probabilities)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, crf.refine(image, probabilities).argmax(axis=0))


def test_beliefs_after_each_iteration(backend: Backend) -> None:
    image, probabilities = scene()
    seen: list[tuple[int, np.ndarray]] = []
    refined = DenseCRF(CRFParams(iterations=3), backend).refine(
        image, probabilities, on_iteration=lambda number, beliefs: seen.append((number, beliefs))
    )
    assert [number for number, _ in seen] == [1, 2, 3]
    assert np.array_equal(seen[-1][1], refined)
    for number, beliefs in seen:
        expected = DenseCRF(CRFParams(iterations=number), backend).refine(image, probabilities)
        np.testing.assert_allclose(beliefs, expected, atol=1e-4)


def test_observing_is_the_same(backend: Backend) -> None:
    image, probabilities = scene(5, 20, 31)
    outcome = DenseCRF(PAPER, backend).observe(image, probabilities)
    assert np.array_equal(outcome.beliefs, DenseCRF(PAPER, backend).refine(image, probabilities))
    assert outcome.before.tolist() == np.bincount(probabilities.argmax(axis=0).ravel(), minlength=5).tolist()
    # The two regions of the image remain of five labels that each were somewhere.
    assert outcome.before.min() > 0
    assert outcome.removed.tolist() == [False, False, True, True, True]
    # Measured with every engine: from −521.01 to −1344.37 nats.
    np.testing.assert_allclose((outcome.kl[0], outcome.kl[-1]), (-521.01, -1344.37), atol=0.01)


def test_a_constant_image_leaves_the_spatial_kernel(backend: Backend) -> None:
    _, probabilities = scene(3, 20, 20)
    image = np.full((20, 20, 3), 128, np.uint8)
    bilateral = DenseCRF(CRFParams(3, 4, 10, 0, 1, 5), backend).refine(image, probabilities)
    exact = exact_mean_field(image, probabilities, CRFParams(0, 1, 1, 3, 4, 5))
    # Measured: 0.008 on average; a lattice of five dimensions is coarser than one of two.
    assert np.abs(bilateral - exact).mean() < 0.02


def test_one_object_takes_all_sizes_and_numbers_of_classes(backend: Backend) -> None:
    crf = DenseCRF(CRFParams(iterations=3), backend)
    for classes, height, width in [(4, 15, 13), (21, 9, 30), (2, 1, 7), (40, 5, 5), (4, 15, 13)]:
        image, probabilities = scene(classes, height, width)
        expected = DenseCRF(CRFParams(iterations=3), backend).refine(image, probabilities)
        assert np.array_equal(crf.refine(image, probabilities), expected)


def test_objects_travel(backend: Backend) -> None:
    image, probabilities = scene()
    crf = DenseCRF(PAPER, backend, compatibility=[1, 2, 1, 0.5])
    expected = crf.refine(image, probabilities)
    assert np.array_equal(pickle.loads(pickle.dumps(crf)).refine(image, probabilities), expected)


def test_one_pixel(backend: Backend) -> None:
    probabilities = np.array([0.3, 0.7], np.float32).reshape(2, 1, 1)
    refined = DenseCRF(PAPER, backend).refine(np.zeros((1, 1, 3), np.uint8), probabilities)
    assert refined[1] > 0.7
    np.testing.assert_allclose(refined.sum(0), 1, rtol=1e-5)


def test_bad_inputs_are_refused(backend: Backend) -> None:
    image, good = scene()
    crf = DenseCRF(PAPER, backend)
    nan, negative = good.copy(), good.copy()
    nan[0, 3, 3] = np.nan
    negative[:2, 3, 3] = -0.5, 0.5 + good[:2, 3, 3].sum()
    cases: list[tuple[np.ndarray, np.ndarray, str]] = [
        (image.astype(np.float32), good, "image must be uint8 H×W×3, not float32"),
        (image[..., 0], good, "image must be uint8 H×W×3"),
        (image[..., [0, 0, 0, 0]], good, "image must be uint8 H×W×3"),
        (image, good.transpose(1, 2, 0), "must be C×H×W"),
        (image, good[:, 1:], "the image's size"),
        (image, good[0], "must be C×H×W"),
        (image, np.ones((1, 15, 13), np.float32), "C ≥ 2"),
        (image, nan, "finite and not negative"),
        (image, negative, "finite and not negative"),
        (image, good * 1.01, r"sum to one at every pixel; the sum is off by up to 0\.01"),
        (image, np.log(good), "finite and not negative"),
    ]
    for bad_image, bad, sentence in cases:
        with pytest.raises(ValueError, match=sentence):
            crf.refine(bad_image, bad)
    with pytest.raises(ValueError, match="unknown CRF backend 'gpu'"):
        DenseCRF(PAPER, "gpu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="either probabilities or energies"):
        crf.refine(image)
    with pytest.raises(ValueError, match="energies must be finite"):
        crf.refine(image, energies=nan)
    with pytest.raises(ValueError, match="image is empty"):
        crf.refine(image[:0], good[:, :0])
    with pytest.raises(ValueError, match="must be floating-point"):
        crf.refine(image, good.astype(int))
    with pytest.raises(ValueError, match="at most 512"):
        crf.refine(image, np.full((513, 15, 13), 1 / 513, np.float32))
    with pytest.raises(ValueError, match="for 3 classes, the image has 4"):
        DenseCRF(PAPER, backend, compatibility=np.ones(3)).refine(image, good)
    with pytest.raises(ValueError, match="must be symmetric"):
        DenseCRF(PAPER, backend, compatibility=[[0, 1], [2, 0]])
    # It is as good as new after each of them.
    assert np.array_equal(crf.refine(image, good), DenseCRF(PAPER, backend).refine(image, good))
