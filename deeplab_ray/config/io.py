"""Config dataclasses ↔ JSON text, checked on the way in."""

import dataclasses
import json
import typing
from typing import Any, TypeVar

from deeplab_ray.checks import describe_type, fits
from deeplab_ray.errors import UserError
from deeplab_ray.storage.location import locate

T = TypeVar("T")


def to_json(config: Any) -> str:
    """A config dataclass as indented JSON."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(text: str, kind: type[T], where: str = "config") -> T:
    """Build the dataclass `kind` from JSON text; keys that are left out keep their defaults.

    Raises UserError for text that is not JSON, for unknown keys, for values of a wrong type and for what the
    dataclass itself refuses.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not JSON ({error}): give the config.json or best.json of a run") from None
    return _build(kind, value, where)


def load(uri: str, kind: type[T]) -> T:
    """The dataclass `kind` from a JSON file at a path or s3:// URI; UserError where there is none or it is wrong."""
    try:
        text = locate(uri).read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"no {kind.__name__} can be read at {uri} ({type(error).__name__}): give a JSON file that a job wrote"
        ) from None
    return from_json(text, kind, uri)


def _build(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected an object with the fields of {kind.__name__}, found {value!r}")
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(value) - set(hints))
    if unknown:
        raise UserError(f"{where}: unknown field {unknown[0]!r}; {kind.__name__} has {', '.join(hints)}")
    arguments = {}
    for name, item in value.items():
        if dataclasses.is_dataclass(hints[name]):
            item = _build(hints[name], item, f"{where}.{name}")
        elif not fits(item, hints[name]):
            raise UserError(f"{where}.{name}: {item!r} is not of type {describe_type(hints[name])}")
        elif isinstance(item, list):
            item = tuple(item)
        arguments[name] = item
    return kind(**arguments)
