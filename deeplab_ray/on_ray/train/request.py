"""What a training is asked for, and all that can be told about it before Ray starts, or PyTorch is imported."""

from dataclasses import dataclass

from deeplab_ray import runs
from deeplab_ray.config.recipe import Recipe
from deeplab_ray.config.resources import TrainingResources
from deeplab_ray.errors import UserError
from deeplab_ray.models.weights.start import check_start
from deeplab_ray.on_ray.train.plan import check_division
from deeplab_ray.shards import Split, open_split, require_labels
from deeplab_ray.storage.access import check_access
from deeplab_ray.storage.location import Location, locate


@dataclass(frozen=True)
class Request:
    """What a training is asked for, and what was found out about it without Ray."""

    recipe: Recipe
    resources: TrainingResources
    train: Split
    validation: Split | None
    output: Location
    resume: bool


def check_request(recipe: Recipe, resources: TrainingResources, data: str, output: str, resume: bool) -> Request:
    """Find out all that can be told before Ray starts; what it returns is for `driver.run`.

    Raises UserError for a batch that the workers cannot share, data that are not there, an output that cannot be, that
    holds a run already (unless `resume`) or holds none (if `resume`), and weights that are not there.
    """
    check_division(recipe, resources)
    place = locate(output)
    check_access(read=[locate(data)], write=[place])
    if place.is_root:
        raise UserError(f"output {output!r} is a whole bucket or disk: name a folder in it, such as {output}/run-1")
    train = open_split(data, recipe.train_split)
    validation = open_split(data, recipe.validation_split) if resources.validate_every else None
    for split in (train, validation):
        if split is not None:
            require_labels(split)
    if runs.is_checkpoint(place):
        raise UserError(f"{output} is a checkpoint: give another --output, and --weights {output} to start from it")
    if (place / runs.SNAPSHOT).exists() and not resume:
        raise UserError(f"{output} already holds a training run: pass --resume to go on, or another --output")
    # A run that was stopped before its first checkpoint has left its record alone.
    if resume and not runs.is_run(place):
        raise UserError(f"there is no run to resume at {output}: leave --resume out to start one")
    check_start(recipe.network)
    return Request(recipe, resources, train, validation, place, resume)
