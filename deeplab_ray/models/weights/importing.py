"""Import of pretrained weights: makes a checkpoint to evaluate, to predict with, or to train from."""

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from deeplab_ray.config.io import as_dict
from deeplab_ray.config.network import NetworkConfig
from deeplab_ray.config.recipe import Recipe
from deeplab_ray.errors import UserError
from deeplab_ray.labels import ClassTable
from deeplab_ray.models import checkpoint
from deeplab_ray.models.weights.load import load
from deeplab_ray.models.weights.mapping import Line
from deeplab_ray.runs import META, CheckpointMeta, Provenance, Software
from deeplab_ray.storage.location import locate


@dataclass(frozen=True)
class Imported:
    """An imported checkpoint, and where its tensors come from."""

    checkpoint: str
    """URI of its folder."""
    network: NetworkConfig
    """The network's options, with the conventions of the weights in place of "auto"."""
    report: list[Line]

    @property
    def options(self) -> dict[str, Any]:
        """The network's options as in the checkpoint."""
        return as_dict(self.network)

    @property
    def taken(self) -> int:
        """Number of tensors taken from the file."""
        return sum(bool(line.tensor and line.source) for line in self.report)

    @property
    def converted(self) -> int:
        """Number of those that were converted."""
        return sum(bool(line.tensor and line.source) and line.how != "taken" for line in self.report)

    @property
    def left(self) -> int:
        """Number of the network's tensors that keep their initialisation."""
        return sum(not line.source for line in self.report)

    @property
    def unused(self) -> int:
        """Number of tensors and other entries of the file that the network does not use."""
        return sum(not line.tensor for line in self.report)


def import_weights(recipe: Recipe, classes: ClassTable, output: str) -> Imported:
    """Load `recipe.network.weights` into its network, and write a checkpoint of iteration 0 into the folder `output`.

    Raises UserError if the weights do not fit (see `load.load`) or the folder is not empty.
    """
    place = locate(output)
    if place.exists() or place.files():
        raise UserError(f"{output} is not empty: give another --output")
    torch.manual_seed(recipe.seed)
    loaded = load(recipe.network, len(classes), classes.names)
    # Runs that start from the checkpoint must not look for the file again.
    own = dataclasses.replace(recipe, network=loaded.network.config)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        meta = CheckpointMeta(Provenance(own, weights_sha256=loaded.sha256, software=Software.here()), 0, classes, [])
        checkpoint.save(folder, loaded.network, None, meta)
        # checkpoint.json comes last, since it makes the folder a checkpoint.
        for file in sorted(folder.iterdir(), key=lambda file: file.name == META):
            (place / file.name).write_bytes(file.read_bytes())
    return Imported(place.uri, loaded.network.config, loaded.report)
