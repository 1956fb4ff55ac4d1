"""Whether every shard is the one that its manifest names: all of them are read, and their sha256 compared."""

import errno
import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal

from deeplab_ray.errors import first_sentence
from deeplab_ray.machine import usable_cpus
from deeplab_ray.shards import Shard, Split
from deeplab_ray.storage.location import Location
from deeplab_ray.storage.patience import lasting, with_patience

_CHUNK = 4 * 2**20
_PROGRESS_EVERY_S = 5.0


@dataclass(frozen=True)
class Problem:
    """A shard that is not what the manifest says."""

    shard: str
    """Its URI."""
    kind: Literal["damaged", "missing", "unreadable"]
    reason: str

    def __str__(self) -> str:
        return f"{self.shard} {self.reason}"


@dataclass(frozen=True)
class Verification:
    """What came of reading all shards."""

    shards: int
    bytes: int
    """As the manifests say."""
    seconds: float
    problems: tuple[Problem, ...]
    """In the manifests' order."""
    stray: tuple[str, ...]
    """URIs of Parquet files beside the shards that no manifest names; nobody reads them."""


class _Progress:
    """Says now and then how far it is."""

    def __init__(self, shards: int, size: int, say: Callable[[str], None]) -> None:
        self.shards, self.size, self.say = shards, size, say
        self.start = self.spoken = time.monotonic()
        self.done = self.read = 0
        self.lock = threading.Lock()

    def add(self, shards: int, size: int) -> None:
        with self.lock:
            self.done += shards
            self.read += size
            now = time.monotonic()
            if now - self.spoken < _PROGRESS_EVERY_S:
                return
            self.spoken = now
            speed = self.read / 1e6 / (now - self.start)
            self.say(
                f"verified {self.done:,} of {self.shards:,} shards, {self.read / 1e9:.1f} of {self.size / 1e9:.1f} GB, "
                f"{speed:,.0f} MB/s"
            )


def verify(splits: Sequence[Split], say: Callable[[str], None], threads: int | None = None) -> Verification:
    """Read every shard of the splits and compare its sha256 with the manifest's.

    `say` gets a line every few seconds. threads: unset: two a CPU, at most 16; each holds 4 MiB at a time, whatever a
    shard's size. Storage that fails for a while is waited for; raises JobError if it goes on failing.
    """
    work = [(split.folder, shard) for split in splits for shard in split.manifest.shards]
    total = sum(shard.bytes for _, shard in work)
    progress = _Progress(len(work), total, say)

    def check(folder: Location, shard: Shard) -> Problem | None:
        problem = check_shard(folder, shard, lambda size: progress.add(0, size))
        progress.add(1, 0)
        return problem

    with ThreadPoolExecutor(threads or min(16, 2 * usable_cpus())) as pool:
        pending = [pool.submit(check, folder, shard) for folder, shard in work]
        try:
            found = [each.result() for each in pending]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return Verification(
        shards=len(work),
        bytes=total,
        seconds=time.monotonic() - progress.start,
        problems=tuple(problem for problem in found if problem),
        stray=tuple(uri for split in splits for uri in _stray(split)),
    )


def check_shard(folder: Location, shard: Shard, read: Callable[[int], None] = lambda _: None) -> Problem | None:
    """Compare a shard of the split in `folder` with what the manifest says of it; None if it is whole.

    `read` is called with the number of bytes after each part. Raises JobError if storage goes on failing.
    """
    location = folder / shard.path
    return with_patience(partial(_compare, location, shard, read), location)


def _compare(location: Location, shard: Shard, read: Callable[[int], None]) -> Problem | None:
    digest, size = hashlib.sha256(), 0
    try:
        with location.filesystem.open_input_stream(location.path) as stream:
            while part := stream.read(_CHUNK):
                digest.update(part)
                size += len(part)
                read(len(part))
    except FileNotFoundError:
        return Problem(location.uri, "missing", "is missing")
    except OSError as error:
        # A disk's bad sector is one shard's, and no reason to end all.
        if lasting(error) or error.errno == errno.EIO:
            return Problem(location.uri, "unreadable", f"cannot be read: {first_sentence(str(error))}")
        raise
    if size != shard.bytes:
        return Problem(location.uri, "damaged", f"is damaged: it has {size:,} bytes, not {shard.bytes:,}")
    if digest.hexdigest() != shard.sha256:
        return Problem(location.uri, "damaged", "is damaged: its sha256 is not the manifest's")
    return None


def _stray(split: Split) -> list[str]:
    named = {shard.path for shard in split.manifest.shards}
    found = (path for path in split.folder.files(recursive=True) if path.endswith(".parquet"))
    return [(split.folder / path).uri for path in found if path not in named]
