"""Run the whole path on this machine, without arguments: S3 server, Ray, scenes, shards, training, CRF, report.

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
    """Local folder for the report and the picture strip; what is on the demo's S3 server is removed at the end."""
    iterations: int = presets.get(demo.PRESET).recipe.solver.iterations
    """Number of weight updates; give fewer for a quick look."""


def main() -> dict[str, Any]:
    args = cli.parse(
        Args,
        prog="demo.py",
        description="Draw street scenes, train DeepLab on them with two DDP workers, refine with the CRF and write a "
        "report, all on this machine and through a real S3 server.",
    )
    return demo.run(args.output, args.iterations)


if __name__ == "__main__":
    cli.run_job(main)
