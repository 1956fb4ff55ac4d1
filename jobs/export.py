"""Write a checkpoint's network as an ONNX file for images of any size, and check it against onnxruntime.

uv run jobs/export.py s3://bucket/runs/camvid-1 --output camvid.onnx
"""

import dataclasses
from typing import Any

from tyro.conf import Positional

from deeplab_ray import cli, runs
from deeplab_ray.errors import UserError
from deeplab_ray.storage.access import check_access
from deeplab_ray.storage.location import locate


@dataclasses.dataclass(frozen=True)
class Args:
    checkpoint: Positional[str]
    """A checkpoint's folder, or a training run's (its newest checkpoint); a local path or s3:// URI."""
    output: str
    """The ONNX file to write: a local path or s3:// URI."""
    overwrite: bool = False
    """Replace the file if there is one."""


def main() -> dict[str, Any]:
    args = cli.parse(
        Args,
        prog="export.py",
        description="Write a checkpoint's network as an ONNX file: images uint8 RGB N×H×W×3 in, scores float N×C×H×W "
        "out.",
    )
    output = locate(args.output)
    check_access(read=[locate(args.checkpoint)], write_files=[output])
    if output.exists() and not args.overwrite:
        raise UserError(f"{args.output} already exists: give another --output, or pass --overwrite")
    place = runs.find(args.checkpoint)
    from deeplab_ray.models import checkpoint
    from deeplab_ray.models.export import export

    meta = runs.read_meta(place)
    exported = export(checkpoint.load_model(place, meta.recipe.network, len(meta.classes)))
    output.write_bytes(exported.content)
    return {
        "checkpoint": place.uri,
        "output": output.uri,
        "bytes": len(exported.content),
        "classes": list(meta.classes.names),
        "largest_difference": exported.largest_difference,
        "labels_equal": exported.labels_equal,
    }


if __name__ == "__main__":
    cli.run_job(main)
