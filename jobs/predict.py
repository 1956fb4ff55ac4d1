"""Predict labels for every image of a prepared split or a folder, each exactly once; run again, it does the rest.

    uv run jobs/predict.py --checkpoint s3://bucket/runs/camvid-1 --input photos --output labels --format index overlay

On a cluster: ray job submit --working-dir . -- python jobs/predict.py … (the same words).
"""

import dataclasses
import sys
from typing import Annotated, Any, Literal

from tyro import MISSING

from deeplab_ray import cli, runs
from deeplab_ray.config.flags import value_of
from deeplab_ray.config.io import load
from deeplab_ray.config.recipe import FLAT, Precision
from deeplab_ray.config.resources import InferenceResources
from deeplab_ray.config.scoring import ScoringConfig
from deeplab_ray.crf.params import CRFParams
from deeplab_ray.errors import UserError
from deeplab_ray.images import MAX_PIXELS
from deeplab_ray.on_ray import session
from deeplab_ray.storage.access import check_access
from deeplab_ray.storage.location import locate

Format = Literal["cityscapes", "voc", "index", "overlay", "scores"]


@dataclasses.dataclass(frozen=True)
class Args:
    checkpoint: str
    """A checkpoint's folder, or a training run's (its newest checkpoint); a local path or s3:// URI."""
    input: str
    """What to predict: a folder or prefix of images (searched through), an image, or output of jobs/prepare.py with
    --split; a local path or s3:// URI."""
    output: str
    """Folder for the results; a local path or s3:// URI. The same command again does what is missing there."""
    scoring: Annotated[ScoringConfig, FLAT]
    resources: Annotated[InferenceResources, FLAT]
    split: str | None = None
    """Split of a prepared set; unset: --input is a folder of images, or the split's own folder."""
    pattern: str | None = None
    """Which files of a folder are images, such as "*_leftImg8bit.png"; unset: by their usual endings."""
    format: tuple[Format, ...] = ("index",)
    """What to write, one or several: "cityscapes" (label ids as its evaluation server takes them), "voc" (palette PNGs
    and the server's tar), "index" (PNGs of train ids), "overlay" (labels over the image, for people, with a legend),
    "scores" (float16 scores, for jobs/refine.py and jobs/search_crf.py)."""
    index_values: Literal["train-ids", "own"] = "train-ids"
    """What pixels of "index" hold: train ids 0..C−1, or the values that the data set itself uses in label files."""
    crf: str = ""
    """JSON with CRF parameters (jobs/search_crf.py writes one); "none" leaves the CRF out. Empty: those of the
    checkpoint's recipe."""
    precision: Precision | None = None
    """Arithmetic of the network; unset: as it was trained."""
    max_errors: str = "1%"
    """Images that may fail, a number or a share; more of them end the job with exit code 1, after all others are
    done. They are listed in errors.parquet."""
    retry_errors: bool = False
    """Try again what failed in an earlier run."""
    max_megapixels: float = MAX_PIXELS / 1e6
    """Larger images fail, before they take memory."""
    price_per_node_hour: float | None = None
    """Price of a node's hour, to print the cost of 1000 images."""


def _crf(choice: str) -> CRFParams | Literal["checkpoint"] | None:
    if choice in ("", "none"):
        return None if choice else "checkpoint"
    return load(choice, CRFParams)


def main() -> dict[str, Any]:
    named = value_of("--checkpoint", sys.argv[1:])
    if named:
        check_access(read=[locate(named)])
    scoring = runs.read_scoring(runs.find(named)) if named else ScoringConfig()
    args = cli.parse(
        Args,
        prog="predict.py",
        description="Predict labels for every image of a folder or a prepared split, and write them as files. "
        "Interrupted, or with new images in the folder, the same command does only what is missing.",
        default=Args(MISSING, MISSING, MISSING, scoring, InferenceResources()),
    )
    if not args.max_megapixels > 0:
        raise UserError(f"--max-megapixels {args.max_megapixels:g} must be above 0")
    session.set_environment()
    from deeplab_ray.on_ray.infer import delivery, predict
    from deeplab_ray.on_ray.infer.work import Allowance

    allowance = Allowance.parse(args.max_errors)
    request = predict.check_request(
        args.checkpoint,
        args.input,
        args.output,
        args.split,
        args.pattern,
        args.format,
        args.index_values,
        _crf(args.crf),
        args.precision,
        args.scoring,
        round(args.max_megapixels * 1e6),
    )
    begun = delivery.begin(request.order, args.retry_errors)
    if len(begun.todo):
        session.start_ray()
    result = delivery.run(begun, lambda begun: request.stages(begun, args.resources), args.price_per_node_hour)
    output = request.order.output
    allowance.check(result.errors, result.images, (output / delivery.ERRORS).uri)
    return result.as_result(output)


if __name__ == "__main__":
    cli.run_job(main)
