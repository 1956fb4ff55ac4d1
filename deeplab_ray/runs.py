"""The folder of a training run: what it says of itself, and which of its checkpoints is the newest.

    RUN/run.json                            where the run comes from (`Provenance`)
    RUN/ckpt_000500/checkpoint.json         the same, iteration, classes, history
                    model.pt, optimizer.pt
    RUN/checkpoint_manager_snapshot.json    Ray Train's record of the checkpoints

No PyTorch is needed to read it.
"""

import json
import platform
import subprocess
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import deeplab_ray
from deeplab_ray.config.io import from_dict
from deeplab_ray.config.recipe import Recipe
from deeplab_ray.config.resources import TrainingResources
from deeplab_ray.config.scoring import ScoringConfig
from deeplab_ray.errors import UserError, quote
from deeplab_ray.shards import Split
from deeplab_ray.storage.location import Location, locate

RUN = "run.json"
META = "checkpoint.json"
SNAPSHOT = "checkpoint_manager_snapshot.json"
"""Ray Train's own record of a run, beside the run's checkpoints."""
_PACKAGES = ("torch", "torchvision", "ray", "numpy", "pillow", "pyarrow", "numba")


def checkpoint_name(iteration: int) -> str:
    """Name of the folder of a checkpoint after so many updates."""
    return f"ckpt_{iteration:06d}"


@dataclass(frozen=True)
class DataRecord:
    """A prepared split that a run used."""

    uri: str
    split: str
    reader: str
    """Which reader prepared it."""
    images: int
    digest: str
    """sha256 of the whole split, see `shards.Manifest`."""

    @classmethod
    def of(cls, split: Split) -> "DataRecord":
        """The record of a split."""
        manifest = split.manifest
        return cls(split.folder.uri, manifest.split, manifest.reader, manifest.images, manifest.digest)


@dataclass(frozen=True)
class Software:
    """What a run was computed with."""

    version: str
    """Of this package."""
    commit: str | None
    """Of the checkout, where there is one; with "+" if it had changes."""
    python: str
    packages: tuple[str, ...]
    """name==version of those that take part."""

    @classmethod
    def here(cls) -> "Software":
        """That of this process."""
        installed = {name: _version(name) for name in _PACKAGES}
        packages = tuple(f"{name}=={version}" for name, version in installed.items() if version)
        return cls(deeplab_ray.__version__, _commit(), platform.python_version(), packages)


@dataclass(frozen=True)
class Provenance:
    """Where a run comes from."""

    recipe: Recipe
    resources: TrainingResources = field(default_factory=TrainingResources)
    train: DataRecord | None = None
    """None for weights that were imported."""
    validation: DataRecord | None = None
    weights_sha256: str | None = None
    """Of the file of weights that it started from (`recipe.network.weights`); None for random ones and downloads."""
    software: Software = field(default_factory=Software.here)


def is_checkpoint(location: Location) -> bool:
    """Whether the folder is a checkpoint itself."""
    return (location / META).exists()


def is_run(location: Location) -> bool:
    """Whether the folder holds a training run that has begun."""
    return (location / RUN).exists() or (location / SNAPSHOT).exists()


def find(uri: str) -> Location:
    """The checkpoint that `uri` names: itself, or the newest one of the training run whose folder it is.

    Raises UserError if there is none.
    """
    location = locate(uri)
    if is_checkpoint(location):
        return location
    newest = latest(location)
    if newest is None:
        raise UserError(f"no checkpoint at {uri}: give the folder of a checkpoint (ckpt_…) or of a training run")
    return newest


def latest(run: Location) -> Location | None:
    """The newest complete checkpoint of a training run, by Ray Train's record; None before the first.

    Raises UserError if the record is broken.
    """
    if not (run / SNAPSHOT).exists():
        return None
    try:
        newest = json.loads((run / SNAPSHOT).read_bytes())["latest_checkpoint_result"]
    except (ValueError, KeyError) as error:
        raise UserError(f"{run / SNAPSHOT} is broken ({error}): give a checkpoint's folder (ckpt_…) itself") from None
    return run / newest["checkpoint_dir_name"] if newest else None


def read_scoring(checkpoint: Location) -> ScoringConfig:
    """How a checkpoint's recipe scores images; UserError if the checkpoint is broken."""
    file = checkpoint / META
    try:
        scoring = json.loads(file.read_bytes())["run"]["recipe"]["scoring"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is broken ({quote(error)}), or of an earlier version: take another") from None
    return from_dict(scoring, ScoringConfig, str(file))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the checkout that this package lies in, if git is at hand and it is one."""
    folder = Path(__file__).parents[1]
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
