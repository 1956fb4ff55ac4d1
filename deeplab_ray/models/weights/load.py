"""Loading of a network's weights: from a download, a file or a checkpoint, or at random."""

import hashlib
import urllib.error
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from deeplab_ray import runs
from deeplab_ray.config.network import NetworkConfig
from deeplab_ray.errors import UserError
from deeplab_ray.models.network import Network
from deeplab_ray.models.networks import create, network_class
from deeplab_ray.models.weights import own
from deeplab_ray.models.weights.caffe_format import parse
from deeplab_ray.models.weights.files import read_file, read_state_dict
from deeplab_ray.models.weights.mapping import Line, StateDict
from deeplab_ray.models.weights.start import DOWNLOADS, STAGES, check_start
from deeplab_ray.storage.location import Location, locate


@dataclass(frozen=True)
class Loaded:
    """A network with its weights, and where they come from."""

    network: Network
    report: list[Line]
    """What became of every tensor."""
    sha256: str | None
    """Digest of the file of weights, or of a checkpoint's model.pt; None for random weights."""


def load(config: NetworkConfig, classes: int, names: tuple[str, ...] | None = None) -> Loaded:
    """Make a network and load its weights; in its `config`, "auto" is replaced by what the weights need.

    names: names of the classes. A checkpoint's classifier is taken only if its classes have the same names (None: if
    they are as many).
    Raises UserError if a download fails (naming the file to fetch), a file is of no known kind, or a tensor is missing,
    unexpected, or of another shape.
    """
    if config.weights in STAGES:
        check_start(config)
    if config.weights == "random":
        network = create(config, classes)
        report = [Line(name, "", "left at initialisation: random weights") for name in network.state_dict()]
        return Loaded(network, report, None)
    kind = network_class(config)
    if config.weights in DOWNLOADS:
        if config.classifier is None:
            raise UserError(f"there are no downloads for {config.name}: give --weights FILE, or --weights random")
        tensors = _download(config.weights, config.classifier)
        return Loaded(*kind.pretrained(config, classes, StateDict(f"{config.weights}'s weights", tensors)), None)
    if not config.weights.endswith((".pth", ".pt", ".caffemodel")) and (place := _checkpoint(config.weights)):
        return Loaded(*own.from_checkpoint(config, classes, names, place), own.digest(place))
    if config.weights.endswith(".caffemodel"):
        content = read_file(locate(config.weights))
        digest = hashlib.sha256(content).hexdigest()
        return Loaded(*kind.pretrained(config, classes, parse(content, config.weights)), digest)
    file = read_state_dict(config.weights)
    network, report = kind.pretrained(config, classes, StateDict(config.weights, file.tensors))
    return Loaded(network, file.complete(report), file.sha256)


def _download(weights: str, classifier: str) -> dict[str, Tensor]:
    # Imported late, because it takes as long as importing torch.
    from torchvision.models import get_model_weights

    entry = DOWNLOADS[weights]
    if entry not in (choices := get_model_weights(classifier)).__members__:
        raise UserError(f"torchvision has no {entry} of {classifier}: take --weights torchvision")
    published = choices[entry]
    try:
        return dict(published.get_state_dict(progress=False, check_hash=True))
    except (urllib.error.URLError, OSError, RuntimeError):
        file = published.url.rsplit("/", 1)[-1]
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        raise UserError(
            f"{file} cannot be downloaded here: copy it from {published.url} into {cache}, or give it with "
            "--weights FILE (a path or s3:// URI), or start from --weights random"
        ) from None


def _checkpoint(uri: str) -> Location | None:
    try:
        return runs.find(uri)
    except UserError:
        return None
