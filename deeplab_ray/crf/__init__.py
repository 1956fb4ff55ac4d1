"""The fully connected CRF of Krähenbühl & Koltun (NIPS 2011), as DeepLab uses it (section 3.4, equation 3).

from deeplab_ray.crf import PAPER_CRFS, CRFParams, DenseCRF

crf = DenseCRF(PAPER_CRFS["deeplab-v2-resnet101-voc12"])
probabilities = crf.refine(image, probabilities)  # uint8 H×W×3, float32 C×H×W → float32 C×H×W
"""

from deeplab_ray.crf.model import DenseCRF
from deeplab_ray.crf.params import PAPER_CRFS, CRFParams

__all__ = ["PAPER_CRFS", "CRFParams", "DenseCRF"]
