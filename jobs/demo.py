"""The whole path on this machine, with no arguments: S3 server, Ray, scenes, shards, training, CRF, report.

pip install uv && uv run --no-dev --extra demo jobs/demo.py
"""

import dataclasses
from typing import Any

from deeplab_ray import cli
from deeplab_ray.local import demo
from deeplab_ray.presets import lookup as presets


@dataclasses.dataclass(frozen=True)
class Args:
    output: str = "runs/demo"
    """Folder for the report and the picture strip; what the demo keeps on S3 goes with its server."""
    iterations: int = presets.get(demo.PRESET).recipe.solver.iterations
    """Weight updates; fewer for a quick look."""


def main() -> dict[str, Any]:
    args = cli.parse(
        Args,
        prog="demo.py",
        description="Draw street scenes, train DeepLab on them with two DDP workers, refine with the CRF, write a "
        "report: everything on this machine, through a real S3 server.",
    )
    return demo.run(args.output, args.iterations)


if __name__ == "__main__":
    cli.run_job(main)
