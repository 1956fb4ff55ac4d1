"""The reference: Krähenbühl's C++ code through pydensecrf (PyPI: pydensecrf2)."""

import importlib.util

import numpy as np
from numpy.typing import NDArray

from deeplab_ray.config import CRFParams
from deeplab_ray.errors import UserError

# −log of a probability is clamped here, as the original does, so that a certain network can be overruled.
_SMALLEST = 1e-5


def require() -> None:
    """UserError, saying what to install, where pydensecrf is missing."""
    if importlib.util.find_spec("pydensecrf") is None:
        raise UserError("pydensecrf is not installed: pip install 'deeplab-ray[pydensecrf]' (it needs a C++ compiler)")


def refine(image: NDArray[np.uint8], probabilities: NDArray[np.float32], params: CRFParams) -> NDArray[np.float32]:
    """image uint8 H×W×3, probabilities float32 C×H×W → float32 C×H×W; inputs are taken as checked."""
    from pydensecrf import densecrf

    classes, height, width = probabilities.shape
    crf = densecrf.DenseCRF2D(width, height, classes)
    unary = -np.log(np.clip(probabilities, _SMALLEST, 1.0))
    crf.setUnaryEnergy(np.ascontiguousarray(unary.reshape(classes, -1), dtype=np.float32))
    # A weight of 0 switches a kernel off; the library itself would still filter with it.
    if params.w2:
        crf.addPairwiseGaussian(sxy=params.sigma_gamma, compat=params.w2)
    if params.w1:
        crf.addPairwiseBilateral(
            sxy=params.sigma_alpha,
            srgb=params.sigma_beta,
            rgbim=np.require(image, requirements=["C", "W"]),
            compat=params.w1,
        )
    refined = np.array(crf.inference(params.crf_iterations), dtype=np.float32)
    return refined.reshape(classes, height, width)
