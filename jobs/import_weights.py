"""Turn a file of pretrained weights into a checkpoint, and print what became of every tensor in it.

    uv run jobs/import_weights.py train2_iter_20000.caffemodel --preset voc12-resnet101-aspp-msc-coco-aug \
        --output checkpoints/deeplab-v2

The checkpoint can be evaluated, or trained on with --weights checkpoints/deeplab-v2.
"""

import dataclasses
import sys
from typing import Any

from tyro.conf import Positional

from deeplab_ray import cli
from deeplab_ray.presets import lookup
from deeplab_ray.presets.preset import class_table
from deeplab_ray.storage.access import check_access
from deeplab_ray.storage.location import locate


@dataclasses.dataclass(frozen=True)
class Args:
    file: Positional[str]
    """A .caffemodel (DeepLab v2 or ImageNet's VGG-16), a .pth file (of torchvision or deeplab-pytorch), or a checkpoint
    of this project; a local path or s3:// URI."""
    preset: str
    """Preset whose network the weights are for (--list shows them)."""
    output: str
    """Folder of the checkpoint to write; a local path or s3:// URI."""
    dataset: str = ""
    """Dataset whose classes to predict instead of the preset's; a classifier for other classes starts at random."""
    seed: int = 0
    """Seed of the tensors that keep their initialisation."""
    list: bool = False
    """Print all presets with the paper's figures, table by table, and end; needs no other argument."""


def main() -> dict[str, Any]:
    if "--list" in sys.argv[1:]:
        return cli.list_presets()
    args = cli.parse(
        Args,
        prog="import_weights.py",
        description=f"Turn a file of pretrained weights into a checkpoint; {lookup.LIST_HINT}.",
    )
    preset = lookup.get(args.preset)
    classes = class_table(args.dataset or preset.dataset)
    source = locate(args.file)
    check_access(read=[source], write_files=[locate(args.output) / "checkpoint.json"])
    network = dataclasses.replace(preset.recipe.network, weights=source.uri)
    recipe = dataclasses.replace(preset.recipe, network=network, seed=args.seed)
    from deeplab_ray.models.weights.importing import import_weights
    from deeplab_ray.models.weights.mapping import format_report

    imported = import_weights(recipe, classes, args.output)
    print(format_report(imported.report))
    return {
        "checkpoint": imported.checkpoint,
        "taken": imported.taken,
        "converted": imported.converted,
        "left_at_initialisation": imported.left,
        "unused": imported.unused,
        "network": imported.options,
        "classes": len(classes),
    }


if __name__ == "__main__":
    cli.run_job(main)
