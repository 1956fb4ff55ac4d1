"""Text on any terminal: characters that its encoding lacks are spelled in ASCII."""

import codecs
import io
import re
import sys
import unicodedata

_HANDLER = "deeplab_ray.spell"
_SPELLINGS = {
    "≡": "==",
    "≥": ">=",
    "≤": "<=",
    "×": "x",
    "÷": "/",
    "±": "+-",
    "−": "-",
    "⁄": "/",
    "→": "->",
    "←": "<-",
    "–": "-",
    "—": "-",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
    "²": "^2",
    "ß": "ss",
    "·": "*",
    "•": "*",
    # The boxes of --help.
    "│": "|",
    "─": "-",
    **dict.fromkeys("╭╮╰╯├┤┬┴┼", "+"),
}
_GREEK = re.compile("GREEK (SMALL|CAPITAL) LETTER ([A-Z]+)")


def print_on_any_terminal() -> None:
    """Let stdout and stderr print any text in any encoding from now on: in ASCII, ≡ becomes == and é becomes e.

    Characters without a spelling become question marks.
    """
    codecs.register_error(_HANDLER, _spell)
    for stream in (sys.stdout, sys.stderr):
        # A stand-in such as a StringIO holds every character already.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_spelling(character) for character in error.object[error.start : error.end]), error.end


def _spelling(character: str) -> str:
    """Return ASCII that reads like the character."""
    if character in _SPELLINGS:
        return _SPELLINGS[character]
    if greek := _GREEK.fullmatch(unicodedata.name(character, "")):
        return greek[2].lower() if greek[1] == "SMALL" else greek[2].title()
    parts = unicodedata.normalize("NFKD", character)
    known = "".join(part if part.isascii() else _SPELLINGS.get(part, "") for part in parts)
    return known or "?"
