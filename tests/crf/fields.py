"""Images, probabilities and the exact answer, for the tests of the CRF."""

from typing import Any

import numpy as np

from deeplab_ray.crf import CRFParams


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


def shaded_scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A photo's kind of image, 28×34, with shading, texture and noise; blocks of 7×7 that prefer one of 11 classes."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:28, :34]
    image = np.stack([80 + 3 * x + 20 * np.sin(y / 3), 120 + 2 * y - x, 60 + 40 * np.sin((x + y) / 7)], 2)
    image += rng.integers(-3, 4, image.shape)
    scores = 2 * rng.normal(size=(11, 5, 6)).repeat(7, 1).repeat(7, 2)[:, :28, :34]
    scores += rng.normal(scale=0.3, size=(11, 28, 34))
    return np.clip(image, 0, 255).astype(np.uint8), softmax(scores).astype(np.float32)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=0))
    return e / e.sum(axis=0)


def random_case(seed: int) -> tuple[np.ndarray, np.ndarray, CRFParams, Any]:
    """Image, probabilities, parameters and compatibility, of anything that a user might come with."""
    rng = np.random.default_rng(seed)
    height, width = (int(n) for n in 2 ** rng.uniform(0, np.log2(200), 2))
    # Few widths of rows: each is compiled.
    classes = int(rng.choice([2, 3, 11, 16, 21, 40, 64]))
    noise = int(rng.choice([0, 3, 255]))
    image = rng.choice([0, 128, 255, 90], (height // 9 + 1, width // 9 + 1, 3)).repeat(9, 0).repeat(9, 1)
    image = np.clip(image[:height, :width] + rng.integers(-noise, noise + 1, (height, width, 3)), 0, 255)
    scores = rng.normal(scale=rng.choice([0.1, 3, 40]), size=(classes, height, width))
    probabilities = np.exp(scores - scores.max(axis=0))
    if rng.random() < 0.3:
        probabilities[probabilities < 0.1] = 0
    probabilities /= probabilities.sum(axis=0)
    params = CRFParams(
        float(rng.choice([0, 3, 5])),
        float(rng.choice([5, 49, 121])),
        float(rng.choice([1, 3, 10])),
        float(rng.choice([0, 3])),
        float(rng.choice([1, 3])),
        int(rng.integers(1, 11)),
    )
    matrix = np.float32(rng.uniform(0, 0.3, (classes, classes))) + np.float32(1)
    matrix = (matrix + matrix.T) / 2 * (1 - np.eye(classes, dtype=np.float32))
    compatibility = [None, rng.uniform(0.5, 1, classes), matrix][int(rng.choice(3, p=[0.6, 0.2, 0.2]))]
    return image.astype(np.uint8), probabilities.astype(np.float32), params, compatibility


def exact_mean_field(
    image: np.ndarray, probabilities: np.ndarray, p: CRFParams, cost: np.ndarray | None = None
) -> np.ndarray:
    """Equation 3 with every pair of pixels, float64; kernels normalised by D^-1/2 K D^-1/2, i = j included.

    cost: C×C, what a label costs beside another; None: Potts.
    """
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
    cost = 1 - np.eye(classes) if cost is None else cost
    q = softmax(log_unary)
    for _ in range(p.iterations):
        q = softmax(log_unary - cost @ q @ message)
    return q.reshape(probabilities.shape)
