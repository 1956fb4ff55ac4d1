"""COCO as it was split in 2014: see `coco`."""

from deeplab_ray.datasets.coco import dataset

DATASET = dataset("coco14", 2014, {"train": 82783, "val": 40504})
