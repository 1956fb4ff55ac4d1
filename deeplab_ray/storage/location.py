"""A local path or an s3:// URI → a filesystem, and the few things that are done with files.

How S3 is reached is no part of a location: every process finds out for itself (see `storage.s3`), and so needs the
AWS_* variables or files, or a role of the machine.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse
from uuid import uuid4

from pyarrow import fs

from deeplab_ray.errors import UserError
from deeplab_ray.storage.s3_filesystem import S3


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
