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
from deeplab_ray.config.recipe import FLAT, Config
from deeplab_ray.on_ray import session
from deeplab_ray.presets import paper as presets
from deeplab_ray.shards import open_split
from deeplab_ray.storage.access import check_access
from deeplab_ray.storage.location import locate


@dataclasses.dataclass(frozen=True)
class Args:
    preset: Positional[str]
    """Name of a preset (see below); every flag starts from its values."""
    data: str
    """Output of jobs/prepare.py: a local path or s3:// URI."""
    output: str
    """Folder of this run: checkpoints, config.json, TensorBoard events; a local path or s3:// URI."""
    settings: Annotated[Config, FLAT]
    config: str = ""
    """Path or URI of a saved config.json or best.json, in the place of the preset."""
    resume: bool = False
    """Go on from the last checkpoint under --output, or from the start where it stopped before the first."""
    train_split: str = "train"
    """Split to train on."""
    validation_split: str = "val"
    """Split to validate on."""
    list: bool = False
    """Print all presets with the paper's figures, table by table, and end; needs no other argument."""


def main() -> dict[str, Any]:
    if "--list" in sys.argv[1:]:
        print(presets.format_tables())
        return {"presets": len(presets.names())}
    preset, config, argv = presets.from_arguments(sys.argv[1:])
    args = cli.parse(
        Args,
        prog="train.py",
        description=f"Train DeepLab on prepared shards.\n\nPresets:\n{presets.overview()}",
        argv=argv,
        default=Args(preset, MISSING, MISSING, config),
    )
    # `trainer.run` checks, too; here a mistake is told before Ray has to start.
    check_access(read=[locate(args.data)], write=[locate(args.output)])
    open_split(args.data, args.train_split)
    session.start_ray()
    from deeplab_ray.on_ray.train import driver as trainer

    result = trainer.run(args.settings, args.data, args.output, args.resume, args.train_split, args.validation_split)
    return {
        "checkpoint": result.checkpoint,
        "iterations": result.iterations,
        "loss": result.loss,
        "miou": result.miou,
        "workers": args.settings.runtime.workers,
    }


if __name__ == "__main__":
    cli.run_job(main)
