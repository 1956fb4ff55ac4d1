"""Print what a preset's network is made of: field of view, parameters, multiply-adds, output size, activation memory.

uv run jobs/describe.py voc12-vgg16-largefov
"""

import dataclasses
from typing import Any

from tyro.conf import Positional

from deeplab_ray import cli, datasets
from deeplab_ray.errors import UserError
from deeplab_ray.presets import paper as presets


@dataclasses.dataclass(frozen=True)
class Args:
    preset: Positional[str]
    """Name of a preset."""
    crop: int = 0
    """Side of the square image in pixels; 0: the preset's training crop."""
    classes: int = 0
    """Number of classes; 0: those of the preset's dataset, or VOC 2012's 21 where we have no such dataset."""


def main() -> dict[str, Any]:
    args = cli.parse(
        Args,
        prog="describe.py",
        description="Print what a preset's network is made of. jobs/train.py --list shows all presets.",
    )
    preset = presets.get(args.preset)
    if args.crop < 0 or args.classes < 0:
        raise UserError("--crop and --classes must not be negative; 0 takes the preset's")
    dataset = preset.config.model.dataset
    classes = args.classes or (len(datasets.get(dataset).classes) if dataset in datasets.names() else 21)
    from deeplab_ray.models.describe import describe

    size = args.crop or preset.config.augment.crop
    found = describe(preset.config.model, classes, size, size)
    print(f"{preset.name}: {preset.describe()}")
    print(f"  field of view    {found.field_of_view} × {found.field_of_view} pixels")
    print(f"  parameters       {found.parameters:,} ({found.trainable_parameters:,} are trained)")
    print(f"  multiply-adds    {found.multiply_adds / 1e9:.2f} G forward, for an image of {size} × {size}")
    print(f"  output           {found.output_size[0]} × {found.output_size[1]}")
    print(f"  activations      {found.activation_bytes / 2**20:.0f} MiB an image kept for the backward pass (float32)")
    return {"preset": preset.name, **dataclasses.asdict(found)}


if __name__ == "__main__":
    cli.run_job(main)
