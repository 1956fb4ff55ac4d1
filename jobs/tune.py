"""Search for the learning rate, global batch and poly power; every trial is a DDP training.

    uv run jobs/tune.py scenes-resnet18-largefov --data s3://bucket/scenes --output s3://bucket/searches/1 --trials 8

The best recipe is written to best.json, which jobs/train.py takes with --config.
On a cluster: ray job submit --working-dir . -- python jobs/tune.py … (the same words).
"""

import dataclasses
import sys
from typing import Annotated, Any

from tyro import MISSING
from tyro.conf import Positional

from deeplab_ray import cli
from deeplab_ray.config.recipe import FLAT, Recipe
from deeplab_ray.config.resources import TrainingResources
from deeplab_ray.config.search import SearchConfig
from deeplab_ray.on_ray import session
from deeplab_ray.on_ray.tune.space import check_request
from deeplab_ray.presets import lookup


@dataclasses.dataclass(frozen=True)
class Args:
    preset: Positional[str]
    """Name of a preset (--list shows them); every flag starts from its values."""
    data: str
    """Output of jobs/prepare.py: a local path or s3:// URI; trials train on --train-split and are measured on
    --validation-split."""
    output: str
    """Folder of this search: best.json, trials.json and the trials; a local path or s3:// URI."""
    recipe: Annotated[Recipe, FLAT]
    resources: Annotated[TrainingResources, FLAT]
    search: Annotated[SearchConfig, FLAT]
    config: str = ""
    """Path or URI of a saved run.json or best.json; its recipe is used instead of the preset's."""
    list: bool = False
    """Print all presets with the paper's figures, table by table, and end; needs no other argument."""


def main() -> dict[str, Any]:
    if "--list" in sys.argv[1:]:
        return cli.list_presets()
    start = lookup.start(sys.argv[1:])
    args = cli.parse(
        Args,
        prog="tune.py",
        description="Search for learning rate, batch and poly power with Ray Tune. The flags of a preset's network and "
        f"their defaults: tune.py PRESET --help; {lookup.LIST_HINT}.",
        argv=start.argv,
        default=Args(start.name, MISSING, MISSING, start.recipe, start.resources, SearchConfig()),
    )
    request = check_request(args.recipe, args.resources, args.search, args.data, args.output)
    cli.say(start.note(request.train.manifest.reader))
    session.start_ray()
    from deeplab_ray.on_ray.tune import search

    trials, best = search.run(request)
    print(search.format_trials(trials))
    return {
        "trials": len(trials),
        "best": best,
        "miou": trials[0].miou,
        "learning_rate": trials[0].learning_rate,
        "batch": trials[0].batch,
        "power": trials[0].power,
    }


if __name__ == "__main__":
    cli.run_job(main)
