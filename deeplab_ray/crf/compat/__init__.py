"""pydensecrf's interface over this package's engines: change the import, and a script runs.

import deeplab_ray.crf.compat as dcrf                                             # for pydensecrf.densecrf
from deeplab_ray.crf.compat.utils import unary_from_softmax                       # for pydensecrf.utils

crf = dcrf.DenseCRF2D(width, height, classes)
crf.setUnaryEnergy(unary_from_softmax(probabilities))
crf.addPairwiseGaussian(sxy=3, compat=3)
crf.addPairwiseBilateral(sxy=80, srgb=13, rgbim=image, compat=10)
labels = np.argmax(crf.inference(5), axis=0).reshape(height, width)

Names, argument orders, shapes and errors are pydensecrf's; beliefs differ from its by rounding, by less than 1e-4 in
all that the tests try. Results are NumPy arrays where pydensecrf has matrices of its own. Where pydensecrf would read
past an array (a compatibility of another number of classes) or make no sense of a value (features that are not finite),
this raises ValueError. Read-only arrays are taken.
"""

from deeplab_ray.crf.compat import utils
from deeplab_ray.crf.compat.densecrf import (
    CONST_KERNEL,
    DIAG_KERNEL,
    FULL_KERNEL,
    NO_NORMALIZATION,
    NORMALIZE_AFTER,
    NORMALIZE_BEFORE,
    NORMALIZE_SYMMETRIC,
    ConstUnary,
    DenseCRF,
    DenseCRF2D,
    KernelType,
    LogisticUnary,
    NormalizationType,
    Unary,
)

__all__ = [
    "CONST_KERNEL",
    "DIAG_KERNEL",
    "FULL_KERNEL",
    "NORMALIZE_AFTER",
    "NORMALIZE_BEFORE",
    "NORMALIZE_SYMMETRIC",
    "NO_NORMALIZATION",
    "ConstUnary",
    "DenseCRF",
    "DenseCRF2D",
    "KernelType",
    "LogisticUnary",
    "NormalizationType",
    "Unary",
    "utils",
]
