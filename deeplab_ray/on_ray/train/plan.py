"""What the driver tells every worker."""

from dataclasses import dataclass

from deeplab_ray.config.recipe import Config
from deeplab_ray.shards import Split
from deeplab_ray.storage.location import Location


@dataclass(frozen=True)
class Job:
    """What every worker is told; small and picklable."""

    config: Config
    train: Split
    validation: Split | None
    output: Location
