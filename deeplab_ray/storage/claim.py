"""One writer at a time: a job claims the folder that it writes into, and another one is told who holds it.

    OUTPUT/.claim.json    who writes here: a token, the job, its host and process, and when it last said so

The holder writes the file anew every ten seconds. A claim is dead if its process was on this machine and is gone, or,
from another machine, if nobody renews it while it is watched for half a minute, so that clocks need not agree; whoever
watched takes it over.

A claim is made by a request that fails if the file is there already: O_EXCL on a disk, If-None-Match on S3. Of a server
that does not know the latter, and for what is taken over, the last writer wins, and whoever does not find his own token
a moment later has lost. A job that was held up for so long that another one has taken its place ends with an error.
"""

import contextlib
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from deeplab_ray.errors import JobError, UserError
from deeplab_ray.storage import s3
from deeplab_ray.storage.location import Location
from deeplab_ray.storage.patience import with_patience

CLAIM = ".claim.json"
"""The file's name in the folder that is claimed."""
RENEW_EVERY_S = 10.0
WATCH_S = 3 * RENEW_EVERY_S
"""For so long the claim of a job on another machine is watched before it is called dead."""
_SETTLE_S = 1.0
_TAKEN = ("PreconditionFailed", "ConditionalRequestConflict")
_UNKNOWN = ("NotImplemented", "InvalidArgument", "InvalidRequest")


@dataclass(frozen=True)
class _Holder:
    """What a claim says."""

    token: str
    job: str
    host: str
    machine: str
    """The same for processes that can see each other, and for no others."""
    process: int
    started: float
    """When the process was started, since process ids are used again."""
    since: float
    renewed: float
    """Both in seconds since 1970, by the holder's clock."""

    @classmethod
    def here(cls, job: str) -> "_Holder":
        own, now = psutil.Process(), time.time()
        return cls(secrets.token_hex(8), job, socket.gethostname(), _machine(), own.pid, own.create_time(), now, now)

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.since))
        return f"{self.job} (process {self.process} on {self.host}, since {since})"

    def is_gone(self) -> bool:
        """Whether it ran on this machine, and has ended."""
        if self.machine != _machine():
            return False
        try:
            process = psutil.Process(self.process)
            return abs(process.create_time() - self.started) > 1 or process.status() == psutil.STATUS_ZOMBIE
        except psutil.Error:
            return True

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), ensure_ascii=False).encode()


class Claim:
    """A place that is held by this process. It is renewed until `claimed` ends."""

    def __init__(self, file: Location, holder: _Holder) -> None:
        self._file, self._holder = file, holder
        self._over = threading.Event()
        self._lost: str | None = None
        self._thread = threading.Thread(target=self._renew, name="claim", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise JobError if another job has taken the place over, as this one had stood still."""
        if self._lost is not None:
            raise JobError(
                f"{self._file.parent} was taken over by {self._lost} while this job stood still: wait for that one"
            )

    def _renew(self) -> None:
        while not self._over.wait(RENEW_EVERY_S):
            # While storage is away nobody else can take the place, either.
            with contextlib.suppress(OSError):
                try:
                    found = _parse(self._file.read_bytes())
                except FileNotFoundError:
                    found = None
                if found and found.token != self._holder.token:
                    self._lost = str(found)
                    return
                self._file.write_bytes(replace(self._holder, renewed=time.time()).to_json())

    def _end(self) -> None:
        self._over.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            if _is(self._file.read_bytes(), self._holder):
                self._file.filesystem.delete_file(self._file.path)


@contextlib.contextmanager
def claimed(place: Location, job: str) -> Iterator[Claim]:
    """Hold a folder, which need not exist, for `job` (a few words, for the others) until the block ends.

    A folder that is empty then is removed. Raises UserError, naming the holder, if another job holds it, JobError if
    storage fails for long.
    """
    file, mine = place / CLAIM, _Holder.here(job)
    _take(file, mine)
    if not place.is_s3:
        # Of holders that were killed as they renewed theirs.
        for half in Path(place.path).glob(f"{CLAIM}.*.part"):
            half.unlink(missing_ok=True)
    claim = Claim(file, mine)
    try:
        yield claim
    finally:
        claim._end()
        if not place.is_s3:
            with contextlib.suppress(OSError):
                Path(place.path).rmdir()


def _take(file: Location, mine: _Holder) -> None:
    found = _read(file)
    if found is None:
        if _create(file, mine.to_json()):
            return
        found = _read(file)
    if found is not None and not _is(found, mine):
        _require_dead(file, found)
        if _read(file) not in (found, None):
            _refuse(file)
    with_patience(lambda: file.write_bytes(mine.to_json()), file)
    time.sleep(_SETTLE_S)
    if (now := _read(file)) is None or not _is(now, mine):
        _refuse(file)


def _require_dead(file: Location, found: bytes) -> None:
    """Raise UserError unless a claim is that of a process that is gone, or of one that does not renew it."""
    holder = _parse(found)
    if holder and holder.is_gone():
        return
    if holder and holder.machine == _machine():
        _refuse(file, holder)
    # On another machine only the heartbeat tells. A broken claim may just be being written.
    print(f"{file.parent} is held by {holder or 'another job'}: seeing whether that one still lives", file=sys.stderr)
    end = time.monotonic() + WATCH_S
    while time.monotonic() < end:
        if (now := _read(file)) is None:
            return
        if now != found:
            _refuse(file, _parse(now))
        time.sleep(min(1.0, WATCH_S / 10))


def _refuse(file: Location, holder: _Holder | None = None) -> None:
    who = holder or _parse(_read(file) or b"") or "another job"
    raise UserError(f"{file.parent} is being written by {who}: wait for it to end, or give another --output")


def _create(file: Location, content: bytes) -> bool:
    """Write the file if it is not there; False if it is, or if nobody can say who was first."""
    if file.is_s3:
        return with_patience(lambda: _create_on_s3(file, content), file)
    Path(file.path).parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(file.path, "xb") as stream:
            stream.write(content)
    except FileExistsError:
        return False
    return True


def _create_on_s3(file: Location, content: bytes) -> bool:
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, key = file.path.partition("/")

    def put() -> str:
        try:
            s3.client().put_object(Bucket=bucket, Key=key, Body=content, IfNoneMatch="*")
        except ClientError as error:
            code: str = error.response.get("Error", {}).get("Code", "")
            if code in _TAKEN or code in _UNKNOWN:
                return code
            raise OSError(f"{file} cannot be written: {error}") from error
        except BotoCoreError as error:
            raise OSError(f"{file} cannot be written: {error}") from error
        return ""

    # A server that does not know the condition takes the second one, too.
    return put() == "" and put() in _TAKEN and _read(file) == content


def _read(file: Location) -> bytes | None:
    try:
        return with_patience(file.read_bytes, file)
    except FileNotFoundError:
        return None


def _parse(content: bytes) -> _Holder | None:
    """What a claim says; None if it is broken."""
    try:
        fields: dict[str, Any] = json.loads(content)
        return _Holder(**fields)
    except (ValueError, TypeError):
        return None


def _is(content: bytes, holder: _Holder) -> bool:
    found = _parse(content)
    return found is not None and found.token == holder.token


def _machine() -> str:
    """Names what shares process ids with us: a boot of a machine, and a container on it."""
    parts = [socket.gethostname()]
    for read in (
        lambda: Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip(),
        lambda: os.readlink("/proc/self/ns/pid"),
    ):
        with contextlib.suppress(OSError):
            parts.append(read())
    return " ".join(parts)
