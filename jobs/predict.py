"""Predict labels for every image of a prepared split or a folder, each exactly once; run again, it does the rest.

    uv run jobs/predict.py --checkpoint s3://bucket/runs/camvid-1 --input photos --output labels --format index overlay

On a cluster: ray job submit --working-dir . -- python jobs/predict.py … (the same words). jobs/plan.py tells before how
long it takes, on how many nodes, and what it costs.
"""

import dataclasses
from typing import Any

from deeplab_ray import cli
from deeplab_ray.on_ray import session
from deeplab_ray.on_ray.infer import flags


@dataclasses.dataclass(frozen=True)
class Args(flags.Prediction):
    max_errors: str = "1%"
    """Images that may fail, a number or a share; more of them end the job with exit code 1, after all others are
    done. They are listed in errors.parquet."""
    retry_errors: bool = False
    """Try again what failed in an earlier run."""
    price_per_node_hour: float | None = None
    """Price of a node's hour, to print the cost of 1000 images."""


def main() -> dict[str, Any]:
    args = flags.parse(
        Args,
        prog="predict.py",
        description="Predict labels for every image of a folder or a prepared split, and write them as files. "
        "Interrupted, or with new images in the folder, the same command does only what is missing.",
    )
    session.set_environment()
    from deeplab_ray.on_ray.infer import delivery
    from deeplab_ray.on_ray.infer.work import Allowance, check_price

    allowance = Allowance.parse(args.max_errors)
    check_price(args.price_per_node_hour)
    request = args.check()
    return delivery.deliver(request, args.resources, allowance, args.retry_errors, args.price_per_node_hour)


if __name__ == "__main__":
    cli.run_job(main)
