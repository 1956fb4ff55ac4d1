"""A checkpoint is a folder: model.pt, optimizer.pt and checkpoint.json (config, iteration, classes, history)."""

import dataclasses
import io
import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn, optim

from deeplab_ray.config.recipe import Config, from_json
from deeplab_ray.errors import UserError
from deeplab_ray.models.networks.deeplab_v2 import DeepLab
from deeplab_ray.models.weights.files import foreign
from deeplab_ray.storage.location import Location, locate

NAME = "ckpt_{:06d}"
SNAPSHOT = "checkpoint_manager_snapshot.json"
"""Ray Train's own record of a run, beside the run's checkpoints."""
_META = "checkpoint.json"
_MODEL = "model.pt"
_OPTIMIZER = "optimizer.pt"


@dataclass(frozen=True)
class CheckpointMeta:
    """What a checkpoint says of itself."""

    config: Config
    iteration: int
    """Updates done."""
    classes: tuple[str, ...]
    history: list[dict[str, float]]
    """What was logged so far: iteration, loss, learning_rate, images_per_s, and miou where it was measured."""


def save(folder: Path, model: nn.Module, optimizer: optim.Optimizer, meta: CheckpointMeta) -> None:
    """Write a checkpoint into an existing local folder."""
    torch.save(model.state_dict(), folder / _MODEL)
    torch.save(optimizer.state_dict(), folder / _OPTIMIZER)
    (folder / _META).write_text(json.dumps(dataclasses.asdict(meta)), encoding="utf-8")


def read_meta(location: Location) -> CheckpointMeta:
    """What the checkpoint at `location` says of itself; UserError where there is none."""
    try:
        fields: dict[str, Any] = json.loads((location / _META).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"no checkpoint at {location}: give the folder of a checkpoint (ckpt_…) or of a training run"
        ) from None
    except ValueError as error:
        raise UserError(f"{location / _META} is no JSON ({error}): the checkpoint is broken, take another") from None
    if missing := {field.name for field in dataclasses.fields(CheckpointMeta)} - set(fields):
        raise UserError(f"{location / _META} has no {min(missing)!r}: the checkpoint is broken, take another")
    config = from_json(json.dumps(fields["config"]), Config, str(location / _META))
    return CheckpointMeta(config, fields["iteration"], tuple(fields["classes"]), fields["history"])


def is_one(location: Location) -> bool:
    """Whether the folder is a checkpoint itself."""
    return (location / _META).exists()


def find(uri: str) -> Location:
    """The checkpoint that `uri` names: itself, or the newest one of the training run whose folder it is.

    Raises UserError where there is none.
    """
    location = locate(uri)
    if is_one(location):
        return location
    newest = latest(location)
    if newest is None:
        raise UserError(f"no checkpoint at {uri}: give the folder of a checkpoint (ckpt_…) or of a training run")
    return newest


def latest(run: Location) -> Location | None:
    """The newest complete checkpoint of a training run, by Ray Train's record; None before the first.

    Raises UserError where the record is broken.
    """
    if not (run / SNAPSHOT).exists():
        return None
    try:
        newest = json.loads((run / SNAPSHOT).read_bytes())["latest_checkpoint_result"]
    except (ValueError, KeyError) as error:
        raise UserError(f"{run / SNAPSHOT} is broken ({error}): give a checkpoint's folder (ckpt_…) itself") from None
    return run / newest["checkpoint_dir_name"] if newest else None


def load_model(location: Location) -> tuple[DeepLab, CheckpointMeta]:
    """The network of a checkpoint, in evaluation mode on the CPU, and its meta data."""
    meta = read_meta(location)
    model = DeepLab(meta.config.model, len(meta.classes))
    model.load_state_dict(_tensors(location / _MODEL))
    return model.eval(), meta


def read_tensors(location: Location) -> dict[str, Tensor]:
    """The network's tensors of a checkpoint, by name, on the CPU; UserError where they cannot be read."""
    return _tensors(location / _MODEL)


def restore(location: Location, model: nn.Module, optimizer: optim.Optimizer) -> CheckpointMeta:
    """Put a checkpoint's weights and optimiser state into the objects of a run that goes on."""
    model.load_state_dict(_tensors(location / _MODEL))
    optimizer.load_state_dict(_tensors(location / _OPTIMIZER))
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                # In memory as the parameter is here: fused updates go through both side by side.
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
        # Not PyTorch's own words, which advise to load unsafely.
        reason = f"it is {kind[0]}" if kind else type(error).__name__
        raise UserError(f"{location} cannot be read ({reason}): the checkpoint is broken, take another") from None
