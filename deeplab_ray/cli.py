"""What every job shares: flags from a dataclass, a Ray to run on, and one way to end.

A job ends with the stdout line `RESULT {json}` and exit code 0; or with one line `error: …` on stderr and
exit code 2 (the user's mistake), 1 (a failure; the line names the file that holds the traceback) or 130
(interrupted).
Ray is imported late, so that --help and usage errors are quick.
"""

import contextlib
import io
import json
import logging
import math
import os
import re
import shlex
import signal
import socket
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, NoReturn, TypeVar
from urllib.parse import urlsplit

import tyro

from deeplab_ray.config import CRFParams
from deeplab_ray.errors import UserError
from deeplab_ray.machine import usable_cpus

T = TypeVar("T")

_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "RAY_AUTH_TOKEN")
_ENVIRONMENT = {
    # Under `uv run`, Ray would run its workers by uv, too, and upload the current folder.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray gives its dashboard a minute to start, which a busy machine may exceed.
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "240",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_DATA_LOG_LEVEL": "WARNING",
    # Train's controller polls its workers that often; each report waits for a poll.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # Without it, what a training worker prints comes twice.
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    # Workers without a GPU keep CUDA_VISIBLE_DEVICES: Ray's default to come, without its warning.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_CONNECT_TIMEOUT_S = 5
_interrupted = threading.Event()
# As flags go without prefix, it would be that of the solver's iterations.
CRFParams.__annotations__["iterations"] = Annotated[int, tyro.conf.arg(name="crf-iterations")]
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_TOLD = re.compile(r"^ *(?:\w+\.)*(\w*(?:Error|Exception)): (.*)$", re.MULTILINE)
"""The line at the end of a traceback: the exception's kind and its text."""


def run_job(main: Callable[[], dict[str, Any]]) -> NoReturn:
    """Run a job to its end: print what it returns, or its error, and exit as the module says.

    SIGTERM, by which `ray job stop` and containers end a job, interrupts it as Ctrl-C does.
    """
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            # Where SIGINT is switched off, as in a shell's background, it stays so.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _interrupt)
    try:
        result = main()
    except KeyboardInterrupt:
        _end(130, "error: interrupted")
    except Exception as error:
        told = [line for cause in _causes(error) for line in _told(cause)]
        mistake = next((text for kind, text in told if kind == UserError.__name__), None)
        if mistake is not None:
            _end(2, f"error: {scrub(mistake)}")
        kind, text = told[-1]
        _end(1, f"error: {kind}: {scrub(text)} (traceback: {_save_traceback(error)})")
    # JSON has no NaN.
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in result.items()}
    _end(0, f"RESULT {json.dumps(finite, allow_nan=False)}")


def _interrupt(number: int, frame: object) -> NoReturn:
    _interrupted.set()
    raise KeyboardInterrupt


def check_interrupted() -> None:
    """Raise KeyboardInterrupt where one was swallowed: packages that are being imported catch everything at times."""
    if _interrupted.is_set():
        raise KeyboardInterrupt


def scrub(text: str) -> str:
    """The text with the values of this environment's secrets blotted out."""
    for name in _SECRETS:
        if secret := os.environ.get(name):
            text = text.replace(secret, f"<{name}>")
    return text


def parse(
    args_type: Callable[..., T],
    *,
    prog: str,
    description: str,
    argv: Sequence[str] | None = None,
    default: T | None = None,
) -> T:
    """Command line → `args_type` (a dataclass), by tyro. Nested fields' flags go without prefix.

    `default` holds the defaults, where they are not the dataclass's own. --help prints and exits with 0.
    Raises UserError with one line for what tyro refuses; what the dataclass itself raises passes through.
    """
    flat = (
        tyro.conf.OmitArgPrefixes,
        tyro.conf.FlagCreatePairsOff,
        tyro.conf.PositionalMetavarFromFieldName,
    )
    options: dict[str, Any] = {} if default is None else {"default": default}
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint), _quiet_in_pipes():
            return tyro.cli(args_type, prog=prog, description=description, args=argv, config=flat, **options)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(f"{_unbox(complaint.getvalue())}; see {prog} --help") from None


