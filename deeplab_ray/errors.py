"""The two exceptions that say what to do, and how the errors of others are quoted in one line."""

import re

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`'\"(])")
_LONGEST = 200


class UserError(Exception):
    """Something that the user gave is wrong. Its text is one line: what is wrong, and what to do.

    A job prints it as `error: …` and exits with 2 (see `deeplab_ray.cli.run_job`).
    """


class JobError(Exception):
    """A job cannot go on, though nothing that the user gave is wrong. Its text is one line: what happened, what to do.

    A job prints it as `error: …`, with the file that holds the traceback, and exits with 1.
    """


def plain(text: str) -> str:
    """The text without a terminal's colours and other control characters; lines and tabs stay."""
    return _CONTROLS.sub("", _ESCAPES.sub("", text))


def first_sentence(text: str) -> str:
    """The first sentence of another package's message, without its full stop, in at most 200 characters.

    What follows it is often advice for programmers, such as PyTorch's to load unsafely.
    """
    lines = [" ".join(line.split()) for line in plain(text).splitlines() if line.strip()]
    sentence = _SENTENCE_END.split(lines[0])[0].rstrip(".:") if lines else ""
    return sentence if len(sentence) <= _LONGEST else sentence[: _LONGEST - 1].rstrip() + "…"


def quote(error: BaseException) -> str:
    """An error of another package in one line: its kind, and the first sentence of its message if it has one."""
    sentence = first_sentence(str(error))
    return f"{type(error).__name__}: {sentence}" if sentence else type(error).__name__
