"""Measure a checkpoint on a prepared split, before and after the CRF, and write report.html.

    uv run jobs/evaluate.py --checkpoint s3://bucket/runs/camvid-1 --data s3://bucket/camvid --output runs/camvid-1

On a cluster: ray job submit --working-dir . -- python jobs/evaluate.py … (the same words).
"""

import dataclasses
from typing import Annotated, Any, Literal

from deeplab_ray import cli
from deeplab_ray.config.recipe import FLAT, CRFParams, InferenceConfig, TestConfig, load
from deeplab_ray.errors import UserError
from deeplab_ray.on_ray import session
from deeplab_ray.on_ray.infer.checks import check_inputs
from deeplab_ray.presets import paper as presets


@dataclasses.dataclass(frozen=True)
class Args:
    checkpoint: str
    """A checkpoint's folder, or a training run's (its newest checkpoint); a local path or s3:// URI."""
    data: str
    """Output of jobs/prepare.py: a local path or s3:// URI."""
    resources: Annotated[InferenceConfig, FLAT]
    split: str = "val"
    """Split to measure on."""
    output: str = ""
    """Folder for report.html; a local path or s3:// URI. Empty: evaluation-SPLIT in the training run's folder, or in
    that of a checkpoint from elsewhere."""
    crf: str = ""
    """JSON with CRF parameters (jobs/search_crf.py writes one); "none" leaves the CRF out. Empty: those of the
    checkpoint's config."""
    precision: Literal["", "float32", "bfloat16"] = ""
    """Arithmetic of the network; empty: as it was trained."""
    test_scales: tuple[float, ...] = ()
    """Factors at which each image is scored, such as 0.5 0.75 1; the scores are averaged. Empty: as the checkpoint's
    config says."""
    test_mirror: bool = False
    """Average with the scores of the mirrored image, too."""
    tile: int = 0
    """Side in pixels, ≡ 1 (mod 8), of the tiles that larger images are scored in. 0: as the checkpoint's config has
    it."""
    tile_overlap: int | None = None
    """Pixels that neighbouring tiles share at least; by default as the checkpoint's config has it."""


def _crf(choice: str) -> CRFParams | str | None:
    if choice in ("", "none"):
        return None if choice else "checkpoint"
    return load(choice, CRFParams)


def _test(args: Args) -> TestConfig | None:
    """The checkpoint's options with those of the command line in their place; None where it names none."""
    if not (args.test_scales or args.test_mirror or args.tile) and args.tile_overlap is None:
        return None
    from deeplab_ray.models import checkpoint

    own = checkpoint.read_meta(checkpoint.find(args.checkpoint)).config.test
    if args.tile_overlap is not None and not (args.tile or own.tile):
        raise UserError("--tile-overlap is for tiles: pass --tile, too, such as --tile 513")
    return TestConfig(
        args.test_scales or own.test_scales,
        args.test_mirror or own.test_mirror,
        args.tile or own.tile,
        own.tile_overlap if args.tile_overlap is None else args.tile_overlap,
    )


def main() -> dict[str, Any]:
    args = cli.parse(
        Args,
        prog="evaluate.py",
        description="Measure a checkpoint before and after the CRF; write a report.\n\n"
        f"Presets that a checkpoint may come from:\n{presets.overview()}",
    )
    crf = _crf(args.crf)
    check_inputs(args.checkpoint, args.data, args.split)
    test = _test(args)
    session.set_environment()
    from deeplab_ray.on_ray.infer import evaluate as evaluation
    from deeplab_ray.report import format_table

    output = args.output or evaluation.default_output(args.checkpoint, args.split)
    evaluation.check_output(output)
    session.start_ray()
    result = evaluation.evaluate(args.checkpoint, args.data, args.split, crf, args.precision, test, args.resources)
    # Before anything can go wrong with writing.
    print(format_table(result.classes.names, result.confusion, result.confusion_crf), flush=True)
    report = evaluation.publish_report(result, output)
    return {
        "images": result.images,
        "miou": result.miou,
        "miou_crf": result.miou_crf,
        "checkpoint": result.checkpoint,
        "report": report,
        "seconds": round(result.seconds, 1),
    }


if __name__ == "__main__":
    cli.run_job(main)
