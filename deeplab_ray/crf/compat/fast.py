"""The way from pydensecrf's calls to the engine for images, for the energies that it knows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab_ray.crf.checks import MOST_CLASSES
from deeplab_ray.crf.model import DenseCRF
from deeplab_ray.crf.params import CRFParams


@dataclass(frozen=True)
class Isotropic:
    """A kernel of equation 3: one width in position, one in colour (or no colours), and a weight ≥ 0."""

    weight: float
    position: float
    colour: float | None
    image: NDArray[np.uint8] | None

    @classmethod
    def of(cls, widths: Any, colours: Any, image: NDArray[np.uint8] | None, weight: float) -> "Isotropic | None":
        """Return the kernel of these widths, or None if they differ, are infinite, or the weight is negative."""
        finite = np.isfinite((*widths, *colours, weight)).all()
        if len(set(widths)) != 1 or len(set(colours)) > 1 or not finite or weight < 0:
            return None
        return cls(weight, float(widths[0]), float(colours[0]) if len(colours) else None, image)


def refine(
    kernels: Sequence[Isotropic | None], energies: NDArray[np.float32], width: int, height: int, iterations: int
) -> NDArray[np.float32] | None:
    """Return the beliefs, float32 C×H·W; None if the engine for images does not know these energies."""
    near = [kernel for kernel in kernels if kernel and kernel.image is None]
    far = [kernel for kernel in kernels if kernel and kernel.image is not None]
    if len(near) + len(far) < len(kernels) or len(near) > 1 or len(far) > 1 or iterations < 1:
        return None
    classes = len(energies)
    if not kernels or not 2 <= classes <= MOST_CLASSES or not np.isfinite(energies).all():
        return None
    params = CRFParams(
        w1=far[0].weight if far else 0.0,
        sigma_alpha=far[0].position if far else 1.0,
        sigma_beta=far[0].colour or 1.0 if far else 1.0,
        w2=near[0].weight if near else 0.0,
        sigma_gamma=near[0].position if near else 1.0,
        iterations=iterations,
    )
    image = far[0].image if far else None
    pixels = np.zeros((height, width, 3), np.uint8) if image is None else image
    try:
        beliefs = DenseCRF(params, tolerance=0).refine(pixels, energies=energies.reshape(classes, height, width))
    except ValueError:
        # Its keys have 62 bits, which very small widths exceed; the engine for points has no such limit.
        return None
    return beliefs.reshape(classes, -1)
