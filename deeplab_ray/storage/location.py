"""A local path or an s3:// URI → a filesystem, and the few things that are done with files.

How S3 is reached is no part of a location: every process finds out for itself (see `storage.s3`), and so needs the
AWS_* variables or files, or a role of the machine.
"""

import heapq
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from uuid import uuid4

from pyarrow import fs

from deeplab_ray.errors import UserError
from deeplab_ray.storage import s3
from deeplab_ray.storage.patience import with_patience
from deeplab_ray.storage.s3_filesystem import S3

_PAGE = 1000
_ESCAPED = re.compile(rb"\\x([89a-f][0-9a-f])")


@dataclass(frozen=True)
class Location:
    """A place in a filesystem: a file or a folder, local or on S3. Picklable; holds no secret."""

    uri: str
    """What the user would type: an absolute local path or s3://bucket/key."""
    path: str
    """The same without scheme, as the pyarrow filesystem wants it."""

    @property
    def is_s3(self) -> bool:
        return self.uri.startswith("s3://")

    @property
    def filesystem(self) -> fs.FileSystem:
        """For `path`. Picklable without a secret, too."""
        return S3 if self.is_s3 else _LOCAL

    @property
    def name(self) -> str:
        return self.path.rstrip("/").rsplit("/", 1)[-1]

    @property
    def is_root(self) -> bool:
        """Whether it is a whole bucket, or the root of the local filesystem."""
        return "/" not in self.path if self.is_s3 else self.path == "/"

    @property
    def parent(self) -> "Location":
        """The folder that it lies in; of a root, itself."""
        if self.is_root:
            return self
        above = [text.rsplit("/", 1)[0] or "/" for text in (self.uri, self.path)]
        return Location(*above)

    def __truediv__(self, name: str) -> "Location":
        return Location(f"{self.uri.rstrip('/')}/{name}", f"{self.path.rstrip('/')}/{name}")

    def __str__(self) -> str:
        return self.uri

    def exists(self) -> bool:
        return self.filesystem.get_file_info(self.path).type != fs.FileType.NotFound

    def is_file(self) -> bool:
        return self.filesystem.get_file_info(self.path).type == fs.FileType.File

    def read_bytes(self) -> bytes:
        """The file's content; FileNotFoundError if there is none."""
        with self.filesystem.open_input_file(self.path) as file:
            return file.read()

    def write_bytes(self, content: bytes) -> None:
        """Publish a file in one step: a reader sees the old content or the new, never a part."""
        if self.is_s3:
            with self.filesystem.open_output_stream(self.path) as stream:
                stream.write(content)
            return
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        aside = Path(f"{self.path}.{uuid4().hex}.part")
        try:
            aside.write_bytes(content)
            aside.replace(self.path)
        finally:
            aside.unlink(missing_ok=True)

    def files(self, recursive: bool = False) -> list[str]:
        """Paths below this folder, relative to it, sorted; files only; empty if there is no folder."""
        selector = fs.FileSelector(self.path, allow_not_found=True, recursive=recursive)
        start = len(self.path.rstrip("/")) + 1
        infos = self.filesystem.get_file_info(selector)
        return sorted(info.path[start:] for info in infos if info.type == fs.FileType.File)

    def folders(self) -> list[str]:
        """Names of the folders in this one, sorted; empty if there is no folder."""
        infos = self.filesystem.get_file_info(fs.FileSelector(self.path, allow_not_found=True))
        return sorted(info.base_name for info in infos if info.type == fs.FileType.Directory)

    def walk(self, exclude: "Location | None" = None) -> Iterator[list[str]]:
        """Yield the paths of all that lies below this folder, relative to it, some thousand at a time, in no order.

        It holds in memory what it yields and, on a disk, a few numbers a folder: made for millions of files. Left out
        are hidden files and folders (.…) and what lies in the folder `exclude`. All but folders is yielded, a dangling
        link, too. Of a folder that may not be searched its own path comes, with a / at its end. Each folder is searched
        once, however many links lead to it: those to the folders in here give nothing more, and loops end. A name that
        is not UTF-8 comes with \\x.. for the bytes that are not; `local_path` leads back.

        Storage that fails is waited for. Raises FileNotFoundError or NotADirectoryError if there is no such folder
        or bucket (of a prefix on S3 nothing is yielded), PermissionError if this one may not be searched, JobError if
        storage goes on failing.
        """
        if self.is_s3:
            return _walk_bucket(self.path, exclude.path if exclude and exclude.is_s3 else None)
        return _walk_disk(self.path, exclude.path if exclude and not exclude.is_s3 else None)

    def local_path(self, name: str) -> str:
        """Path of a file below this local folder, by its name as `walk` gives it; for Python's `open`, not pyarrow."""
        path = os.path.join(self.path, name)
        if "\\x" in name and not os.path.lexists(path):
            return os.fsdecode(_ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), os.fsencode(path)))
        return path

    def delete_tree(self) -> None:
        """Remove the folder and all that lies in it; nothing happens if there is none.

        Raises UserError for a whole bucket, which may hold the work of others.
        """
        if self.is_root:
            raise UserError(f"{self} is a whole bucket or disk, which is not ours to empty: name a folder in it")
        if self.exists():
            self.filesystem.delete_dir(self.path)

    def download(self, folder: Path) -> Path:
        """Copy the files of this folder into a local one; returns `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in self.files(recursive=True):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((self / name).read_bytes())
        return folder


_LOCAL = fs.LocalFileSystem()


def _walk_disk(top: str, exclude: str | None) -> Iterator[list[str]]:
    searched: set[tuple[int, int]] = set()
    if exclude and os.path.isdir(exclude):
        searched.add(_identity(exclude))
    page: list[str] = []
    # Links wait until all real folders have been searched, so that it is always the same path that a folder has.
    folders, links = [""], list[str]()
    while folders or links:
        folder = folders.pop() if folders else heapq.heappop(links)
        path = os.path.join(top, folder)
        try:
            if (identity := _identity(path)) in searched:
                continue
            searched.add(identity)
            entries = with_patience(partial(os.scandir, path), path)
        except (FileNotFoundError, NotADirectoryError):
            if not folder:
                raise
            continue
        except PermissionError:
            if not folder:
                raise
            page.append(f"{_printable(folder)}/")
            continue
        with entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                below = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir(follow_symlinks=False):
                    folders.append(below)
                elif entry.is_symlink() and _leads_to_folder(entry):
                    heapq.heappush(links, below)
                else:
                    page.append(_printable(below))
                if len(page) >= _PAGE:
                    yield page
                    page = []
    if page:
        yield page


def _identity(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _leads_to_folder(link: "os.DirEntry[str]") -> bool:
    try:
        return link.is_dir()
    except OSError:  # it leads to itself, or to where we may not look: as one that dangles
        return False


def _printable(name: str) -> str:
    """A name from the disk as UTF-8, with \\x.. for bytes that are not."""
    return name if name.isascii() else os.fsencode(name).decode("utf-8", "backslashreplace")


def _walk_bucket(path: str, exclude: str | None) -> Iterator[list[str]]:
    bucket, _, key = path.partition("/")
    start = f"{key}/" if key else ""
    left_out, token = f"{exclude}/", dict[str, str]()
    while True:
        page = with_patience(partial(_page, bucket, start, token), f"s3://{path}")
        names = [
            key[len(start) :]
            for key in (entry["Key"] for entry in page.get("Contents", ()))
            if not (key.endswith("/") or f"{bucket}/{key}".startswith(left_out))
        ]
        if names := [name for name in names if not (name.startswith(".") or "/." in name)]:
            yield names
        if not page.get("IsTruncated"):
            return
        token = {"ContinuationToken": page["NextContinuationToken"]}


def _page(bucket: str, prefix: str, token: dict[str, str]) -> dict[str, Any]:
    """One answer of ListObjectsV2; OSError of the kind that a disk would give."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return s3.client().list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=_PAGE, **token)
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        kind = {403: PermissionError, 404: FileNotFoundError}.get(status, OSError)
        raise kind(f"s3://{bucket}/{prefix} cannot be listed: {error}") from error
    except BotoCoreError as error:
        raise OSError(f"s3://{bucket}/{prefix} cannot be listed: {error}") from error


def locate(uri: str | os.PathLike[str]) -> Location:
    """The location of a local path (made absolute) or an s3://bucket/key URI.

    Raises UserError for any other scheme, for an s3 URI without a bucket, and for one that carries keys.
    """
    text = os.fspath(uri)
    if "://" not in text:
        path = os.path.abspath(os.path.expanduser(text))
        return Location(path, path)
    try:
        parsed = urlparse(text)
    except ValueError:
        raise UserError("that is no URI: give a local path or s3://bucket/prefix") from None
    if parsed.scheme == "file":
        return locate(parsed.path)
    if parsed.scheme != "s3":
        raise UserError(f"{parsed.scheme}:// is not supported: give a local path or s3://bucket/prefix")
    if "@" in parsed.netloc or ":" in parsed.netloc or parsed.query or parsed.fragment:
        raise UserError("an s3:// URI must not carry keys or options: set the AWS_* environment variables")
    if not parsed.netloc:
        raise UserError(f"{text!r} names no bucket: write s3://bucket/prefix")
    path = (parsed.netloc + parsed.path).rstrip("/")
    if "//" in path:
        raise UserError(f"{text!r} has an empty name between two slashes: write s3://bucket/prefix")
    return Location(f"s3://{path}", path)
