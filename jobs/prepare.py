"""Check a dataset's images and labels and write them as shards, as a Ray Data job.

python jobs/prepare.py camvid --source ../shared/camvid --output s3://bucket/camvid
"""

from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from deeplab_ray import datasets
from deeplab_ray.cli import parse, run_job
from deeplab_ray.on_ray.prepare import carry_out, check_request
from deeplab_ray.on_ray.session import start_ray

DESCRIPTION = "Check a dataset's images and labels and write them as shards.\n\nDatasets:\n" + "\n".join(
    f"  {name:<11} {datasets.get(name).title}" for name in datasets.names()
)


@dataclass(frozen=True)
class Args:
    dataset: tyro.conf.Positional[str]
    """Which dataset (see above)."""
    source: str
    """Where it lies: a folder or s3:// URI."""
    output: str
    """Where shards and manifests go, one folder a split: a folder or s3:// URI."""
    splits: Annotated[tuple[str, ...], tyro.conf.arg(help_behavior_hint="(default: all that SOURCE holds)")] = ()
    """Which splits."""
    skip_bad: bool = False
    """Leave out bad pairs, listed in the manifest, instead of refusing the whole."""
    overwrite: bool = False
    """Replace what was prepared there before."""
    rows_per_shard: int = 64
    """Images in one shard, and in one task."""


def main() -> dict[str, Any]:
    args = parse(Args, prog="prepare.py", description=DESCRIPTION)
    request = check_request(
        args.dataset, args.source, args.output, list(args.splits), args.overwrite, args.rows_per_shard
    )
    start_ray()
    manifests = carry_out(request, args.skip_bad)
    counts = {
        split: {
            "images": manifest.images,
            "labelled": manifest.labelled,
            "shards": len(manifest.shards),
            "bad": len(manifest.bad),
        }
        for split, manifest in manifests.items()
    }
    return {"dataset": args.dataset, "output": args.output, "splits": counts}


if __name__ == "__main__":
    run_job(main)
