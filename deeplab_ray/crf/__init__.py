"""The fully connected CRF of Krähenbühl & Koltun (NIPS 2011), as DeepLab uses it (section 3.4, equation 3)."""

from deeplab_ray.config import CRFParams
from deeplab_ray.crf.model import DenseCRF

__all__ = ["CRFParams", "DenseCRF"]
