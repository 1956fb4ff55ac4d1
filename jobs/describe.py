"""Print what a preset's network is made of: field of view, parameters, multiply-adds, output size, activation memory.

uv run jobs/describe.py voc12-vgg16-largefov
"""

import dataclasses
from typing import Any

from tyro.conf import Positional

from deeplab_ray import cli, presets


@dataclasses.dataclass(frozen=True)
class Args:
    preset: Positional[str]
    """Name of a preset (see below)."""
    crop: int = 0
    """Side of the square image in pixels; 0: the preset's training crop."""
    classes: int = 21
    """Number of classes; VOC 2012's by default, whatever the preset's dataset is."""


def main() -> dict[str, Any]:
    args = cli.parse(
        Args,
        prog="describe.py",
        description=f"Print what a preset's network is made of.\n\nPresets:\n{presets.overview()}",
    )
    preset = presets.get(args.preset)
    from deeplab_ray.models.describe import describe

    size = args.crop or preset.config.augment.crop
    found = describe(preset.config.model, args.classes, size, size)
    print(f"{preset.name}: {preset.describe()}")
    print(f"  field of view    {found.field_of_view} × {found.field_of_view} pixels")
    print(f"  parameters       {found.parameters:,} ({found.trainable_parameters:,} are trained)")
    print(f"  multiply-adds    {found.multiply_adds / 1e9:.2f} G forward, for an image of {size} × {size}")
    print(f"  output           {found.output_size[0]} × {found.output_size[1]}")
    print(f"  activations      {found.activation_bytes / 2**20:.0f} MiB an image kept for the backward pass (float32)")
    return {"preset": preset.name, **dataclasses.asdict(found)}


if __name__ == "__main__":
    cli.run_job(main)
