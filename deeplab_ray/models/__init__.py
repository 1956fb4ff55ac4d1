"""The networks: trunks, the heads of the paper and FCN's, multi-scale inputs, and their weights."""

from deeplab_ray.models.grid import STRIDE, grid_size, labels_at_stride, pad_to_grid, upsample_scores
from deeplab_ray.models.networks.deeplab_v2 import DeepLab
from deeplab_ray.models.scoring import score_images
from deeplab_ray.models.trunks.resnet import calibrate_frozen_norms
from deeplab_ray.models.weights.load import build

__all__ = [
    "STRIDE",
    "DeepLab",
    "build",
    "calibrate_frozen_norms",
    "grid_size",
    "labels_at_stride",
    "pad_to_grid",
    "score_images",
    "upsample_scores",
]
