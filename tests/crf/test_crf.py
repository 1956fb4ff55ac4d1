"""The CRF against pydensecrf called by hand, against exact mean field, and on what it is for."""

import numpy as np
import pytest

from deeplab_ray.crf import CRFParams, DenseCRF

pytest.importorskip("pydensecrf", reason="the extra 'pydensecrf' is not installed")

PAPER = CRFParams()


def scene(classes: int = 4, height: int = 15, width: int = 13, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A smooth image of two halves with noise, and undecided probabilities."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), (60, 90, 40), np.uint8)
    image[:, width // 2 :] = (190, 120, 160)
    image = (image + rng.integers(-6, 7, image.shape)).astype(np.uint8)
    scores = rng.normal(size=(classes, height, width))
    scores[0, :, : width // 2] += 1
    scores[1, :, width // 2 :] += 1
    return image, softmax(scores).astype(np.float32)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=0))
    return e / e.sum(axis=0)


def exact_mean_field(image: np.ndarray, probabilities: np.ndarray, p: CRFParams) -> np.ndarray:
    """Equation 3 with every pair of pixels, float64; kernels normalised by D^-1/2 K D^-1/2, i = j included."""
    classes, height, width = probabilities.shape
    y, x = (axis.ravel().astype(float) for axis in np.mgrid[:height, :width])
    space = (y[:, None] - y) ** 2 + (x[:, None] - x) ** 2
    colours = image.reshape(-1, 3).astype(float)
    colour = ((colours[:, None] - colours) ** 2).sum(-1)
    message = np.zeros_like(space)
    for weight, exponent in (
        (p.w1, space / (2 * p.sigma_alpha**2) + colour / (2 * p.sigma_beta**2)),
        (p.w2, space / (2 * p.sigma_gamma**2)),
    ):
        kernel = np.exp(-exponent)
        root = np.sqrt(kernel.sum(1))
        message += weight * kernel / root[:, None] / root
    log_unary = np.log(np.clip(probabilities.reshape(classes, -1).astype(float), 1e-5, 1))
    q = softmax(log_unary)
    for _ in range(p.crf_iterations):
        q = softmax(log_unary + q @ message)
    return q.reshape(probabilities.shape)


def test_without_kernels_the_probabilities_come_back() -> None:
    image, probabilities = scene()
    probabilities[:, 0, 0] = (1, 0, 0, 0)
    refined = DenseCRF(CRFParams(w1=0, w2=0)).refine(image, probabilities)
    clamped = np.clip(probabilities, 1e-5, 1)
    np.testing.assert_allclose(refined, clamped / clamped.sum(0), rtol=1e-4)


@pytest.mark.parametrize("classes", [2, 4, 21])
def test_result_is_a_distribution_and_inputs_stay(classes: int) -> None:
    image, probabilities = scene(classes)
    before = image.copy(), probabilities.copy()
    image.setflags(write=False)
    probabilities.setflags(write=False)
    refined = DenseCRF(PAPER).refine(image, probabilities)
    assert (refined.shape, refined.dtype) == (probabilities.shape, np.float32)
    assert refined.min() >= 0
    np.testing.assert_allclose(refined.sum(0), 1, atol=1e-5)
    assert np.array_equal(before[0], image)
    assert np.array_equal(before[1], probabilities)


@pytest.mark.parametrize("params", [PAPER, CRFParams(3, 30, 5, 0, 1, 3), CRFParams(0, 30, 5, 2, 3, 1)])
def test_equals_the_reference_called_by_hand(params: CRFParams) -> None:
    from pydensecrf import densecrf
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
    expected = np.array(reference.inference(params.crf_iterations)).reshape(probabilities.shape)
    np.testing.assert_allclose(DenseCRF(params).refine(image, probabilities), expected, atol=1e-5)


def test_kernels_that_are_off_are_left_out() -> None:
    image, probabilities = scene()
    other = np.ascontiguousarray(image[::-1, ::-1])
    spatial = DenseCRF(CRFParams(w1=0, w2=3, sigma_gamma=2))
    assert np.array_equal(spatial.refine(image, probabilities), spatial.refine(other, probabilities))
    bilateral = DenseCRF(CRFParams(w2=0))
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
def test_is_near_exact_mean_field(params: CRFParams, mean: float, largest: float) -> None:
    """The lattice only approximates the Gaussians; the bounds are twice what was measured on these images."""
    differences = []
    for seed in range(3):
        image, probabilities = scene(seed=seed)
        refined = DenseCRF(params).refine(image, probabilities)
        differences.append(np.abs(refined - exact_mean_field(image, probabilities, params)))
    assert np.mean(differences) < mean
    assert np.max(differences) < largest


def test_more_iterations_go_on_from_fewer() -> None:
    image, probabilities = scene()
    results = [DenseCRF(CRFParams(crf_iterations=n)).refine(image, probabilities) for n in (1, 2, 10)]
    assert not np.allclose(results[0], results[1], atol=1e-3)
    assert not np.allclose(results[1], results[2], atol=1e-3)


def test_noise_goes_and_the_edge_stays() -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros((48, 64), int)
    truth[:, 40:] = 1
    truth[20:28, 30:50] = 1
    image = np.where(truth[..., None] == 1, (200, 80, 60), (70, 110, 150)) + rng.integers(-8, 9, (48, 64, 3))
    scores = np.stack([truth == 0, truth == 1]) * 1.0 + rng.normal(scale=1.2, size=(2, 48, 64))
    probabilities = softmax(scores).astype(np.float32)
    before = (probabilities.argmax(0) == truth).mean()
    refined = DenseCRF(CRFParams(w1=4, sigma_alpha=30, sigma_beta=13, w2=3, sigma_gamma=1)).refine(
        image.astype(np.uint8), probabilities
    )
    assert before < 0.8
    assert (refined.argmax(0) == truth).mean() > 0.99


def test_relabelling_commutes() -> None:
    image, probabilities = scene(6)
    order = np.array([3, 0, 5, 1, 4, 2])
    crf = DenseCRF(PAPER)
    np.testing.assert_allclose(
        crf.refine(image, probabilities[order]), crf.refine(image, probabilities)[order], atol=1e-5
    )


def test_inputs_in_any_memory_layout() -> None:
    image, probabilities = scene()
    crf = DenseCRF(PAPER)
    expected = crf.refine(image, probabilities)
    channels_last = np.ascontiguousarray(probabilities.transpose(1, 2, 0)).transpose(2, 0, 1)
    assert np.array_equal(crf.refine(np.asfortranarray(image), channels_last), expected)
    mirrored = crf.refine(image[:, ::-1], probabilities[..., ::-1])
    assert np.array_equal(
        mirrored, crf.refine(np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(probabilities[..., ::-1]))
    )


def test_one_pixel() -> None:
    probabilities = np.array([0.3, 0.7], np.float32).reshape(2, 1, 1)
    refined = DenseCRF(PAPER).refine(np.zeros((1, 1, 3), np.uint8), probabilities)
    assert refined[1] > 0.7
    np.testing.assert_allclose(refined.sum(0), 1, rtol=1e-5)


def test_bad_inputs_are_refused() -> None:
    image, good = scene()
    crf = DenseCRF(PAPER)
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
    with pytest.raises(ValueError, match="unknown CRF backend 'numba'"):
        DenseCRF(PAPER, "numba")  # type: ignore[arg-type]
