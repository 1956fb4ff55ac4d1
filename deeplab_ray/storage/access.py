"""Find out, before a job starts its work, whether it may read and write where it is going to.

What is asked of S3 is what the job will do, and nothing else, so that keys with few rights are as good as others:

    read         list below the folder, or look at the file
    write        write, read and delete an object below the folder, with a name that nothing else has
    write files  begin an upload of that very file, and give it up before anything is there

botocore asks first, since its errors say most; pyarrow, which does the work later, has to confirm.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from deeplab_ray.errors import UserError
from deeplab_ray.storage import s3
from deeplab_ray.storage.location import Location

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError

_PROBE = ".deeplab-ray-access-check-{}"
_PROBE_CONTENT = b"Written by deeplab-ray to see whether it may write here. It may be deleted.\n"
_DENIED = ("AccessDenied", "403")  # the latter of a HEAD, whose answer has no body
# By the operation that was denied.
_RIGHTS = {
    "ListObjectsV2": ("read", "s3:ListBucket and s3:GetObject"),
    "HeadObject": ("read", "s3:GetObject"),
    "PutObject": ("write to", "s3:PutObject"),
    "CreateMultipartUpload": ("write to", "s3:PutObject"),
    "DeleteObject": ("delete what lies in", "s3:DeleteObject"),
}
_KEYS = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile's keys"
# What is wrong with the keys, by S3's code, and what to do.
_BAD_KEYS = {
    "InvalidAccessKeyId": _KEYS,
    "SignatureDoesNotMatch": _KEYS,
    "InvalidToken": "check AWS_SESSION_TOKEN",
    "ExpiredToken": "they have expired, get new ones",
    "RequestTimeTooSkewed": "set this machine's clock right",
    "AuthorizationHeaderMalformed": "check AWS_REGION",
}


def check_access(
    *, read: Iterable[Location] = (), write: Iterable[Location] = (), write_files: Iterable[Location] = ()
) -> None:
    """Raise UserError, naming what is wrong, unless the job may do with these places what it is going to do.

    read: files or folders. write: folders in which files will be made and deleted. write_files: files that will be
    made or replaced. What is to be read need not exist. Nothing is left behind, locally or on S3.
    """
    read, write, write_files = dict.fromkeys(read), dict.fromkeys(write), dict.fromkeys(write_files)
    checks: tuple[tuple[Iterable[Location], Callable[[Any, Location], None], Callable[[Location], None]], ...] = (
        (read, _try_reading, _check_readable),
        (write, _try_writing, check_folder),
        (write_files, _try_uploading, check_file),
    )
    for locations, ask, confirm in checks:
        for location in locations:
            if location.is_s3:
                _on_s3(location, ask, confirm)
            else:
                confirm(location)


def check_file(location: Location) -> None:
    """Raise UserError if an output file cannot be made: it is a folder, or its own folder cannot be made."""
    if location.exists() and not location.is_file():
        raise UserError(f"{location} is a folder: --output is a file")
    check_folder(location.parent)


def check_folder(location: Location) -> None:
    """Raise UserError if an output folder cannot be made: it, or what is above it, is a file or may not be written."""
    if not location.is_root and location.is_file():
        raise UserError(f"{location} is a file: --output is a folder")
    if location.is_s3:
        return
    try:
        above = next(place for place in (Path(location.path), *Path(location.path).parents) if place.exists())
    except OSError as error:
        raise UserError(f"{location} cannot be written to ({error.strerror}): give another output") from None
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"{location} cannot be written to: {above} is no folder that you may write to")


def _check_readable(location: Location) -> None:
    if location.is_s3:
        location.exists()
        return
    rights = os.R_OK | (os.X_OK if os.path.isdir(location.path) else 0)
    if os.path.exists(location.path) and not os.access(location.path, rights):
        raise UserError(f"{location} may not be read by this user: change its permissions, or give another path")


def _on_s3(location: Location, ask: Callable[[Any, Location], None], confirm: Callable[[Location], None]) -> None:
    from botocore.exceptions import BotoCoreError, ClientError

    client = s3.client()
    try:
        ask(client, location)
        confirm(location)
    except ClientError as error:
        raise UserError(_refusal(error, location)) from None
    except BotoCoreError as error:
        raise UserError(_unreachable(error, location)) from None
    except OSError as error:
        raise UserError(_not_confirmed(error, location)) from None


def _bucket_and_key(location: Location) -> tuple[str, str]:
    bucket, _, key = location.path.partition("/")
    return bucket, key


def _try_reading(client: Any, location: Location) -> None:
    from botocore.exceptions import ClientError

    bucket, key = _bucket_and_key(location)
    denied = None
    names: list[str] = []
    try:
        listing = client.list_objects_v2(Bucket=bucket, Prefix=f"{key}/" if key else "", MaxKeys=1)
        names = [entry["Key"] for entry in listing.get("Contents", ())]
    except ClientError as error:
        # It may be a file, for which keys need not list anything.
        if not key or _code(error) not in _DENIED:
            raise
        denied = error
    if not names and not key:
        return
    try:
        client.head_object(Bucket=bucket, Key=names[0] if names else key)
    except ClientError as error:
        if denied:
            raise denied from None
        # What does not exist is for the job to tell. AWS answers 403 for it to keys that may not list the whole bucket.
        if names or _code(error) not in (*_DENIED, "404"):
            raise


def _try_writing(client: Any, location: Location) -> None:
    probe = location / _PROBE.format(uuid4().hex)
    bucket, key = _bucket_and_key(probe)
    # Both before it exists: what these keys cannot delete would stay.
    _try_uploading(client, probe)
    client.delete_object(Bucket=bucket, Key=key)
    try:
        client.put_object(Bucket=bucket, Key=key, Body=_PROBE_CONTENT)
        probe.read_bytes()
    finally:
        client.delete_object(Bucket=bucket, Key=key)


def _try_uploading(client: Any, location: Location) -> None:
    from botocore.exceptions import ClientError

    bucket, key = _bucket_and_key(location)
    upload = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    # The job itself needs no such right, and what was begun is nowhere to be seen.
    with contextlib.suppress(ClientError):
        client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)


def _code(error: "ClientError") -> str:
    return error.response.get("Error", {}).get("Code", "")


def _refusal(error: "ClientError", location: Location) -> str:
    code, where = _code(error), s3.settings().where
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    bucket, _ = _bucket_and_key(location)
    if status == 404:
        return f"S3 bucket {bucket!r} does not exist at {where}: make it, or correct the URI"
    if code in _DENIED:
        verb, right = _RIGHTS.get(error.operation_name, ("use", "what it needs"))
        return f"S3 at {where} does not let these keys {verb} {location}: give them {right} there, or correct the URI"
    if code in _BAD_KEYS or status in (401, 403):
        hint = _BAD_KEYS.get(code, _KEYS)
        return f"S3 at {where} refuses these keys for bucket {bucket!r} (HTTP {status}): {hint}"
    advice = "check the endpoint and the URI" if status and status < 500 else "try again later"
    return f"S3 at {where} answered HTTP {status} ({code}) for {location}: {advice}"


def _unreachable(error: "BotoCoreError", location: Location) -> str:
    from botocore import exceptions

    settings = s3.settings()
    kind = type(error).__name__
    if isinstance(error, exceptions.ParamValidationError):
        return f"{_bucket_and_key(location)[0]!r} is no name for a bucket: correct the URI"
    if isinstance(error, exceptions.SSLError):
        return (
            f"S3 at {settings.where} shows a certificate that {settings.ca_file} does not vouch for: set AWS_CA_BUNDLE "
            "to a file with the certificate of its CA"
        )
    if isinstance(error, exceptions.ProxyConnectionError):
        return (
            f"S3 at {settings.where} cannot be reached ({kind}): check HTTPS_PROXY or HTTP_PROXY, or name its host in "
            "NO_PROXY"
        )
    if isinstance(error, exceptions.HTTPClientError | exceptions.ConnectionError):
        return f"S3 at {settings.where} cannot be reached ({kind}): check AWS_ENDPOINT_URL"
    return s3.no_keys(error)


def _not_confirmed(error: OSError, location: Location) -> str:
    found = re.search(r"AWS Error ([A-Z_]+)(?:.*(curlCode: \d+))?", str(error))
    reason = ", ".join(part for part in found.groups() if part) if found else type(error).__name__
    return (
        f"S3 answers, but pyarrow, which moves the data, cannot look at {location} ({reason}): check AWS_REGION, and "
        "that the keys have s3:ListBucket and s3:GetObject there"
    )
