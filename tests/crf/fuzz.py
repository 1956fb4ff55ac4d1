"""Random calls of pydensecrf's interface: points on grids of one to three dimensions, with one to twelve channels."""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from deeplab_ray.crf.lattice import elevation

SHORT = 30_000
"""pydensecrf keeps a vertex's coordinates as 16-bit numbers, which run over a little further out."""
_MOST_POINTS = 1500


@dataclass(frozen=True)
class Call:
    """Energies float32 C×N, and for each kernel its features D×N, compatibility and normalisation."""

    energies: np.ndarray
    kernels: list[tuple[np.ndarray, Any, int]]
    iterations: int

    @property
    def reach(self) -> float:
        """Upper bound on the coordinates of points on the lattices' planes."""
        return max(_reach(features) for features, _, _ in self.kernels)

    def beliefs(self, densecrf: ModuleType) -> np.ndarray:
        """What an implementation of the interface makes of it."""
        classes, points = self.energies.shape
        crf = densecrf.DenseCRF(points, classes)
        crf.setUnaryEnergy(self.energies)
        for features, compat, normalisation in self.kernels:
            crf.addPairwiseEnergy(features, compat, normalization=densecrf.NormalizationType(normalisation))
        return np.array(crf.inference(self.iterations))


def _reach(features: np.ndarray) -> float:
    scaled = elevation(len(features)) * np.abs(features).max(axis=1).astype(float)
    return float((scaled * np.arange(1, len(features) + 1)).max() + scaled.sum())


def random_call(seed: int) -> Call:
    """Sides of 1 to 300 points, 2 to 300 classes; widths, images and energies of any kind, the degenerate included."""
    rng = np.random.default_rng(seed)
    axes = int(rng.integers(1, 4))
    shape = (2 ** rng.uniform(0, np.log2(300), axes)).astype(int)
    while shape.prod() > _MOST_POINTS:
        shape[shape.argmax()] //= 2
    points = int(shape.prod())
    classes = int(2 ** rng.uniform(1, np.log2(300)))
    scale = rng.choice([0, 0.1, 3, 100, 1e6])
    energies = (scale * rng.normal(size=(classes, points))).astype(np.float32)
    kernels = []
    for _ in range(int(rng.integers(1, 4))):
        places = np.indices(tuple(shape)).reshape(axes, -1) / 10 ** rng.uniform(-3, 3, (axes, 1))
        channels = rng.choice([0, 1, 255, 65535]) * rng.random((int(rng.integers(1, 13)), points))
        # Flat, saturated, of a few values, or any.
        kind = rng.integers(4)
        channels = [0 * channels, np.round(channels / (channels.max() + 1)), np.round(channels), channels][kind]
        channels = channels / 10 ** rng.uniform(-2, 4, (len(channels), 1))
        features = places if rng.random() < 0.3 else np.concatenate([places, channels])
        matrix = rng.uniform(-0.5, 2, (classes, classes))
        compat = [float(rng.uniform(-1, 5)), rng.uniform(-3, 1, classes), matrix][int(rng.choice(3, p=[0.6, 0.2, 0.2]))]
        normalisation = int(rng.integers(4))
        # Without a normalisation, messages grow with the number of points.
        compat = compat * (0.02 if normalisation == 0 else 1)
        kernels.append(
            (features.astype(np.float32), compat if np.ndim(compat) == 0 else np.float32(compat), normalisation)
        )
    return Call(energies, kernels, int(rng.integers(1, 4)))
