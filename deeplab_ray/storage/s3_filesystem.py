"""S3 as a pyarrow filesystem that can be pickled without a secret, and that keys for one prefix alone can use."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow as pa
from pyarrow import fs

from deeplab_ray.storage import s3

_DENIED = "ACCESS_DENIED"


class _OwnSettings(fs.FileSystemHandler):
    """Hand everything to pyarrow's S3FileSystem, made by the settings of the process that asks.

    It has no state, so that a pickled one holds neither keys nor what holds on one machine alone, such as a path of CA
    certificates; Ray Train sends its filesystem to every worker. Keys that were renewed meanwhile are taken up.
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _OwnSettings)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(_OwnSettings)

    def get_type_name(self) -> str:
        return "s3"

    def normalize_path(self, path: str) -> str:
        return s3.filesystem().normalize_path(path)

    def get_file_info(self, paths: list[str]) -> list[fs.FileInfo]:
        return [_info(path) for path in paths]

    def get_file_info_selector(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        return s3.filesystem().get_file_info(selector)

    def create_dir(self, path: str, recursive: bool) -> None:
        """Nothing: S3 has no folders, and pyarrow would ask for the whole bucket to make an object in their place."""

    def delete_dir(self, path: str) -> None:
        _delete_below(path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool) -> None:
        _delete_below(path)

    def delete_root_dir_contents(self) -> None:
        raise PermissionError("refused to delete all buckets")

    def delete_file(self, path: str) -> None:
        s3.filesystem().delete_file(path)

    def move(self, source: str, destination: str) -> None:
        s3.filesystem().move(source, destination)

    def copy_file(self, source: str, destination: str) -> None:
        s3.filesystem().copy_file(source, destination)

    def open_input_stream(self, path: str) -> pa.NativeFile:
        return _open(path, partial(s3.filesystem().open_input_stream, compression=None))

    def open_input_file(self, path: str) -> pa.NativeFile:
        return _open(path, s3.filesystem().open_input_file)

    def open_output_stream(self, path: str, metadata: dict[str, Any]) -> pa.NativeFile:
        return s3.filesystem().open_output_stream(path, compression=None, metadata=metadata or None)

    def open_append_stream(self, path: str, metadata: dict[str, Any]) -> pa.NativeFile:
        return s3.filesystem().open_append_stream(path, compression=None, metadata=metadata or None)


S3 = fs.PyFileSystem(_OwnSettings())
"""S3 by the settings of whatever process uses it. Each operation raises UserError as `s3.settings` does."""


def _info(path: str) -> fs.FileInfo:
    try:
        return s3.filesystem().get_file_info(path)
    except OSError as error:
        if _DENIED not in str(error) or (listed := _listed(path)) in (None, fs.FileType.File):
            raise
        return fs.FileInfo(path, listed)


def _open(path: str, opener: Callable[..., pa.NativeFile]) -> pa.NativeFile:
    try:
        return opener(path)
    except OSError as error:
        if _DENIED not in str(error) or _listed(path) in (None, fs.FileType.File):
            raise
        raise FileNotFoundError(f"there is no object {path}") from None


def _delete_below(path: str) -> None:
    """Delete all objects below the folder. pyarrow would ask for more rights, and make an object for its parent."""
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, key = path.strip("/").partition("/")
    if not key:
        raise PermissionError(f"refused to delete all of the bucket {bucket}")
    client = s3.client()
    try:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{key}/"):
            if objects := [{"Key": entry["Key"]} for entry in page.get("Contents", ())]:
                done = client.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
                for error in done.get("Errors", ()):
                    raise OSError(f"{bucket}/{error.get('Key')} cannot be deleted: {error.get('Code')}")
    except (BotoCoreError, ClientError) as error:
        raise OSError(f"what lies in {path} cannot be deleted: {error}") from error


def _listed(path: str) -> fs.FileType | None:
    """What is at `path` by what may be listed there; None if nothing may be.

    AWS refuses to say that an object does not exist (it answers 403, not 404) to keys that may not list the whole
    bucket. A listing below the prefix that they may use tells.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, key = path.strip("/").partition("/")
    found = None
    for prefix, kind in ((f"{key}/" if key else "", fs.FileType.Directory), (key, fs.FileType.File)):
        try:
            # In the order of their names, so that the object `key` itself would be the first.
            listing = s3.client().list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
        except (BotoCoreError, ClientError):
            continue
        names = [entry["Key"] for entry in listing.get("Contents", ())]
        if names and (kind == fs.FileType.Directory or names == [key]):
            return kind
        found = fs.FileType.NotFound
    return found
