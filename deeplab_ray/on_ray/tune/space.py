"""A request for a search, with all checks that need neither Ray nor PyTorch."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from deeplab_ray.config.recipe import Recipe
from deeplab_ray.config.resources import TrainingResources
from deeplab_ray.config.search import SearchConfig
from deeplab_ray.errors import UserError
from deeplab_ray.models.weights.start import check_start
from deeplab_ray.on_ray.train.plan import check_division
from deeplab_ray.shards import Split, open_split, require_labels
from deeplab_ray.storage.access import check_access
from deeplab_ray.storage.location import Location, locate

BEST = "best.json"


@dataclass(frozen=True)
class Request:
    """What a search is asked to do, and the prepared split that was found for it."""

    recipe: Recipe
    resources: TrainingResources
    search: SearchConfig
    data: Location
    train: Split
    output: Location


def check_request(
    recipe: Recipe, resources: TrainingResources, search: SearchConfig, data: str, output: str
) -> Request:
    """Check all that can be checked before Ray starts; return the request for `search.run`.

    Raises UserError if a batch cannot be divided over the workers, data or weights do not exist, or the output cannot
    be written or already holds a search.
    """
    place = locate(output)
    check_access(read=[locate(data)], write=[place])
    for batch in search.batches:
        check_division(
            at_point(recipe, {"learning_rate": search.learning_rate_min, "batch": batch, "power": 1.0}), resources
        )
    train, validation = (open_split(data, split) for split in (recipe.train_split, recipe.validation_split))
    for split in (train, validation):
        require_labels(split)
    if (place / BEST).exists():
        raise UserError(f"{output} already holds a search: give another --output")
    check_start(recipe.network)
    return Request(recipe, resources, search, locate(data), train, place)


def at_point(recipe: Recipe, point: dict[str, Any]) -> Recipe:
    """Return the recipe at a point of the search (learning_rate, batch, power)."""
    solver = dataclasses.replace(
        recipe.solver, learning_rate=point["learning_rate"], batch=point["batch"], power=point["power"]
    )
    return dataclasses.replace(recipe, solver=solver)
