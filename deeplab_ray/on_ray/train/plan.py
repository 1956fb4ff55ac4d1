"""What the driver tells every worker, and how a batch is divided over workers."""

from dataclasses import dataclass

from deeplab_ray.config.recipe import Recipe
from deeplab_ray.config.resources import TrainingResources
from deeplab_ray.errors import UserError
from deeplab_ray.runs import Provenance
from deeplab_ray.shards import Split
from deeplab_ray.storage.location import Location


@dataclass(frozen=True)
class RunPlan:
    """What every worker is told; small and picklable."""

    run: Provenance
    train: Split
    validation: Split | None
    output: Location

    @property
    def recipe(self) -> Recipe:
        """What is learned."""
        return self.run.recipe

    @property
    def resources(self) -> TrainingResources:
        """What it takes of the cluster."""
        return self.run.resources

    @property
    def share(self) -> int:
        """Crops of a batch that a worker sees."""
        return self.recipe.solver.batch // self.resources.workers

    @property
    def micro_batch(self) -> int:
        """Crops in one forward pass of one worker."""
        return self.share // self.resources.accumulation


def check_division(recipe: Recipe, resources: TrainingResources) -> None:
    """Raise UserError if the batch cannot be divided evenly over workers and accumulation steps."""
    batch, parts = recipe.solver.batch, resources.workers * resources.accumulation
    lower = max(parts, batch - batch % parts)
    if batch % parts:
        raise UserError(
            f"batch {batch} is not divisible by workers × accumulation = {resources.workers} × "
            f"{resources.accumulation}: take a batch of {lower} or {lower + parts}, or change --workers"
        )
