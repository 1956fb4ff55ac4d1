"""COCO's instances_*.json, read piece by piece: 450 MB of text would take several GB as Python objects."""

import json
import re
from collections.abc import Iterator
from typing import Any

_SPACE = re.compile(r"[ \t\n\r]*")


def elements(text: str) -> Iterator[tuple[str, Any]]:
    """Key and element of each list at the top of a JSON object, one element at a time; other values are left out.

    Raises ValueError if the text is no such JSON.
    """
    decode = json.JSONDecoder().raw_decode
    at = _expect(text, 0, "{")
    while text[at : at + 1] != "}":
        key, at = decode(text, at)
        at = _expect(text, at, ":")
        if text[at : at + 1] == "[":
            at = _expect(text, at, "[")
            while text[at : at + 1] != "]":
                element, at = decode(text, at)
                yield key, element
                at = _next(text, at, "]")
            at = _skip(text, at + 1)
        else:
            _, at = decode(text, at)
        at = _next(text, at, "}")


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _expect(text: str, at: int, sign: str) -> int:
    """The place after a sign and what space there is around it."""
    at = _skip(text, at)
    if text[at : at + 1] != sign:
        raise ValueError(f"{sign} is missing at character {at}")
    return _skip(text, at + 1)


def _next(text: str, at: int, end: str) -> int:
    """The place after a comma, or that of the closing sign."""
    at = _skip(text, at)
    return at if text[at : at + 1] == end else _expect(text, at, ",")
