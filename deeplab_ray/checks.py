"""Checks that config dataclasses run when they are made."""

import math
import typing
from dataclasses import fields
from typing import Any, Literal

from deeplab_ray.errors import UserError


def require(condition: bool, sentence: str) -> None:
    """Raise UserError with the sentence unless the condition holds."""
    if not condition:
        raise UserError(sentence)


def check_types(config: Any) -> None:
    """Raise UserError if the value of a field of a config dataclass is not of the field's type, or is infinite."""
    hints = typing.get_type_hints(type(config))
    for field_ in fields(config):
        value, hint = getattr(config, field_.name), hints[field_.name]
        require(fits(value, hint), f"{field_.name} {value!r} is not of type {describe_type(hint)}")
        require(value not in (math.inf, -math.inf), f"{field_.name} {value} must be finite")


def fits(value: Any, hint: Any) -> bool:
    """Return whether a value is of the type `hint`, a field's annotation; a list passes for a tuple."""
    options = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return value in options
    if typing.get_origin(hint) is tuple:
        return isinstance(value, (list, tuple)) and all(fits(item, options[0]) for item in value)
    if options:
        return any(fits(value, option) for option in options)
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def describe_type(hint: Any) -> str:
    """Return the name of a type for an error message."""
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
