"""Check a dataset's images and labels, tell what is odd about them, and write them as shards.

uv run jobs/prepare.py camvid --source ../shared/camvid --output s3://bucket/camvid
uv run jobs/prepare.py folder --images photos --labels masks --classes background,cat,dog --output s3://bucket/mine

Interrupted, the same command goes on.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

from deeplab_ray import datasets
from deeplab_ray.cli import parse, run_job
from deeplab_ray.config.recipe import FLAT
from deeplab_ray.datasets.folder import FolderOptions
from deeplab_ray.on_ray.prepare import Options, Request, carry_out, check_folder, check_request, count_findings
from deeplab_ray.on_ray.session import start_ray
from deeplab_ray.shards import Manifest

FOLDER = "folder"
_WIDTH = max(map(len, datasets.names()))
DESCRIPTION = (
    "Check a dataset's images and labels, tell what is odd about them, and write them as shards. Interrupted, the "
    "same command goes on.\n\nDatasets, with their splits:\n"
    + "\n".join(
        f"  {name:<{_WIDTH}} {dataset.title}\n  {'':<{_WIDTH}} ({', '.join(dataset.splits)})"
        for name, dataset in ((name, datasets.get(name)) for name in datasets.names())
    )
    + f"\n  {FOLDER:<{_WIDTH}} your own images and labels, in two folders: see prepare.py {FOLDER} --help"
)
OF_FOLDERS = (
    "Check your own images and labels, tell what is odd about them, and write them as shards. Interrupted, the same "
    "command goes on. Images may be of any kind and size; labels are pictures of numbers or of colours, LabelMe's "
    "JSON files beside each other, or a COCO JSON file for all."
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
    options: Annotated[Options, FLAT] = field(default_factory=Options)

    def check(self) -> Request:
        return check_request(self.dataset, self.source, self.output, self.splits, self.options)


@dataclass(frozen=True)
class FolderArgs:
    folder: Annotated[FolderOptions, FLAT]
    output: str
    """Where shards and manifests go, one folder a split: a folder or s3:// URI."""
    splits: Annotated[tuple[str, ...], tyro.conf.arg(help_behavior_hint="(default: all)")] = ()
    """Which splits."""
    options: Annotated[Options, FLAT] = field(default_factory=Options)

    def check(self) -> Request:
        return check_folder(self.folder, self.output, self.splits, self.options)


def main() -> dict[str, Any]:
    args: Args | FolderArgs
    if sys.argv[1:2] == [FOLDER]:
        args = parse(FolderArgs, prog=f"prepare.py {FOLDER}", description=OF_FOLDERS, argv=sys.argv[2:])
    else:
        args = parse(Args, prog="prepare.py", description=DESCRIPTION)
    request = args.check()
    start_ray()
    return _result(request, carry_out(request))


def _result(request: Request, manifests: Mapping[str, Manifest]) -> dict[str, Any]:
    counts = {
        split: {
            "images": manifest.images,
            "labelled": manifest.labelled,
            "shards": len(manifest.shards),
            "bad": len(manifest.bad),
        }
        for split, manifest in manifests.items()
    }
    return {
        "dataset": request.dataset.name,
        "output": request.output.uri,
        "splits": counts,
        "findings": count_findings(manifests),
    }


if __name__ == "__main__":
    run_job(main)
