"""Apply the CRF to stored scores, or to other people's probability maps: no network, no GPU.

    uv run jobs/refine.py --input s3://bucket/predictions --output s3://bucket/refined --crf crf.json
    uv run jobs/refine.py --input photos --probabilities maps --output refined --format overlay

On a cluster: ray job submit --working-dir . -- python jobs/refine.py … (the same words).
"""

import dataclasses
import math
from typing import Annotated, Any, Literal

from tyro import MISSING

from deeplab_ray import cli
from deeplab_ray.config.io import load
from deeplab_ray.config.recipe import FLAT
from deeplab_ray.config.resources import InferenceResources
from deeplab_ray.crf.params import CRFParams
from deeplab_ray.errors import UserError
from deeplab_ray.images import MAX_PIXELS
from deeplab_ray.on_ray import session

Format = Literal["cityscapes", "voc", "index", "overlay"]


@dataclasses.dataclass(frozen=True)
class Args:
    input: str
    """Output of jobs/predict.py --format scores; with --probabilities, a folder of images; local or s3:// URI."""
    output: str
    """Folder for the results; a local path or s3:// URI. The same command again does what is missing there."""
    resources: Annotated[InferenceResources, FLAT]
    probabilities: str | None = None
    """Folder of maps, one for each image, at the same path with the ending .npy or .npz: floating-point numbers,
    classes × rows × columns, of the image's size or smaller."""
    kind: Literal["probabilities", "scores"] = "probabilities"
    """What the maps hold: probabilities, or scores (logits), which go through a softmax first."""
    classes: str | None = None
    """Folder of a prepared split, for the names, colours and values of its classes; unset: those stored with the
    scores, and numbers for maps."""
    format: tuple[Format, ...] = ("index",)
    """What to write, one or several; see jobs/predict.py."""
    index_values: Literal["train-ids", "own"] = "train-ids"
    """What pixels of "index" hold: train ids 0..C−1, or the values that the data set itself uses in label files."""
    crf: str = ""
    """JSON with CRF parameters (jobs/search_crf.py writes one); "none" leaves the CRF out. Empty: those that the scores
    were stored with; for maps the paper's for VGG-16."""
    max_errors: str = "1%"
    """Images that may fail, a number or a share; more of them end the job with exit code 1, after all others are
    done. They are listed in errors.parquet."""
    retry_errors: bool = False
    """Try again what failed in an earlier run."""
    max_megapixels: float = MAX_PIXELS / 1e6
    """Larger images fail, before they take memory."""
    price_per_node_hour: float | None = None
    """Price of a node's hour, to print the cost of 1000 images."""


def _crf(choice: str) -> CRFParams | Literal["stored"] | None:
    if choice in ("", "none"):
        return None if choice else "stored"
    return load(choice, CRFParams)


def main() -> dict[str, Any]:
    args = cli.parse(
        Args,
        prog="refine.py",
        description="Apply the CRF to stored scores or probability maps, and write label files. Interrupted, the same "
        "command does only what is missing.",
        default=Args(MISSING, MISSING, InferenceResources()),
    )
    if not 0 < args.max_megapixels < math.inf:
        raise UserError(f"--max-megapixels {args.max_megapixels:g} must be a number above 0")
    session.set_environment()
    from deeplab_ray.on_ray.infer import delivery, refine
    from deeplab_ray.on_ray.infer.work import Allowance, check_price

    allowance = Allowance.parse(args.max_errors)
    check_price(args.price_per_node_hour)
    request = refine.check_request(
        args.input,
        args.output,
        args.probabilities,
        args.kind,
        args.classes,
        args.format,
        args.index_values,
        _crf(args.crf),
        round(args.max_megapixels * 1e6),
    )
    return delivery.deliver(request, args.resources, allowance, args.retry_errors, args.price_per_node_hour)


if __name__ == "__main__":
    cli.run_job(main)
