"""The two exceptions that tell the user what to do, and functions that quote other packages' errors in one line."""

import re

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`'\"(])")
_LONGEST = 200


class UserError(Exception):
    """Raised if something that the user gave is wrong. Its text is one line: what is wrong, and what to do.

    A job prints it as `error: …` and exits with 2 (see `deeplab_ray.cli.run_job`).
    """


class JobError(Exception):
    """Raised if a job cannot go on, though the user made no mistake. Its text is one line: what happened, what to do.

    A job prints it as `error: …`, with the file that holds the traceback, and exits with 1.
    """


def plain(text: str) -> str:
    """Return the text without terminal colours and other control characters; line ends and tabs stay."""
    return _CONTROLS.sub("", _ESCAPES.sub("", text))


def first_sentence(text: str) -> str:
    """Return the first sentence of another package's message, without its full stop, in at most 200 characters.

    What follows it is often advice for programmers, such as PyTorch's to load unsafely.
    """
    lines = [" ".join(line.split()) for line in plain(text).splitlines() if line.strip()]
    sentence = _SENTENCE_END.split(lines[0])[0].rstrip(".:") if lines else ""
    return sentence if len(sentence) <= _LONGEST else sentence[: _LONGEST - 1].rstrip() + "…"


def quote(error: BaseException) -> str:
    """Return another package's error in one line: its class, and the first sentence of its message if it has one."""
    sentence = first_sentence(str(error))
    return f"{type(error).__name__}: {sentence}" if sentence else type(error).__name__