@contextlib.contextmanager
def _quiet_in_pipes() -> Iterator[None]:
    """End without a word where nobody reads stdout any more, as of `--help`; not for longer, as sockets break, too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        yield
    finally:
        sys.stdout.flush()
        signal.signal(signal.SIGPIPE, handler)


def set_environment() -> None:
    """Ray's settings where the user has none of his own. Ray reads some of them when it is imported."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def start_ray(cpus: int | None = None) -> None:
    """Connect to the cluster that RAY_ADDRESS names (as `ray job submit` does), or start one here.

    `cpus`: logical CPUs of a Ray started here.
    Raises UserError where the named cluster cannot be reached (5 s) or refuses the token (Ray tries for 20 s).
    """
    set_environment()
    address = os.environ.get("RAY_ADDRESS", "")
    if address in ("", "local"):
        # More logical CPUs than a small machine has: workers and Ray Data mostly wait for each other.
        cpus = cpus or max(4, usable_cpus())
        # Nothing preempts this machine; its watcher would cost a process for every run.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        # Ray Train asks the dashboard's process for the state of its actors, and complains where there is none.
        _init(address="local", num_cpus=cpus, include_dashboard=True)
        return
    if address != "auto":
        _check_reachable(address)
    try:
        _init(address=address)
    except (ConnectionError, RuntimeError) as error:
        raise UserError(
            f"Ray at RAY_ADDRESS={address} lets nobody in ({scrub(_told(error)[-1][1])}): is the cluster up, and "
            "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH set as it wants it?"
        ) from error


def _init(**options: Any) -> None:
    import ray

    check_interrupted()
    if shlex.quote(sys.executable) != sys.executable:
        # Ray gives it to a shell as it is.
        options["runtime_env"] = {"py_executable": shlex.quote(sys.executable)}
    ray.init(logging_level=logging.WARNING, **options)


def _check_reachable(address: str) -> None:
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        if parts.scheme not in ("", "ray") or not parts.hostname or not parts.port:
            raise UserError(f"RAY_ADDRESS={address} is no cluster's address: set it to host:port, or unset it")
        with socket.create_connection((parts.hostname, parts.port), _CONNECT_TIMEOUT_S):
            pass
    except (OSError, ValueError) as error:
        raise UserError(
            f"no Ray answers at RAY_ADDRESS={address} ({error}): start the cluster, correct the address, or "
            "unset it to run on this machine alone"
        ) from None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, then what caused it, depth first, through the wrappers of Ray's trainer."""
    yield error
    inner = [getattr(error, "controller_failure", None), error.__cause__]
    inner += getattr(error, "worker_failures", {}).values()
    for cause in inner:
        if isinstance(cause, BaseException) and cause is not error:
            yield from _causes(cause)


def _told(error: BaseException) -> list[tuple[str, str]]:
    """(kind, one line of text) of an error; of one from a Ray task or an actor, those in the text of its traceback,
    which is all that Ray passes on, the origin last."""
    remote = any(kind.__name__ == "RayError" for kind in type(error).__mro__)
    if remote and (told := _TOLD.findall(_COLOUR.sub("", str(error)))):
        return told[::-1]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
    return [(type(error).__name__, " ".join(lines) if isinstance(error, UserError) else lines[0])]


def _save_traceback(error: BaseException) -> str:
    with tempfile.NamedTemporaryFile("w", prefix="deeplab-ray-", suffix=".log", delete=False) as file:
        file.write(scrub("".join(traceback.format_exception(error))))
    return file.name


def _end(code: int, line: str) -> NoReturn:
    _interrupted.clear()
    # The workers' last output must not come after the job's last line.
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()
    sys.stdout.flush()
    print(line, file=sys.stderr if code else sys.stdout, flush=True)
    sys.exit(code)


def _unbox(complaint: str) -> str:
    """The first paragraph in tyro's box, and its guess at what was meant, as one line."""
    lines = [line.strip("│ ") for line in _COLOUR.sub("", complaint).splitlines()]
    paragraphs = [" ".join(p.split()) for p in re.split(r"[─╭╮╰╯][^\n]*", "\n".join(lines)) if p.strip()]
    text = paragraphs[0] if paragraphs else "wrong usage"
    guess = next((p for p in paragraphs[1:] if p.startswith("Perhaps you meant")), None)
    text = f"{text} ({guess})" if guess else text
    return re.sub(r" (?=[.,])", "", text[:1].lower() + text[1:]).rstrip(".")
