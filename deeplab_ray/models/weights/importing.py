"""Pretrained weights → a checkpoint that can be evaluated, predicted with, or trained on."""

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
from deeplab_ray.models import checkpoint
from deeplab_ray.models.weights.load import load
from deeplab_ray.models.weights.mapping import Line
from deeplab_ray.runs import META, Provenance
from deeplab_ray.storage.location import locate


@dataclass(frozen=True)
class Imported:
    """A checkpoint, and where its tensors come from."""

    checkpoint: str
    """URI of its folder."""
    network: NetworkConfig
    """With the conventions that go with the weights."""
    report: list[Line]

    @property
    def options(self) -> dict[str, Any]:
        """The network's options, as its checkpoint has them."""
        return as_dict(self.network)

    @property
    def taken(self) -> int:
        """Tensors that are the file's."""
        return sum(bool(line.tensor and line.source) for line in self.report)

    @property
    def converted(self) -> int:
        """Those of them that were converted on the way."""
        return sum(bool(line.tensor and line.source) and line.how != "taken" for line in self.report)

    @property
    def left(self) -> int:
        """Tensors of the network that the file has nothing for."""
        return sum(not line.source for line in self.report)

    @property
    def unused(self) -> int:
        """Tensors and other entries of the file that the network has no use for."""
        return sum(not line.tensor for line in self.report)


def import_weights(recipe: Recipe, classes: tuple[str, ...], output: str) -> Imported:
    """Load `recipe.network.weights` into its network and write a checkpoint of iteration 0 into the folder `output`.

    Raises UserError for weights that do not fit (see `load.load`) and for a folder that is not empty.
    """
    place = locate(output)
    if place.exists() or place.files():
        raise UserError(f"{output} is not empty: give another --output")
    torch.manual_seed(recipe.seed)
    loaded = load(recipe.network, len(classes), classes)
    # Two runs that start from it must not look for the file again.
    own = dataclasses.replace(recipe, network=loaded.network.config)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        meta = checkpoint.CheckpointMeta(Provenance(own, weights_sha256=loaded.sha256), 0, classes, [])
        checkpoint.save(folder, loaded.network, None, meta)
        # What names the checkpoint as one comes last.
        for file in sorted(folder.iterdir(), key=lambda file: file.name == META):
            (place / file.name).write_bytes(file.read_bytes())
    return Imported(place.uri, loaded.network.config, loaded.report)
