"""Text on any terminal: characters that its encoding cannot hold are spelled with those that it can."""

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
    """From now on, whatever is printed to stdout and stderr comes out, in any encoding: ≡ as == in ASCII, é as e.

    Characters without a spelling become question marks.
    """
    codecs.register_error(_HANDLER, _spell)
    for stream in (sys.stdout, sys.stderr):
        # Not what stands in for them at times, such as a StringIO, which holds everything.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_spelling(character) for character in error.object[error.start : error.end]), error.end


def _spelling(character: str) -> str:
    """ASCII that reads like the character."""
    if character in _SPELLINGS:
        return _SPELLINGS[character]
    if greek := _GREEK.fullmatch(unicodedata.name(character, "")):
        return greek[2].lower() if greek[1] == "SMALL" else greek[2].title()
    parts = unicodedata.normalize("NFKD", character)
    known = "".join(part if part.isascii() else _SPELLINGS.get(part, "") for part in parts)
    return known or "?"
