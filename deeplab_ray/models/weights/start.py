"""What weights a network may be told to start from: names and files. No PyTorch is needed to ask."""

from deeplab_ray.config.network import NetworkConfig
from deeplab_ray.errors import UserError
from deeplab_ray.storage.location import locate

DOWNLOADS = {"torchvision": "IMAGENET1K_V1", "torchvision-features": "IMAGENET1K_FEATURES"}
"""Weights that torchvision publishes, and its names for them."""
KINDS = "a .pth state dict, a .caffemodel or a checkpoint"
STAGES = {
    "coco": "a network trained on COCO: a checkpoint, or what jobs/import_weights.py made of its file",
    "fcn32s": "a trained FCN-32s, such as preset voc11-fcn32s gives",
    "fcn16s": "a trained FCN-16s, such as preset voc11-fcn16s gives",
}
"""What a preset starts from that nobody can download for it."""


def is_file(weights: str) -> bool:
    """Whether these weights are a path or URI, not a name."""
    return weights != "random" and weights not in DOWNLOADS and weights not in STAGES


def check_start(config: NetworkConfig) -> None:
    """Raise UserError, before anything is loaded, for weights that have to be named, or that are not where they should
    be."""
    if config.weights in STAGES:
        raise UserError(f"this preset starts from {STAGES[config.weights]}: name it with --weights")
    if is_file(config.weights) and not locate(config.weights).exists():
        raise UserError(
            f"no weights at {config.weights}: give the path of a .pth state dict, .caffemodel or checkpoint"
        )
