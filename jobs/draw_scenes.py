"""Draw street scenes in Cityscapes' layout: the embedded dataset `scenes`, ready for jobs/prepare.py.

python jobs/draw_scenes.py --output scenes --train 200 --val 40 --height 192 --width 384 --seed 0
"""

from dataclasses import dataclass
from typing import Any

from deeplab_ray.cli import parse, run_job
from deeplab_ray.errors import UserError
from deeplab_ray.scenes.draw import draw
from deeplab_ray.storage.access import check_access
from deeplab_ray.storage.location import locate


@dataclass(frozen=True)
class Args:
    output: str
    """Where leftImg8bit/ and gtFine/ are written: a local folder or s3:// URI."""
    train: int = 200
    """Number of scenes of the training split."""
    val: int = 40
    """Number of scenes of the validation split."""
    height: int = 192
    """Height in pixels."""
    width: int = 384
    """Width in pixels."""
    seed: int = 0
    """Seed of the scenes; the same seed draws the same scenes."""


def main() -> dict[str, Any]:
    args = parse(
        Args,
        prog="draw_scenes.py",
        description="Draw street scenes in Cityscapes' layout, for jobs/prepare.py scenes or cityscapes.",
    )
    counts = {"train": args.train, "val": args.val}
    if min(counts.values()) < 0 or not any(counts.values()):
        raise UserError(
            f"cannot draw {args.train} and {args.val} scenes: give --train and --val of 0 or more, not both 0"
        )
    output = locate(args.output)
    check_access(write=[output])
    trees = [output / "leftImg8bit", output / "gtFine"]
    for tree in trees:
        if tree.exists():
            raise UserError(f"{tree} already exists: give another --output, or remove it")
    try:
        for split, count in counts.items():
            draw(output, {split: count}, args.height, args.width, args.seed)
            print(f"{split}: {count} scenes drawn", flush=True)
    except BaseException:
        for tree in trees:
            tree.delete_tree()
        raise
    return {"output": args.output, "images": counts, "height": args.height, "width": args.width, "seed": args.seed}


if __name__ == "__main__":
    run_job(main)
