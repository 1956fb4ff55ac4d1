"""Put a prepared split into its place in one step, or leave the place as it was."""

import contextlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from deeplab_ray.shards import MANIFEST, Bad, Manifest
from deeplab_ray.storage.location import Location
from deeplab_ray.storage.patience import with_patience

PROGRESS = ".progress"
"""Folder in a split's own that holds what only a run that goes on reads."""
REJECTED = "manifest.rejected.json"
# Folders of shards: those of today, and those of earlier versions.
_SHARDS = re.compile(r"shards-([0-9a-f]{12}|\d{8}-\d{6}-[0-9a-f]{6})")


def read_manifest(folder: Location) -> bytes | None:
    """The text of a split's manifest, of whichever format; None if there is none."""
    try:
        return with_patience((folder / MANIFEST).read_bytes, folder)
    except (FileNotFoundError, NotADirectoryError):
        return None


def is_published(folder: Location) -> bool:
    """Whether a split is there already. One that a run had just put there when it was killed does not count: the same
    command goes on."""
    manifest = read_manifest(folder)
    if manifest is None:
        return False
    runs = _runs(manifest)
    return not runs or not all((folder / PROGRESS / run).files() for run in runs)


def publish(folder: Location, manifest: Manifest) -> None:
    """Replace a split's manifest. JobError if storage fails for long."""
    with_patience(lambda: (folder / MANIFEST).write_bytes(manifest.to_json().encode()), folder)


def tidy(folder: Location, manifest: Manifest, old: bytes | None) -> None:
    """Remove what a published manifest does not name: shards of the `old` one, what runs that were killed have left,
    and what this one needed to go on. JobError if storage fails for long."""
    with_patience(lambda: _tidy(folder, manifest, old), folder)


def _tidy(folder: Location, manifest: Manifest, old: bytes | None) -> None:
    runs, named = _runs(manifest.to_json()), {shard.path for shard in manifest.shards}
    shards = {name for name in folder.folders() if _SHARDS.fullmatch(name)} | _runs(old or b"")
    for name in shards - runs:
        (folder / name).delete_tree()
    for run in runs:
        for name in (folder / run).files():
            if f"{run}/{name}" not in named:
                _delete(folder / run / name)
    for name in folder.files():
        if name.startswith(MANIFEST) and name.endswith(".part"):
            _delete(folder / name)
    (folder / PROGRESS).delete_tree()


def withdraw(folder: Location, run: str, old: bytes | None) -> None:
    """Leave a split's folder as it was before the run whose shards lie in folder/run."""
    if old is None:
        _delete(folder / MANIFEST)
    else:
        (folder / MANIFEST).write_bytes(old)
    if run not in _runs(old or b""):
        (folder / run).delete_tree()
    (folder / PROGRESS / run).delete_tree()
    for empty in (folder / PROGRESS, folder):
        if not empty.is_s3:
            with contextlib.suppress(OSError):
                Path(empty.path).rmdir()


def reject(folder: Location, dataset: str, pairs: int, bad: Sequence[Bad]) -> Location:
    """List what is bad of a split's pairs in a file of its own; returns the file."""
    listing = {"dataset": dataset, "split": folder.name, "pairs": pairs, "bad": [asdict(each) for each in bad]}
    text = json.dumps(listing, indent=1, ensure_ascii=False) + "\n"
    with_patience(lambda: (folder / REJECTED).write_bytes(text.encode()), folder)
    return folder / REJECTED


def forget_rejected(folder: Location) -> None:
    """Remove the list of an earlier run."""
    with_patience(lambda: _delete(folder / REJECTED), folder)


def _delete(file: Location) -> None:
    if file.exists():
        file.filesystem.delete_file(file.path)


def _runs(manifest: str | bytes) -> set[str]:
    """Names of the folders of shards that a manifest of any format names; a broken one names none."""
    try:
        runs = {shard["path"].split("/", 1)[0] for shard in json.loads(manifest)["shards"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        return set()
    return {run for run in runs if run.startswith("shards-")}
