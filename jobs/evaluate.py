"""Measure a checkpoint on a prepared split, before and after the CRF, and write report.html.

    uv run jobs/evaluate.py --checkpoint s3://bucket/runs/camvid-1 --data s3://bucket/camvid --output runs/camvid-1

On a cluster: ray job submit --working-dir . -- python jobs/evaluate.py … (the same words).
"""

import dataclasses
from typing import Any, Literal

from deeplab_ray import cli, presets
from deeplab_ray.config import CRFParams, load
from deeplab_ray.storage import check_access, locate


@dataclasses.dataclass(frozen=True)
class Args:
    checkpoint: str
    """A checkpoint's folder, or a training run's (its newest checkpoint); a local path or s3:// URI."""
    data: str
    """Output of jobs/prepare.py: a local path or s3:// URI."""
    split: str = "val"
    """Split to measure on."""
    output: str = ""
    """Folder for report.html; a local path or s3:// URI. Empty: evaluation-SPLIT beside the checkpoint."""
    crf: str = ""
    """JSON with CRF parameters (jobs/search_crf.py writes one); "none" leaves the CRF out. Empty: those of the
    checkpoint's config."""
    precision: Literal["", "float32", "bfloat16"] = ""
    """Arithmetic of the network; empty: as it was trained."""


def _crf(choice: str) -> CRFParams | str | None:
    if choice in ("", "none"):
        return None if choice else "checkpoint"
    return load(choice, CRFParams)


def main() -> dict[str, Any]:
    args = cli.parse(
        Args,
        prog="evaluate.py",
        description="Measure a checkpoint before and after the CRF; write a report.\n\n"
        f"Presets that a checkpoint may come from:\n{presets.overview()}",
    )
    crf = _crf(args.crf)
    check_access(locate(args.output))
    cli.start_ray()
    from deeplab_ray import evaluation
    from deeplab_ray.report import format_table

    result = evaluation.evaluate(args.checkpoint, args.data, args.split, crf, args.precision)
    output = args.output or f"{locate(result.checkpoint).parent}/evaluation-{args.split}"
    report = evaluation.publish_report(result, output)
    print(format_table(result.dataset.classes, result.confusion, result.confusion_crf))
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
