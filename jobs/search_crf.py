"""Choose CRF parameters for a checkpoint, on images that you do not report on.

uv run jobs/search_crf.py --checkpoint s3://bucket/runs/camvid-1 --data s3://bucket/camvid --output crf.json
uv run jobs/search_crf.py --scores s3://bucket/predictions --output crf.json
"""

import dataclasses
from typing import Annotated, Any

from deeplab_ray import cli
from deeplab_ray.config.io import from_dict, to_json
from deeplab_ray.config.recipe import FLAT
from deeplab_ray.config.resources import InferenceResources
from deeplab_ray.crf.params import CRFParams
from deeplab_ray.errors import UserError
from deeplab_ray.on_ray import session
from deeplab_ray.on_ray.infer.checks import check_inputs, check_search_size
from deeplab_ray.outputs.stored import open_scores, read_record
from deeplab_ray.storage.access import check_access
from deeplab_ray.storage.location import locate


@dataclasses.dataclass(frozen=True)
class Args:
    output: str
    """File for the best parameters (JSON), which jobs/evaluate.py takes as --crf; a local path or s3:// URI."""
    resources: Annotated[InferenceResources, FLAT]
    checkpoint: str = ""
    """A checkpoint's folder, or a training run's (its newest checkpoint); a local path or s3:// URI."""
    data: str = ""
    """Output of jobs/prepare.py: a local path or s3:// URI."""
    split: str = "train"
    """Split to search on."""
    scores: str = ""
    """Instead of --checkpoint and --data: output of jobs/predict.py --format scores on a split with labels, so that
    the network does not run again."""
    images: int = 100
    """Images to search on, spread evenly over the split."""


def main() -> dict[str, Any]:
    args = cli.parse(
        Args,
        prog="search_crf.py",
        description="Search w1, sigma_alpha and sigma_beta of the CRF for a checkpoint, as section 4.1 of the "
        "paper does, on a coarse grid.",
    )
    check_search_size(args.images)
    output = locate(args.output)
    check_access(write_files=[output])
    if args.scores and (args.checkpoint or args.data):
        raise UserError("--scores takes the place of --checkpoint and --data: leave them out")
    if not args.scores and not (args.checkpoint and args.data):
        raise UserError("give --checkpoint and --data, or --scores")
    if args.scores:
        check_access(read=[locate(args.scores)])
        open_scores(args.scores)
    else:
        check_inputs(args.checkpoint, args.data, args.split)
    session.start_ray()
    from deeplab_ray.on_ray.infer.crf_search import format_crf_search, search_crf, search_stored

    if args.scores:
        stored = read_record(args.scores).get("crf")
        params = from_dict(stored, CRFParams, args.scores) if stored else CRFParams()
        search = search_stored(args.scores, params, args.images, args.resources)
    else:
        search = search_crf(args.checkpoint, args.data, args.split, args.images, args.resources)
    print(format_crf_search(search))
    best = search.trials[0]
    output.write_bytes(to_json(best.params).encode())
    return {
        "images": search.images,
        "miou": search.before,
        "miou_crf": best.miou,
        "crf": dataclasses.asdict(best.params),
        "output": output.uri,
    }


if __name__ == "__main__":
    cli.run_job(main)
