"""The plan of a run, which the driver gives to every worker, and the division of a batch over workers."""

from dataclasses import dataclass

from deeplab_ray.config.recipe import Recipe
from deeplab_ray.config.resources import TrainingResources
from deeplab_ray.errors import UserError
from deeplab_ray.runs import Provenance
from deeplab_ray.shards import Split
from deeplab_ray.storage.location import Location


@dataclass(frozen=True)
class RunPlan:
    """The plan of a run, as every worker gets it; small and picklable."""

    run: Provenance
    train: Split
    validation: Split | None
    output: Location

    @property
    def recipe(self) -> Recipe:
        """The run's recipe."""
        return self.run.recipe

    @property
    def resources(self) -> TrainingResources:
        """The run's resources."""
        return self.run.resources

    @property
    def share(self) -> int:
        """Number of crops of a batch that one worker sees."""
        return self.recipe.solver.batch // self.resources.workers

    @property
    def micro_batch(self) -> int:
        """Number of crops in one forward pass of one worker."""
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
