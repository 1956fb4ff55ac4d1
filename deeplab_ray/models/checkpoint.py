"""Checkpoints: folders with model.pt, optimizer.pt and checkpoint.json (see `runs` for where they lie)."""

import io
import pickle
from pathlib import Path

import torch
from torch import Tensor, nn, optim

from deeplab_ray.config.network import NetworkConfig
from deeplab_ray.errors import UserError
from deeplab_ray.models.network import Network
from deeplab_ray.models.networks import create
from deeplab_ray.models.weights.files import foreign
from deeplab_ray.runs import META, CheckpointMeta, read_meta
from deeplab_ray.storage.location import Location

MODEL = "model.pt"
OPTIMIZER = "optimizer.pt"


def save(folder: Path, network: nn.Module, optimizer: optim.Optimizer | None, meta: CheckpointMeta) -> None:
    """Write a checkpoint into an existing local folder. Without an optimizer, training cannot resume from it."""
    torch.save(network.state_dict(), folder / MODEL)
    if optimizer is not None:
        torch.save(optimizer.state_dict(), folder / OPTIMIZER)
    (folder / META).write_text(meta.to_json(), encoding="utf-8")


def load_model(location: Location, config: NetworkConfig, classes: int) -> Network:
    """Load the network of a checkpoint, in evaluation mode on the CPU, given its options (`CheckpointMeta.recipe`).

    Raises UserError if the weights cannot be read.
    """
    network = create(config, classes)
    network.load_state_dict(read_tensors(location))
    return network.eval()


def read_tensors(location: Location) -> dict[str, Tensor]:
    """Read the network's tensors of a checkpoint, by name, to the CPU. Raises UserError if they cannot be read."""
    return _tensors(location / MODEL)


def restore(location: Location, network: nn.Module, optimizer: optim.Optimizer) -> CheckpointMeta:
    """Load a checkpoint's weights and optimiser state into the objects of a run that resumes, and return its meta.

    Raises UserError if a file of it is missing or broken.
    """
    network.load_state_dict(read_tensors(location))
    optimizer.load_state_dict(_tensors(location / OPTIMIZER))
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                # Laid out in memory as the parameter is, because fused updates go through both side by side.
                state[name] = torch.empty_like(parameter).copy_(value)
    return read_meta(location)


def _tensors(location: Location) -> dict[str, Tensor]:
    try:
        content = location.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{location} is missing: the checkpoint is incomplete, take another") from None
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        kind = foreign(content)
        # PyTorch's own message would advise to load unsafely.
        reason = f"it is {kind[0]}" if kind else type(error).__name__
        raise UserError(f"{location} cannot be read ({reason}): the checkpoint is broken, take another") from None
