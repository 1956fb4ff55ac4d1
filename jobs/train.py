"""Train a preset on prepared shards.

    uv run jobs/train.py camvid-vgg16-largefov --data s3://bucket/camvid --output s3://bucket/runs/camvid-1 --workers 2

On a cluster: ray job submit --working-dir . -- python jobs/train.py … (the same words).
"""

import dataclasses
import sys
from typing import Annotated, Any

from tyro import MISSING
from tyro.conf import Positional

from deeplab_ray import cli
from deeplab_ray.config.recipe import FLAT, Recipe
from deeplab_ray.config.resources import TrainingResources
from deeplab_ray.on_ray import session
from deeplab_ray.on_ray.train.request import check_request
from deeplab_ray.presets import lookup


@dataclasses.dataclass(frozen=True)
class Args:
    preset: Positional[str]
    """Name of a preset (--list shows them); every flag starts from its values."""
    data: str
    """Output of jobs/prepare.py: a local path or s3:// URI."""
    output: str
    """Folder of this run: checkpoints, run.json, TensorBoard events; a local path or s3:// URI."""
    recipe: Annotated[Recipe, FLAT]
    resources: Annotated[TrainingResources, FLAT]
    config: str = ""
    """Path or URI of a saved run.json or best.json; its recipe is used instead of the preset's."""
    resume: bool = False
    """Go on from the last checkpoint under --output, or from the start if the run stopped before its first. The
    schedule and the resources may change; nothing else that decides the result may."""
    list: bool = False
    """Print all presets with the paper's figures, table by table, and end; needs no other argument."""


def main() -> dict[str, Any]:
    if "--list" in sys.argv[1:]:
        return cli.list_presets()
    start = lookup.start(sys.argv[1:])
    args = cli.parse(
        Args,
        prog="train.py",
        description=f"Train a network on prepared shards. The flags of a preset's network and their defaults: "
        f"train.py PRESET --help; {lookup.LIST_HINT}.",
        argv=start.argv,
        default=Args(start.name, MISSING, MISSING, start.recipe, start.resources),
    )
    request = check_request(args.recipe, args.resources, args.data, args.output, args.resume)
    cli.say(start.note(request.train.manifest.reader))
    session.set_environment()
    from deeplab_ray.on_ray.train import driver

    driver.goes_on_as(request)
    session.start_ray()
    result = driver.run(request)
    return {
        "checkpoint": result.checkpoint,
        "iterations": result.iterations,
        "loss": result.loss,
        "miou": result.miou,
        "workers": args.resources.workers,
    }


if __name__ == "__main__":
    cli.run_job(main)
