"""What a checkpoint says of itself, without PyTorch if its network is one of ours."""

from importlib import import_module

from deeplab_ray.errors import UserError
from deeplab_ray.runs import CheckpointMeta
from deeplab_ray.runs import read_meta as read
from deeplab_ray.storage.location import Location


def read_meta(location: Location) -> CheckpointMeta:
    """Read the checkpoint.json at `location`; see `runs.read_meta`.

    Options of networks that are not in `models.configs` are known once those, and PyTorch with them, are imported.
    """
    try:
        return read(location)
    except UserError:
        import_module("deeplab_ray.models.networks")
        return read(location)
