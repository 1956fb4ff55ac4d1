"""One tar of many files that lie on disk or on S3, never all of them in memory."""

import io
import shutil
import tarfile
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO
from uuid import uuid4

from deeplab_ray.outputs.journal import PROGRESS
from deeplab_ray.storage.location import Location

# A read from S3 takes tens of milliseconds, most of them waiting.
_READERS = 16
_CHUNK = 1 << 20


def write_tar(output: Location, name: str, folder: str, ending: str) -> str | None:
    """Write output/name: all files below output/folder with this ending, named as they lie in `output`.

    The same files give the same bytes: members are sorted, of time 0, and belong to nobody. A reader sees no part of
    it: the tar grows in the folder .progress, or in a temporary file of this machine if the output is on S3. Returns
    its URI; None, without a tar, if there is no such file. Raises OSError if storage fails.
    """
    members = [f"{folder}/{file}" for file in (output / folder).files(recursive=True) if file.endswith(ending)]
    if not members:
        return None
    target = output / name
    if target.is_s3:
        # Whatever an S3 stream was given is published when it is closed, even after an error.
        with tempfile.TemporaryFile() as whole:
            _write(whole, output, members)
            whole.seek(0)
            with target.filesystem.open_output_stream(target.path) as stream:
                shutil.copyfileobj(whole, stream, _CHUNK)
        return target.uri
    # Where `publish.sweep` clears away what a killed job has left.
    aside = Path((output / PROGRESS / "aside" / uuid4().hex).path)
    aside.parent.mkdir(parents=True, exist_ok=True)
    try:
        with aside.open("wb") as file:
            _write(file, output, members)
        aside.replace(target.path)
    finally:
        aside.unlink(missing_ok=True)
    return target.uri


def _write(file: IO[bytes], output: Location, members: list[str]) -> None:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member, content in _read_ahead(output, members):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def _read_ahead(folder: Location, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the files in their order, of which a few are read at a time."""
    pending: deque[tuple[str, Future[bytes]]] = deque()
    with ThreadPoolExecutor(_READERS) as readers:
        for name in names:
            pending.append((name, readers.submit((folder / name).read_bytes)))
            if len(pending) > _READERS:
                first, content = pending.popleft()
                yield first, content.result()
        for first, content in pending:
            yield first, content.result()
