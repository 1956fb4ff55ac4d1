"""What is wrong with a request can be told before Ray starts and PyTorch is imported."""

from deeplab_ray.errors import UserError
from deeplab_ray.shards import open_split, require_labels
from deeplab_ray.storage.location import check_access, locate

# Of a checkpoint, and of a training run that has one: see `deeplab_ray.models.checkpoint`.
_SIGNS = ("checkpoint.json", "checkpoint_manager_snapshot.json")


def check_inputs(checkpoint: str, data: str, split: str) -> None:
    """Raise UserError where there is no checkpoint or no such split, or the split has no labelled pixel."""
    place = locate(checkpoint)
    check_access(place, locate(data))
    if not any((place / name).exists() for name in _SIGNS):
        raise UserError(f"no checkpoint at {checkpoint}: give the folder of a checkpoint (ckpt_…) or of a training run")
    require_labels(open_split(data, split))


def check_search_size(images: int) -> None:
    """Raise UserError unless a search has images to search on."""
    if images < 1:
        raise UserError(f"--images {images} leaves nothing to search on: take at least 1, such as 100")
