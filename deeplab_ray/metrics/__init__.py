"""How good a segmentation is: the confusion matrix and what is read off it."""

from deeplab_ray.metrics.confusion import confusion_matrix, iou, mean_iou, pixel_accuracy

__all__ = ["confusion_matrix", "iou", "mean_iou", "pixel_accuracy"]
