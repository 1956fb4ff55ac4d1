"""What every job shares: flags made from a dataclass, and one way to end.

A job ends with the line `RESULT {json}` on stdout and exit code 0; or with one line `error: …` on stderr and exit code
2 (the user's mistake), 1 (a failure; the line names the file that holds the traceback) or 130 (interrupted).
"""

import contextlib
import io
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

from deeplab_ray.config.io import json_text
from deeplab_ray.console import print_on_any_terminal
from deeplab_ray.errors import JobError, UserError, first_sentence, plain
from deeplab_ray.presets import lookup

T = TypeVar("T")

_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "RAY_AUTH_TOKEN")
_interrupted = threading.Event()
_TOLD = re.compile(r"^ *(?:\w+\.)*(\w*(?:Error|Exception)): (.*)$", re.MULTILINE)
"""The line at the end of a traceback: the exception's class and its text."""


def run_job(main: Callable[[], dict[str, Any]]) -> NoReturn:
    """Run a job: print what `main` returns, or its error, and exit as this module's docstring says.

    The job can print any text, whatever the terminal's encoding (see `console`). SIGTERM, by which `ray job stop` and
    containers end a job, interrupts it as Ctrl-C does.
    """
    print_on_any_terminal()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            # If a signal is ignored, as SIGINT is in a shell's background, it stays so.
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
    _end(0, f"RESULT {json_text(result)}")


def say(line: str) -> None:
    """Print a line for the user on stderr, unless it is empty."""
    if line:
        print(line, file=sys.stderr, flush=True)


def list_presets() -> dict[str, Any]:
    """Print all presets; return the job's result."""
    print(lookup.format_tables())
    return {"presets": len(lookup.names())}


def _check_arguments(arguments: Sequence[str]) -> None:
    """Raise UserError if an argument cannot be decoded in this locale: pyarrow and Ray refuse such file names."""
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
    """Raise KeyboardInterrupt if one was swallowed: some packages catch everything while they are imported."""
    if _interrupted.is_set():
        raise KeyboardInterrupt


def scrub(text: str) -> str:
    """Return the text with the values of this environment's secrets blotted out."""
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
    """Parse the command line into `args_type` (a dataclass), by tyro.

    The flags of a nested group begin with the group's name, as in `--crf.iterations`, unless the group is FLAT.
    default: holds the defaults, if they are not the dataclass's own. --help prints and exits with 0.
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
    """End silently if nobody reads stdout any more, as in `--help | head`; only in this block, since a broken socket
    would end the process, too."""
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
    """Yield the error, then its causes, depth first, through the wrappers of Ray's trainer."""
    yield error
    inner = [getattr(error, "controller_failure", None), error.__cause__]
    inner += getattr(error, "worker_failures", {}).values()
    for cause in inner:
        if isinstance(cause, BaseException) and cause is not error:
            yield from _causes(cause)


def origin(error: BaseException) -> str:
    """Return an error's root cause, through Ray's wrappers: its class and first sentence, in a line without secrets."""
    kind, text = _told(error)[-1]
    return f"{kind}: {first_sentence(scrub(text))}"


def _told(error: BaseException) -> list[tuple[str, str]]:
    """Return (class, one line of text) of an error and of its causes, the root cause last; of errors that tell the user
    what to do the class is UserError or JobError."""
    return [line for cause in _causes(error) for line in _own(cause)]


def _own(error: BaseException) -> list[tuple[str, str]]:
    """Return (class, one line of text) of an error alone. An error from a Ray task, actor or training worker may give
    several, read from the text of its traceback, which is all that Ray passes on."""
    remote = any(kind.__name__ in ("RayError", "RayTrainError") for kind in type(error).__mro__)
    if remote and (found := _TOLD.findall(plain(str(error)))):
        return [(_family(kind), text) for kind, text in reversed(found)]
    lines = [line.strip() for line in plain(str(error)).splitlines() if line.strip()] or ["no message"]
    text = " ".join(lines) if isinstance(error, UserError | JobError) else lines[0]
    return [(_family(type(error).__name__), text)]


def _family(kind: str) -> str:
    """UserError or JobError for the name of a class that is one of these; any other name as it is."""
    for base in (UserError, JobError):
        if kind in {base.__name__, *(each.__name__ for each in base.__subclasses__())}:
            return base.__name__
    return kind


def _save_traceback(error: BaseException) -> str:
    with tempfile.NamedTemporaryFile("wb", prefix="deeplab-ray-", suffix=".log", delete=False) as file:
        # File names may hold bytes that are not Unicode.
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
    """Return the first paragraph in tyro's box, and its guess at what was meant, as one line."""
    lines = [line.strip("│ ") for line in plain(complaint).splitlines()]
    paragraphs = [" ".join(p.split()) for p in re.split(r"[─╭╮╰╯][^\n]*", "\n".join(lines)) if p.strip()]
    text = paragraphs[0] if paragraphs else "wrong usage"
    guess = next((p for p in paragraphs[1:] if p.startswith("Perhaps you meant")), None)
    text = f"{text} ({guess})" if guess else text
    return re.sub(r" (?=[.,])", "", text[:1].lower() + text[1:]).rstrip(".")
