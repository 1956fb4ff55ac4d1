"""Put an output into its place in one step: whoever looks sees nothing, or all of it."""

from pathlib import Path
from uuid import uuid4

from deeplab_ray.errors import JobError, quote
from deeplab_ray.outputs.journal import PROGRESS
from deeplab_ray.storage.location import Location
from deeplab_ray.storage.patience import with_patience


def publish(output: Location, path: str, content: bytes) -> None:
    """Write output/path. On disk it is first written into the folder .progress, which `sweep` clears.

    Raises JobError if it cannot be written, as on a full disk, or if storage fails for long.
    """
    target = output / path
    try:
        with_patience(lambda: _write(output, target, content), target)
    except OSError as error:
        raise JobError(
            f"{target} cannot be written ({quote(error)}): fix that, and run the same command again"
        ) from error


def sweep(output: Location) -> None:
    """Remove what writers that were killed have left. Nothing may be writing."""
    (output / PROGRESS / "aside").delete_tree()


def _write(output: Location, target: Location, content: bytes) -> None:
    if target.is_s3:
        target.write_bytes(content)
        return
    aside = Path((output / PROGRESS / "aside" / uuid4().hex).path)
    aside.parent.mkdir(parents=True, exist_ok=True)
    Path(target.path).parent.mkdir(parents=True, exist_ok=True)
    try:
        aside.write_bytes(content)
        aside.replace(target.path)
    finally:
        aside.unlink(missing_ok=True)
