"""The folder of a training run: where the run comes from, and which of its checkpoints is the newest.

    RUN/run.json                            where the run comes from (`Provenance`)
    RUN/ckpt_000500/checkpoint.json         the same, with iteration, classes and history
                    model.pt, optimizer.pt
    RUN/checkpoint_manager_snapshot.json    Ray Train's record of the checkpoints

This module needs no PyTorch.
"""

import json
import platform
import subprocess
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import deeplab_ray
from deeplab_ray.config.io import as_dict, from_dict, json_text
from deeplab_ray.config.recipe import Recipe
from deeplab_ray.config.resources import TrainingResources
from deeplab_ray.config.scoring import ScoringConfig
from deeplab_ray.errors import UserError, quote
from deeplab_ray.labels import ClassTable
from deeplab_ray.shards import Split
from deeplab_ray.storage.location import Location, locate

RUN = "run.json"
META = "checkpoint.json"
SNAPSHOT = "checkpoint_manager_snapshot.json"
"""Ray Train's own record of a run's checkpoints, which lies beside them."""
_PACKAGES = ("torch", "torchvision", "ray", "numpy", "pillow", "pyarrow", "numba")


def checkpoint_name(iteration: int) -> str:
    """Return the name of the folder of the checkpoint after `iteration` updates."""
    return f"ckpt_{iteration:06d}"


@dataclass(frozen=True)
class DataRecord:
    """A prepared split that a run used."""

    uri: str
    split: str
    reader: str
    """Name of the dataset reader that prepared it."""
    images: int
    digest: str
    """sha256 of the whole split, see `shards.Manifest`."""

    @classmethod
    def of(cls, split: Split) -> "DataRecord":
        """Make the record of a split."""
        manifest = split.manifest
        return cls(split.folder.uri, manifest.split, manifest.reader, manifest.images, manifest.digest)


@dataclass(frozen=True)
class Software:
    """Versions of the software that computed a run."""

    version: str
    """Version of this package."""
    commit: str | None
    """Commit of the checkout, with "+" if it had changes; None if there is no checkout."""
    python: str
    packages: tuple[str, ...]
    """name==version of each package that matters."""

    @classmethod
    def here(cls) -> "Software":
        """Return the versions in this process."""
        installed = {name: _version(name) for name in _PACKAGES}
        packages = tuple(f"{name}=={version}" for name, version in installed.items() if version)
        return cls(deeplab_ray.__version__, _commit(), platform.python_version(), packages)


@dataclass(frozen=True)
class Provenance:
    """Where a run comes from."""

    recipe: Recipe
    resources: TrainingResources = field(default_factory=TrainingResources)
    train: DataRecord | None = None
    """Training data; None for weights that were imported."""
    validation: DataRecord | None = None
    weights_sha256: str | None = None
    """Digest of the file of weights that it started from (`recipe.network.weights`); None for random weights and
    downloads."""
    software: Software | None = None


@dataclass(frozen=True)
class CheckpointMeta:
    """What checkpoint.json says about a checkpoint."""

    run: Provenance
    iteration: int
    """Number of updates done."""
    classes: ClassTable
    """What it predicts."""
    history: list[dict[str, float]]
    """What was logged so far: iteration, loss, learning_rate, images_per_s, and miou if it was measured."""

    @property
    def recipe(self) -> Recipe:
        """The recipe of the run."""
        return self.run.recipe

    def to_json(self) -> str:
        """Return the text of checkpoint.json."""
        fields = {"run": as_dict(self.run), "iteration": self.iteration, **self.classes.to_json()}
        return json_text(fields | {"history": self.history})


def is_checkpoint(location: Location) -> bool:
    """Return whether the folder is itself a checkpoint."""
    return (location / META).exists()


def is_run(location: Location) -> bool:
    """Return whether the folder holds a training run that has begun."""
    return (location / RUN).exists() or (location / SNAPSHOT).exists()


def find(uri: str) -> Location:
    """Return the checkpoint that `uri` names: the folder itself, or the newest checkpoint if it is that of a run.

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
    """Return the newest complete checkpoint of a training run, by Ray Train's record; None before the first.

    Raises UserError if the record is broken.
    """
    if not (run / SNAPSHOT).exists():
        return None
    try:
        newest = json.loads((run / SNAPSHOT).read_bytes())["latest_checkpoint_result"]
    except (ValueError, KeyError) as error:
        raise UserError(f"{run / SNAPSHOT} is broken ({error}): give a checkpoint's folder (ckpt_…) itself") from None
    return run / newest["checkpoint_dir_name"] if newest else None


def read_meta(location: Location) -> CheckpointMeta:
    """Read the checkpoint.json of the checkpoint at `location`. Raises UserError if there is none, or it is broken."""
    file = location / META
    try:
        fields: dict[str, Any] = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"no checkpoint at {location}: give the folder of a checkpoint (ckpt_…) or of a training run"
        ) from None
    except ValueError as error:
        raise UserError(f"{file} is not JSON ({error}): the checkpoint is broken, take another") from None
    if missing := {"run", "iteration", "classes", "history"} - set(fields):
        raise UserError(
            f"{file} has no {min(missing)!r}: the checkpoint is broken or of an earlier version, take another"
        )
    try:
        classes = ClassTable.from_json(fields)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{file} has no table of classes ({quote(error)}): it is of an earlier version, take another"
        ) from None
    return CheckpointMeta(
        from_dict(fields["run"], Provenance, str(file)), fields["iteration"], classes, fields["history"]
    )


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
    """Return the commit of the checkout that this package lies in; None if it is not a checkout, or git is missing."""
    folder = Path(__file__).parents[1]
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
