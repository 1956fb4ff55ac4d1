"""The CRF's interface: parameters in, probabilities to refined probabilities."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deeplab_ray.config import CRFParams
from deeplab_ray.crf import pydensecrf_backend

Backend = Literal["pydensecrf"]
_SUM_TOLERANCE = 1e-3


class DenseCRF:
    """Mean field in the fully connected CRF with Potts compatibility.

    `DenseCRF(CRFParams(...)).refine(image, probabilities)`. Backend "pydensecrf" is the reference
    implementation (extra `pydensecrf`); UserError when it is not installed.
    """

    def __init__(self, params: CRFParams, backend: Backend = "pydensecrf") -> None:
        if backend != "pydensecrf":
            raise ValueError(f"unknown CRF backend {backend!r}: choose 'pydensecrf'")
        pydensecrf_backend.require()
        self.params = params

    def refine(self, image: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """image uint8 RGB H×W×3, probabilities float32 C×H×W → refined probabilities float32 C×H×W.

        Raises ValueError for shapes that do not match, an image that is not uint8, values that are not finite
        or negative, and probabilities that do not sum to one within 1e-3.
        """
        _check(image, probabilities)
        return pydensecrf_backend.refine(image, probabilities, self.params)


def _check(image: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"the image must be uint8 H×W×3, not {image.dtype} {image.shape}")
    if probabilities.ndim != 3 or probabilities.shape[1:] != image.shape[:2] or probabilities.shape[0] < 2:
        raise ValueError(
            f"probabilities must be C×H×W with C ≥ 2 and the image's size {image.shape[:2]}, not {probabilities.shape}"
        )
    if not np.isfinite(probabilities).all() or probabilities.min() < 0:
        raise ValueError("probabilities must be finite and not negative")
    worst = float(np.abs(probabilities.sum(axis=0) - 1).max())
    if worst > _SUM_TOLERANCE:
        raise ValueError(f"probabilities must sum to one at every pixel; the sum is off by up to {worst:.3g}")
