"""How good a segmentation is: the confusion matrix, trimap bands, and what is read off them."""

from deeplab_ray.metrics.confusion import (
    class_accuracy,
    confusion_matrix,
    frequency_weighted_iou,
    iou,
    mean_class_accuracy,
    mean_iou,
    mean_iou_of_truth,
    pixel_accuracy,
)
from deeplab_ray.metrics.trimap import WIDTHS, boundary_distance, trimap_counts, trimap_iou

__all__ = [
    "WIDTHS",
    "boundary_distance",
    "class_accuracy",
    "confusion_matrix",
    "frequency_weighted_iou",
    "iou",
    "mean_class_accuracy",
    "mean_iou",
    "mean_iou_of_truth",
    "pixel_accuracy",
    "trimap_counts",
    "trimap_iou",
]
