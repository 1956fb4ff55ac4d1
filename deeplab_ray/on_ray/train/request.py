"""A request for a training, with all checks that need neither Ray nor PyTorch."""

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
    """What a training is asked to do, and the prepared splits that were found for it."""

    recipe: Recipe
    resources: TrainingResources
    train: Split
    validation: Split | None
    output: Location
    resume: bool


def check_request(recipe: Recipe, resources: TrainingResources, data: str, output: str, resume: bool) -> Request:
    """Check all that can be checked before Ray starts; return the request for `driver.run`.

    Raises UserError if the batch cannot be divided over the workers, data or weights do not exist, or the output cannot
    be written, already holds a run (without `resume`) or holds none (with `resume`).
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
    # A run that was stopped before its first checkpoint has left only run.json.
    if resume and not runs.is_run(place):
        raise UserError(f"there is no run to resume at {output}: leave --resume out to start one")
    check_start(recipe.network)
    return Request(recipe, resources, train, validation, place, resume)
