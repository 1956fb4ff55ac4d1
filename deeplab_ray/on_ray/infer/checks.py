"""What is wrong with a request can be told before Ray starts and PyTorch is imported."""

from deeplab_ray import runs
from deeplab_ray.errors import UserError
from deeplab_ray.shards import open_split, require_labels
from deeplab_ray.storage.access import check_access
from deeplab_ray.storage.location import locate


def check_inputs(checkpoint: str, data: str, split: str) -> None:
    """Raise UserError if there is no checkpoint or no such split, or the split has no labelled pixel."""
    check_access(read=[locate(checkpoint), locate(data)])
    runs.find(checkpoint)
    require_labels(open_split(data, split))


def check_search_size(images: int) -> None:
    """Raise UserError unless a search has images to search on."""
    if images < 1:
        raise UserError(f"--images {images} leaves nothing to search on: take at least 1, such as 100")
