"""Print figures of a preset's network: field of view, parameters, multiply-adds, output size, activation memory.

uv run jobs/describe.py voc12-vgg16-largefov
"""

import dataclasses
import sys
from typing import Any

from tyro.conf import Positional

from deeplab_ray import cli
from deeplab_ray.errors import UserError
from deeplab_ray.presets import lookup


@dataclasses.dataclass(frozen=True)
class Args:
    preset: Positional[str]
    """Name of a preset (--list shows them)."""
    crop: int = 0
    """Side of the square image in pixels; 0: the preset's training crop."""
    classes: int = 0
    """Number of classes; 0: that of the preset's dataset."""
    list: bool = False
    """Print all presets with the paper's figures, table by table, and end; needs no other argument."""


def main() -> dict[str, Any]:
    if "--list" in sys.argv[1:]:
        return cli.list_presets()
    args = cli.parse(Args, prog="describe.py", description=f"Print figures of a preset's network; {lookup.LIST_HINT}.")
    preset = lookup.get(args.preset)
    if args.crop < 0 or args.classes < 0:
        raise UserError("--crop and --classes must not be negative: give 0 for the preset's own")
    classes, size = args.classes or len(preset.classes), args.crop or preset.recipe.augment.crop
    from deeplab_ray.models.describe import measure_network

    found = measure_network(preset.recipe.network, classes, size, size)
    print(f"{preset.name}: {preset.describe()}")
    print(f"  field of view    {found.field_of_view} × {found.field_of_view} pixels")
    print(f"  parameters       {found.parameters:,} ({found.trainable_parameters:,} are trained)")
    print(f"  multiply-adds    {found.multiply_adds / 1e9:.2f} G forward, for an image of {size} × {size}")
    print(f"  output           {found.output_size[0]} × {found.output_size[1]}")
    print(f"  activations      {found.activation_bytes / 2**20:.0f} MiB per image kept for the backward pass (float32)")
    return {"preset": preset.name, **dataclasses.asdict(found)}


if __name__ == "__main__":
    cli.run_job(main)
