"""A local path or an s3:// URI → a filesystem, and the few things that are done with files.

Endpoint, region and credentials of S3 come from the standard AWS environment variables only
(AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, …), so that no
secret is ever pickled into a task, printed, or saved with a config. Every process that opens S3 needs them in
its own environment (or a role of the machine).
"""

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse
from uuid import uuid4

from pyarrow import fs

from deeplab_ray.errors import UserError

_TIMEOUT_S = 30
_DEFAULT_REGION = "us-east-1"
_NO_KEYS = "no S3 keys found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role"


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
        return _s3_filesystem() if self.is_s3 else _LOCAL

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
        """The file's content; FileNotFoundError where there is none."""
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
        """Paths below this folder, relative to it, sorted; files only; empty where there is no folder."""
        selector = fs.FileSelector(self.path, allow_not_found=True, recursive=recursive)
        start = len(self.path.rstrip("/")) + 1
        infos = self.filesystem.get_file_info(selector)
        return sorted(info.path[start:] for info in infos if info.type == fs.FileType.File)

    def delete_tree(self) -> None:
        """Remove the folder and all that lies in it; nothing happens where there is none.

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


def check_file(location: Location) -> None:
    """Raise UserError where an output file cannot be: it is a folder, or what should be its folder cannot be one."""
    if location.exists() and not location.is_file():
        raise UserError(f"{location} is a folder: --output is a file")
    check_folder(location.parent)


def check_folder(location: Location) -> None:
    """Raise UserError where an output folder cannot be: it, or what is above it, is a file or may not be written."""
    if location.is_file():
        raise UserError(f"{location} is a file: --output is a folder")
    if not location.is_s3:
        try:
            above = next(place for place in (Path(location.path), *Path(location.path).parents) if place.exists())
        except OSError as error:
            raise UserError(f"{location} cannot be written to ({error.strerror}): give another output") from None
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            raise UserError(f"{location} cannot be written to: {above} is no folder that you may write to")


def endpoint_url() -> str | None:
    """The S3 endpoint that the environment names, or None for AWS itself."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def _region() -> str | None:
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return region or (_DEFAULT_REGION if endpoint_url() else None)


def _s3_filesystem() -> fs.S3FileSystem:
    options: dict[str, object] = {"request_timeout": _TIMEOUT_S, "connect_timeout": _TIMEOUT_S}
    endpoint = endpoint_url()
    if endpoint:
        options["scheme"], _, options["endpoint_override"] = endpoint.rpartition("://")
        options["scheme"] = options["scheme"] or "https"
        options["endpoint_override"] = str(options["endpoint_override"]).rstrip("/")
    if _region():
        options["region"] = _region()
    return fs.S3FileSystem(**options)


def check_access(*locations: Location) -> None:
    """Find out, before a job starts its work, that the buckets are there and that the keys open them.

    Raises UserError naming what is wrong: no such bucket, keys refused or missing, endpoint not reachable.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ConfigParseError,
        InvalidRegionError,
        NoCredentialsError,
        ParamValidationError,
        PartialCredentialsError,
        ProfileNotFound,
    )

    buckets = sorted({location.path.split("/", 1)[0] for location in locations if location.is_s3})
    if not buckets:
        return
    where = endpoint_url() or "AWS"
    # No proxies: pyarrow, which moves the data, takes none from the environment.
    options = Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 2}, proxies={})
    try:
        # A session of its own: boto3's default one keeps the keys that it found first.
        client = boto3.session.Session().client(
            "s3", endpoint_url=endpoint_url(), region_name=_region(), config=options
        )
    except InvalidRegionError:
        raise UserError(f"AWS_REGION is {_region()!r}, which is no region's name: correct or unset it") from None
    except ValueError:
        raise UserError(f"AWS_ENDPOINT_URL is {where!r}: write http://host:port or https://host") from None
    except ProfileNotFound:
        raise UserError("AWS_PROFILE names a profile that does not exist: correct or unset it") from None
    except PartialCredentialsError:
        raise UserError(_NO_KEYS) from None
    except ConfigParseError as error:
        raise UserError(f"{error}: mend the file, or point AWS_CONFIG_FILE to another") from None
    for bucket in buckets:
        try:
            client.head_bucket(Bucket=bucket)
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if status == 404:
                problem = f"S3 bucket {bucket!r} does not exist at {where}: make it, or correct the URI"
            elif status in (400, 401, 403):
                problem = (
                    f"S3 at {where} refuses these keys for bucket {bucket!r} (HTTP {status}): check "
                    "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they may do"
                )
            else:
                problem = f"S3 at {where} answered HTTP {status} for bucket {bucket!r}: try again later"
            raise UserError(problem) from None
        except ParamValidationError:
            raise UserError(f"{bucket!r} is no name for a bucket: correct the URI") from None
        except (NoCredentialsError, PartialCredentialsError):
            raise UserError(_NO_KEYS) from None
        except BotoCoreError as error:
            kind = type(error).__name__
            raise UserError(f"S3 at {where} cannot be reached ({kind}): check AWS_ENDPOINT_URL") from None
