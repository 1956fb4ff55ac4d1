"""Search learning rate, global batch and poly power; every trial is a DDP training.

    uv run jobs/tune.py scenes-resnet18-largefov --data s3://bucket/scenes --output s3://bucket/searches/1 --trials 8

The best configuration lands in best.json, which jobs/train.py takes with --config.
On a cluster: ray job submit --working-dir . -- python jobs/tune.py … (the same words).
"""

import dataclasses
import sys
from typing import Annotated, Any

from tyro import MISSING
from tyro.conf import Positional

from deeplab_ray import cli
from deeplab_ray.config.recipe import FLAT, Config, SearchConfig
from deeplab_ray.on_ray import session
from deeplab_ray.presets import paper as presets


@dataclasses.dataclass(frozen=True)
class Args:
    preset: Positional[str]
    """Name of a preset; every flag starts from its values."""
    data: str
    """Output of jobs/prepare.py: a local path or s3:// URI; trials train on "train" and are judged on "val"."""
    output: str
    """Folder of this search: best.json, trials.json and the trials; a local path or s3:// URI."""
    settings: Annotated[Config, FLAT]
    search: Annotated[SearchConfig, FLAT]
    config: str = ""
    """Path or URI of a saved config.json, in the place of the preset."""


def main() -> dict[str, Any]:
    preset, config, argv = presets.from_arguments(sys.argv[1:])
    args = cli.parse(
        Args,
        prog="tune.py",
        description="Search learning rate, batch and poly power with Ray Tune. jobs/train.py --list shows all presets.",
        argv=argv,
        default=Args(preset, MISSING, MISSING, config, SearchConfig()),
    )
    session.start_ray()
    from deeplab_ray.on_ray.tune import search as tuning

    trials, best = tuning.run(args.settings, args.search, args.data, args.output)
    print(tuning.format_trials(trials))
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
