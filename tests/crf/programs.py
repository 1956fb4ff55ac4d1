"""Programs of pydensecrf's calls, for its modules and for ours; what it gave is stored for machines without it.

Inputs are made by whole-number arithmetic, equal on every machine.
"""

from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

FILE = Path(__file__).parents[1] / "reference" / "pydensecrf_programs.npz"
LEVELS = 65535
"""Beliefs are stored in steps of 1 / LEVELS."""
HEIGHT, WIDTH, CLASSES = 11, 14, 3
ITERATIONS = 4
FEATURES = ("image", "custom")
NORMALISATIONS = ("NO_NORMALIZATION", "NORMALIZE_BEFORE", "NORMALIZE_AFTER", "NORMALIZE_SYMMETRIC")
COMPATIBILITIES = {
    "number": 2.5,
    "vector": np.float32([-2, -1, -3]),
    "matrix": np.float32([[0, 2, 1], [3, 0, 2.5], [1, 1.5, -0.5]]),
}
COMBINATIONS = list(product(FEATURES, NORMALISATIONS, COMPATIBILITIES))


def picture() -> np.ndarray:
    """uint8 H×W×3: two regions and a texture."""
    y, x = np.indices((HEIGHT, WIDTH))
    texture = (7 * x + 5 * y + x * y) % 11
    return np.stack([60 + 120 * (x > 6) + texture, 200 - 90 * (y > 4) - texture, 90 + 3 * texture], 2).astype(np.uint8)


def annotation() -> np.ndarray:
    """int H×W: labels 1 to 3, and 0 where nobody knows."""
    y, x = np.indices((HEIGHT, WIDTH))
    return np.where((3 * x + y) % 4 == 0, 1 + (x > 6) + (y > 4) * (x > 6), 0)


def probabilities() -> np.ndarray:
    """float32 C×H×W."""
    y, x = np.indices((HEIGHT, WIDTH))
    whole = np.stack([(5 * x + 3 * y + 7 * c * x * y + c) % 13 + 4 * (c == (x > 6)) + 1 for c in range(CLASSES)])
    return (whole / whole.sum(axis=0)).astype(np.float32)


def one_call(
    densecrf: ModuleType, utils: ModuleType, features: str, normalisation: str, compat: str, kernel: int
) -> Any:
    """The model of `COMBINATIONS`: both kernels of an image, or features of one's own, of two and of six dimensions."""
    norm, cost = densecrf.NormalizationType[normalisation], COMPATIBILITIES[compat]
    cost = cost * np.float32(0.1) if normalisation == "NO_NORMALIZATION" else cost
    cost = cost if isinstance(cost, np.ndarray) else float(cost)
    kind = densecrf.KernelType(kernel)
    if features == "image":
        crf = densecrf.DenseCRF2D(WIDTH, HEIGHT, CLASSES)
        crf.addPairwiseGaussian(sxy=(2, 3), compat=cost, kernel=kind, normalization=norm)
        crf.addPairwiseBilateral(
            sxy=(20, 15), srgb=(13, 10, 20), rgbim=picture(), compat=cost, kernel=kind, normalization=norm
        )
    else:
        crf = densecrf.DenseCRF(WIDTH * HEIGHT, CLASSES)
        near = utils.create_pairwise_gaussian(sdims=(2, 3), shape=(HEIGHT, WIDTH))
        far = utils.create_pairwise_bilateral(sdims=(15, 20), schan=(13, 10, 20), img=picture(), chdim=2)
        depth = (np.arange(WIDTH * HEIGHT, dtype=np.float32) % 17 / np.float32(8))[None]
        crf.addPairwiseEnergy(near, compat=cost, kernel=kind, normalization=norm)
        crf.addPairwiseEnergy(np.concatenate([far, depth]), compat=cost, kernel=kind, normalization=norm)
    crf.setUnaryEnergy(utils.unary_from_softmax(probabilities()))
    return crf


def annotated_image(densecrf: ModuleType, utils: ModuleType, two_dimensional: bool) -> tuple[np.ndarray, list[float]]:
    """What pydensecrf's example does with a sparse annotation: labels, and the KL divergence as it falls."""
    image, energies = picture(), utils.unary_from_labels(annotation(), CLASSES, gt_prob=0.7, zero_unsure=True)
    if two_dimensional:
        crf = densecrf.DenseCRF2D(image.shape[1], image.shape[0], CLASSES)
        crf.setUnaryEnergy(energies)
        crf.addPairwiseGaussian(sxy=(3, 3), compat=3, kernel=densecrf.DIAG_KERNEL)
        crf.addPairwiseBilateral(sxy=(80, 80), srgb=(13, 13, 13), rgbim=image, compat=10)
    else:
        crf = densecrf.DenseCRF(image.shape[0] * image.shape[1], CLASSES)
        crf.setUnaryEnergy(energies)
        near = utils.create_pairwise_gaussian(sdims=(3, 3), shape=image.shape[:2])
        crf.addPairwiseEnergy(near, compat=3, kernel=densecrf.DIAG_KERNEL, normalization=densecrf.NORMALIZE_SYMMETRIC)
        far = utils.create_pairwise_bilateral(sdims=(80, 80), schan=(13, 13, 13), img=image, chdim=2)
        crf.addPairwiseEnergy(far, 10, densecrf.DIAG_KERNEL, densecrf.NORMALIZE_SYMMETRIC)
    labels = np.argmax(crf.inference(5), axis=0).reshape(image.shape[:2])
    beliefs, first, second = crf.startInference()
    falling = []
    for _ in range(5):
        falling.append(crf.klDivergence(beliefs))
        crf.stepInference(beliefs, first, second)
    assert np.array_equal(np.argmax(beliefs, axis=0), labels.ravel())
    return labels, falling


def stored() -> dict[str, np.ndarray]:
    """What pydensecrf gave: beliefs by combination, labels and divergences of the annotated image."""
    with np.load(FILE) as file:
        return dict(file)


def record(densecrf: ModuleType, utils: ModuleType) -> dict[str, np.ndarray]:
    """What FILE holds."""
    arrays = {}
    for combination in COMBINATIONS:
        beliefs = np.array(one_call(densecrf, utils, *combination, kernel=1).inference(ITERATIONS))
        arrays["/".join(combination)] = np.round(LEVELS * beliefs).astype(np.uint16)
    # Whether x or y comes first changes the lattice, and so the figures.
    for name, two_dimensional in (("2-D", True), ("features", False)):
        labels, falling = annotated_image(densecrf, utils, two_dimensional)
        arrays |= {f"{name}/labels": labels.astype(np.uint8), f"{name}/falling": np.array(falling)}
    return arrays
