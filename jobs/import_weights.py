"""Turn a file of pretrained weights into a checkpoint of ours, and say what became of every tensor in it.

    uv run jobs/import_weights.py train2_iter_20000.caffemodel --preset voc12-resnet101-aspp-msc-coco-aug \
        --output checkpoints/deeplab-v2

The checkpoint can be evaluated, or trained on with --weights checkpoints/deeplab-v2.
"""

import dataclasses
from typing import Any

from tyro.conf import Positional

from deeplab_ray import cli, datasets
from deeplab_ray.errors import UserError
from deeplab_ray.presets import paper as presets
from deeplab_ray.storage.access import check_access
from deeplab_ray.storage.location import locate


@dataclasses.dataclass(frozen=True)
class Args:
    file: Positional[str]
    """A .caffemodel (DeepLab v2's, or ImageNet's VGG-16), a .pth (torchvision's, deeplab-pytorch's), or a checkpoint
    of ours; a local path or s3:// URI."""
    preset: str
    """Whose network it is for (see below)."""
    output: str
    """Folder of the checkpoint to write; a local path or s3:// URI."""
    dataset: str = ""
    """Predict this dataset's classes in the place of the preset's; a classifier of other classes starts at random."""
    seed: int = 0
    """Seed of what is left at initialisation."""


def main() -> dict[str, Any]:
    args = cli.parse(
        Args,
        prog="import_weights.py",
        description=f"Turn a file of pretrained weights into a checkpoint.\n\nPresets:\n{presets.overview()}",
    )
    config = presets.get(args.preset).config
    if not args.dataset and config.model.dataset not in datasets.names():
        raise UserError(
            f"the classes of {config.model.dataset} are not known here: name the dataset to predict with --dataset: "
            f"{', '.join(datasets.names())}"
        )
    dataset = datasets.get(args.dataset or config.model.dataset)
    source = locate(args.file)
    check_access(read=[source], write_files=[locate(args.output) / "checkpoint.json"])
    model = dataclasses.replace(config.model, dataset=dataset.name, weights=source.uri)
    from deeplab_ray.models.weights.importing import import_weights
    from deeplab_ray.models.weights.mapping import format_report

    imported = import_weights(dataclasses.replace(config, model=model), dataset.classes, args.output, args.seed)
    print(format_report(imported.report))
    return {
        "checkpoint": imported.checkpoint,
        "taken": imported.taken,
        "converted": imported.converted,
        "left_at_initialisation": imported.left,
        "unused": imported.unused,
        "input": imported.config.input,
        "strides": imported.config.strides,
        "alignment": imported.config.alignment,
        "classes": len(dataset.classes),
    }


if __name__ == "__main__":
    cli.run_job(main)
