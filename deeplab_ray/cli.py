"""What every job shares: flags from a dataclass, a Ray to run on, and one way to end.

A job ends with the stdout line `RESULT {json}` and exit code 0; or with one line `error: …` on stderr and
exit code 2 (the user's mistake), 1 (a failure; the line names the file that holds the traceback) or 130
(interrupted).
"""

import contextlib
import io
import json
import math
import os
import re
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TypeVar

import tyro

from deeplab_ray.console import print_on_any_terminal
from deeplab_ray.errors import JobError, UserError, first_sentence, plain
from deeplab_ray.presets import lookup

T = TypeVar("T")

_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "RAY_AUTH_TOKEN")
_interrupted = threading.Event()
_TOLD = re.compile(r"^ *(?:\w+\.)*(\w*(?:Error|Exception)): (.*)$", re.MULTILINE)
"""The line at the end of a traceback: the exception's kind and its text."""


def run_job(main: Callable[[], dict[str, Any]]) -> NoReturn:
    """Run a job to its end: print what it returns, or its error, and exit as the module says.

    All that it prints comes out, whatever the terminal's encoding (see `console`). SIGTERM, by which `ray job stop`
    and containers end a job, interrupts it as Ctrl-C does.
    """
    print_on_any_terminal()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            # Where SIGINT is switched off, as in a shell's background, it stays so.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _interrupt)
    try:
        _check_arguments(sys.argv[1:])
        result = main()
    except KeyboardInterrupt:
        _end(130, "error: interrupted")
    except Exception as error:
        lines = _told(error)
        mistake = next((text for kind, text in lines if kind == UserError.__name__), None)
        failure = next((text for kind, text in lines if kind == JobError.__name__), None)
        if mistake is not None:
            _end(2, f"error: {scrub(mistake)}")
        _end(1, f"error: {scrub(failure or origin(error))} (traceback: {_save_traceback(error)})")
    # JSON has no NaN.
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in result.items()}
    _end(0, f"RESULT {json.dumps(finite, allow_nan=False)}")


def say(line: str) -> None:
    """A line for the user beside the job's result, on stderr; an empty one is not said."""
    if line:
        print(line, file=sys.stderr, flush=True)


def list_presets() -> dict[str, Any]:
    """Print all presets; what it returns is the job's result."""
    print(lookup.format_tables())
    return {"presets": len(lookup.names())}


def _check_arguments(arguments: Sequence[str]) -> None:
    """Raise UserError for names of files that this locale cannot read: neither pyarrow nor Ray takes them."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            shown = argument.encode(errors="replace").decode()
            raise UserError(
                f"{shown!r} cannot be read as {sys.getfilesystemencoding()}: name files in UTF-8, and set PYTHONUTF8=1"
            ) from None


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
    """Command line → `args_type` (a dataclass), by tyro.

    The flags of a nested group carry its name, `--crf.iterations`, unless it is FLAT.

    `default` holds the defaults, where they are not the dataclass's own. --help prints and exits with 0.
    Raises UserError with one line for what tyro refuses; what the dataclass itself raises passes through.
    """
    flat = (tyro.conf.PositionalMetavarFromFieldName,)
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


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, then what caused it, depth first, through the wrappers of Ray's trainer."""
    yield error
    inner = [getattr(error, "controller_failure", None), error.__cause__]
    inner += getattr(error, "worker_failures", {}).values()
    for cause in inner:
        if isinstance(cause, BaseException) and cause is not error:
            yield from _causes(cause)


def origin(error: BaseException) -> str:
    """What an error comes from, through the wrappers of Ray: its kind and first sentence, in one line, no secrets."""
    kind, text = _told(error)[-1]
    return f"{kind}: {first_sentence(scrub(text))}"


def _told(error: BaseException) -> list[tuple[str, str]]:
    """(kind, one line of text) of an error and of what caused it, the origin last."""
    return [line for cause in _causes(error) for line in _own(cause)]


def _own(error: BaseException) -> list[tuple[str, str]]:
    """Of an error from a Ray task, an actor or a training worker, what the text of its traceback says, which is all
    that Ray passes on."""
    remote = any(kind.__name__ in ("RayError", "RayTrainError") for kind in type(error).__mro__)
    if remote and (found := _TOLD.findall(plain(str(error)))):
        return found[::-1]
    lines = [line.strip() for line in plain(str(error)).splitlines() if line.strip()] or ["no message"]
    return [(type(error).__name__, " ".join(lines) if isinstance(error, UserError | JobError) else lines[0])]


def _save_traceback(error: BaseException) -> str:
    with tempfile.NamedTemporaryFile("wb", prefix="deeplab-ray-", suffix=".log", delete=False) as file:
        # Names of files may hold what is no Unicode.
        file.write(scrub("".join(traceback.format_exception(error))).encode(errors="backslashreplace"))
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
    lines = [line.strip("│ ") for line in plain(complaint).splitlines()]
    paragraphs = [" ".join(p.split()) for p in re.split(r"[─╭╮╰╯][^\n]*", "\n".join(lines)) if p.strip()]
    text = paragraphs[0] if paragraphs else "wrong usage"
    guess = next((p for p in paragraphs[1:] if p.startswith("Perhaps you meant")), None)
    text = f"{text} ({guess})" if guess else text
    return re.sub(r" (?=[.,])", "", text[:1].lower() + text[1:]).rstrip(".")
