"""Names and files of weights that a network can start from. This module needs no PyTorch."""

from deeplab_ray.config.network import NetworkConfig
from deeplab_ray.errors import UserError
from deeplab_ray.storage.location import locate

DOWNLOADS = {"torchvision": "IMAGENET1K_V1", "torchvision-features": "IMAGENET1K_FEATURES"}
"""Weights that torchvision publishes, and its names for them."""
KINDS = "a .pth state dict, a .caffemodel or a checkpoint"
"""Kinds of files of weights, for messages."""
STAGES = {
    "coco": "a network trained on COCO, such as preset coco-resnet101-aspp-msc-aug gives (train.py --list says how)",
    "fcn32s": "a trained FCN-32s, such as preset voc11-fcn32s gives",
    "fcn16s": "a trained FCN-16s, such as preset voc11-fcn16s gives",
}
"""Weights that a preset starts from, but that cannot be downloaded: the user has to name them."""


def is_file(weights: str) -> bool:
    """Return whether these weights are a path or URI, not a name."""
    return weights != "random" and weights not in DOWNLOADS and weights not in STAGES


def check_start(config: NetworkConfig) -> None:
    """Raise UserError, before anything is loaded, if the user still has to name the weights, or they do not exist."""
    if config.weights in STAGES:
        raise UserError(f"this preset starts from {STAGES[config.weights]}: name it with --weights")
    if is_file(config.weights) and not locate(config.weights).exists():
        raise UserError(f"no weights at {config.weights}: give the path of {KINDS}")
