"""The fully connected CRF of Krähenbühl & Koltun (NIPS 2011), as DeepLab uses it (section 3.4, equation 3).

from deeplab_ray.crf import PAPER_CRFS, CRFParams, DenseCRF

crf = DenseCRF(PAPER_CRFS["deeplab-v2-resnet101-voc12"])
probabilities = crf.refine(image, probabilities)  # uint8 H×W×3, float32 C×H×W → float32 C×H×W

GridCRF takes images of any channels and volumes, PointCRF any points with any features; `compat` is pydensecrf's
interface.
"""

import importlib
from typing import TYPE_CHECKING, Any

from deeplab_ray.crf.model import DenseCRF
from deeplab_ray.crf.outcome import Outcome, entropy
from deeplab_ray.crf.params import PAPER_CRFS, CRFParams

if TYPE_CHECKING:
    from deeplab_ray.crf.grid import GridCRF
    from deeplab_ray.crf.grid_kernels import bilateral_kernel, spatial_kernel
    from deeplab_ray.crf.kernel import Kernel
    from deeplab_ray.crf.points import PointCRF

__all__ = [
    "PAPER_CRFS",
    "CRFParams",
    "DenseCRF",
    "GridCRF",
    "Kernel",
    "Outcome",
    "PointCRF",
    "bilateral_kernel",
    "entropy",
    "spatial_kernel",
]

# Imported when they are asked for, since they load Numba, which takes a second: configs import CRFParams alone.
_LATE = {
    "GridCRF": "grid",
    "Kernel": "kernel",
    "PointCRF": "points",
    "bilateral_kernel": "grid_kernels",
    "spatial_kernel": "grid_kernels",
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATE[name]}"), name)
