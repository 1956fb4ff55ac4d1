"""Config dataclasses to and from JSON text, which is checked when it is read."""

import dataclasses
import json
import math
import typing
from typing import Any, TypeVar

from deeplab_ray.checks import describe_type, fits
from deeplab_ray.config.network import NetworkConfig
from deeplab_ray.errors import UserError
from deeplab_ray.storage.location import locate

T = TypeVar("T")


def to_json(config: Any) -> str:
    """Return a config dataclass as indented JSON."""
    return json.dumps(as_dict(config), indent=2) + "\n"


def json_text(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON, with null for every number that is not finite, at any depth: JSON has no NaN."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_dict(config: Any) -> dict[str, Any]:
    """Return a config dataclass, and those inside it, as dicts; the dict of a network's options has its `name`, too."""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    if isinstance(config, NetworkConfig):
        values = {"name": config.name, **values}
    return {name: as_dict(value) if dataclasses.is_dataclass(value) else value for name, value in values.items()}


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"solver": {"batch": 4}} → {"solver.batch": 4}."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def text(value: Any) -> str:
    """Return a value as it stands in a sentence for the user."""
    return "nothing" if value is None else str(list(value) if isinstance(value, tuple) else value)


def from_json(text: str, kind: type[T], where: str = "config") -> T:
    """Build the dataclass `kind` from JSON text; keys that are left out keep their defaults.

    where: the source of the text, for messages.
    Raises UserError if the text is not JSON, a key is unknown or missing, or a value has a wrong type or is refused by
    the dataclass itself.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not JSON ({error}): give a file that a job wrote") from None
    return from_dict(value, kind, where)


def load(uri: str, kind: type[T]) -> T:
    """Read the dataclass `kind` from a JSON file at a path or s3:// URI; UserError if it cannot be read or is wrong."""
    return from_json(read_text(uri, kind.__name__), kind, uri)


def read_text(uri: str, what: str) -> str:
    """Read the text of a file at a path or s3:// URI; UserError, naming `what` it should hold, if that fails."""
    try:
        return locate(uri).read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"no {what} can be read from {uri} ({type(error).__name__}): give a JSON file that a job wrote"
        ) from None


def from_dict(value: Any, kind: type[T], where: str) -> T:
    """Build the dataclass `kind` from what `as_dict` returned; see `from_json`."""
    return _build(kind, value, where)


def _build(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected an object with the fields of {kind.__name__}, found {value!r}")
    if issubclass(kind, NetworkConfig):
        kind, value = _network(value, where)
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    unknown = sorted(set(value) - set(names))
    if unknown:
        raise UserError(f"{where}: unknown field {unknown[0]!r}; {kind.__name__} has {', '.join(names)}")
    arguments = {}
    for name, item in value.items():
        if (inner := _dataclass(hints[name])) and item is not None:
            item = _build(inner, item, f"{where}.{name}")
        elif not fits(item, hints[name]):
            raise UserError(f"{where}.{name}: {item!r} is not of type {describe_type(hints[name])}")
        elif isinstance(item, list):
            item = tuple(item)
        arguments[name] = item
    required = (field.name for field in dataclasses.fields(kind) if field.default is field.default_factory)
    if missing := next((name for name in required if name not in arguments), None):
        raise UserError(f"{where} has no {missing!r}, which {kind.__name__} needs")
    return kind(**arguments)


def _dataclass(hint: Any) -> Any:
    """Return the dataclass that a field holds, even if the field may be None; None for other fields."""
    return next((kind for kind in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(kind)), None)


def _network(value: dict[str, Any], where: str) -> tuple[type[NetworkConfig], dict[str, Any]]:
    kinds = NetworkConfig.kinds()
    name = value.get("name")
    if not isinstance(name, str) or name not in kinds:
        raise UserError(f"{where}: unknown network {name!r}: choose from {', '.join(sorted(kinds))}")
    return kinds[name], {key: item for key, item in value.items() if key != "name"}
