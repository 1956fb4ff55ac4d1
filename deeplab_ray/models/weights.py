"""Where a trunk's weights come from: torchvision's download, a state dict in a file, or chance."""

import io
import urllib.error
from pathlib import Path

import torch
from torch import nn

from deeplab_ray.config import Backbone, ModelConfig
from deeplab_ray.errors import UserError
from deeplab_ray.models.deeplab import DeepLab
from deeplab_ray.storage import locate

# The image classifier on top of ImageNet nets, and the counters of batch norms, which ours are without.
_NOT_OURS = ("classifier.", "fc.", "num_batches_tracked")


def build(config: ModelConfig, classes: int) -> DeepLab:
    """The network with its trunk's weights loaded; the head is at its random start.

    Raises UserError when a download is not possible (naming the file to bring), when the file is not a state
    dict of this trunk, or a tensor of it has another shape.
    """
    model = DeepLab(config, classes)
    if config.weights == "torchvision":
        _load_trunk(model.trunk, _download(config.backbone), "torchvision's weights")
    elif config.weights != "random":
        _load_trunk(model.trunk, read_state_dict(config.weights), config.weights)
    return model


def read_state_dict(uri: str) -> dict[str, torch.Tensor]:
    """Tensors by name from a .pth file at a local path or s3:// URI; UserError when there is no such file."""
    location = locate(uri)
    try:
        content = location.read_bytes()
    except (FileNotFoundError, IsADirectoryError, OSError) as error:
        raise UserError(f"no weights at {uri} ({type(error).__name__}): give the path of a .pth state dict") from None
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{uri} is not a state dict that torch can load safely: {reason}") from None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{uri} holds no state dict (tensors by name)")
    return state


def _download(backbone: Backbone) -> dict[str, torch.Tensor]:
    # Late, because it takes as long as importing torch.
    from torchvision.models import get_model_weights

    published = get_model_weights(backbone)["IMAGENET1K_V1"]
    try:
        return dict(published.get_state_dict(progress=False, check_hash=True))
    except (urllib.error.URLError, OSError, RuntimeError):
        file = published.url.rsplit("/", 1)[-1]
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        raise UserError(
            f"{file} cannot be downloaded here: bring it from {published.url} into {cache}, or give it with "
            "--weights FILE (a path or s3:// URI), or start from --weights random"
        ) from None


def _load_trunk(trunk: nn.Module, state: dict[str, torch.Tensor], origin: str) -> None:
    state = {name: value.float() for name, value in state.items() if not any(part in name for part in _NOT_OURS)}
    own = trunk.state_dict()
    missing, unexpected = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    if missing or unexpected:
        problem = f"lacks {missing[0]}" if missing else f"holds {unexpected[0]}, which this trunk lacks"
        raise UserError(
            f"{origin} does not fit the trunk: it {problem} ({len(missing)} missing, {len(unexpected)} unexpected "
            "tensors): give a state dict with torchvision's names for this --backbone"
        )
    for name, value in state.items():
        if value.shape != own[name].shape:
            raise UserError(f"{origin}: {name} is {tuple(value.shape)}, this trunk needs {tuple(own[name].shape)}")
    trunk.load_state_dict(state)
