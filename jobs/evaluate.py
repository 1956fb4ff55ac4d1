"""Measure a checkpoint on a prepared split, before and after the CRF, and write report.html.

    uv run jobs/evaluate.py --checkpoint s3://bucket/runs/camvid-1 --data s3://bucket/camvid --output runs/camvid-1

On a cluster: ray job submit --working-dir . -- python jobs/evaluate.py … (the same words).
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
from deeplab_ray.on_ray import session
from deeplab_ray.on_ray.infer.checks import check_inputs
from deeplab_ray.storage.access import check_access
from deeplab_ray.storage.claim import claimed
from deeplab_ray.storage.location import locate


@dataclasses.dataclass(frozen=True)
class Args:
    checkpoint: str
    """A checkpoint's folder, or a training run's (its newest checkpoint); a local path or s3:// URI."""
    data: str
    """Output of jobs/prepare.py: a local path or s3:// URI."""
    scoring: Annotated[ScoringConfig, FLAT]
    resources: Annotated[InferenceResources, FLAT]
    split: str = "val"
    """Split to measure on."""
    output: str = ""
    """Folder for report.html; a local path or s3:// URI. Empty: evaluation-SPLIT in the training run's folder, or in
    that of a checkpoint from elsewhere."""
    crf: str = ""
    """JSON with CRF parameters (jobs/search_crf.py writes one); "none" leaves the CRF out. Empty: those of the
    checkpoint's recipe."""
    precision: Precision | None = None
    """Arithmetic of the network; unset: as it was trained."""
    figure5: str = ""
    """Name of a class whose score and belief maps the report shows, before the CRF and after each iteration, as in
    figure 5 of the paper. Empty: none."""
    max_errors: str = "1%"
    """Images that may fail, a number or a share; more of them end the job with exit code 1, after the report of all
    others is written. The report lists them."""


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
        prog="evaluate.py",
        description="Measure a checkpoint before and after the CRF; write a report. Scales, mirroring and tiles start "
        "from the checkpoint's own (with --checkpoint, --help shows them); --no-test-mirror, --tile 0 and an empty "
        "--test-scales switch them off.",
        default=Args(MISSING, MISSING, scoring, InferenceResources()),
    )
    if args.scoring.tile_overlap != scoring.tile_overlap and not args.scoring.tile:
        raise UserError("--tile-overlap is for tiles: pass --tile, too, such as --tile 513")
    crf = _crf(args.crf)
    check_inputs(args.checkpoint, args.data, args.split)
    session.set_environment()
    from deeplab_ray.on_ray.infer import evaluate, evaluation
    from deeplab_ray.on_ray.infer.work import Allowance
    from deeplab_ray.report import format_table

    allowance = Allowance.parse(args.max_errors)
    output = args.output or evaluation.default_output(args.checkpoint, args.split)
    evaluation.check_output(output)
    request = evaluate.check_request(
        args.checkpoint, args.data, args.split, crf, args.precision, args.scoring, args.figure5
    )
    with claimed(locate(output), "evaluate"):
        session.start_ray()
        result = evaluate.run(request, args.resources, output=output)
        # Before anything can go wrong with writing.
        print(format_table(result.classes.names, result.confusion, result.confusion_crf), flush=True)
        report = evaluation.publish_report(result, output)
    allowance.check(result.errors, result.images + len(result.errors), report)
    return {
        "images": result.images,
        "errors": len(result.errors),
        "miou": result.miou,
        "miou_crf": result.miou_crf,
        "checkpoint": result.checkpoint,
        "report": report,
        **evaluation.paper_measures(result),
        "seconds": round(result.seconds, 1),
        "run": result.figures,
    }


if __name__ == "__main__":
    cli.run_job(main)
