"""What a job was asked for, kept beside its outputs, so that the same place never holds results of two recipes."""

import json
from typing import Any

from deeplab_ray.config.io import flat, text
from deeplab_ray.errors import UserError
from deeplab_ray.storage.location import Location

UNCOMPARED = "software"
"""Field of a record that may differ."""
PREDICT, REFINE = "predict.json", "refine.json"
"""Records of the jobs that fill a folder."""


def read(file: Location) -> dict[str, Any] | None:
    """The record of an earlier run; None if there is none. Raises UserError for a broken one."""
    try:
        fields = json.loads(file.read_bytes())
        if not isinstance(fields, dict):
            raise ValueError("no object")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise UserError(f"{file} is broken ({error}): give another --output, or remove that folder") from None
    return fields


def differences(asked: dict[str, Any], earlier: dict[str, Any]) -> list[str]:
    """What an earlier run was asked for otherwise, as text: "crf.w1 4, not 3"."""
    # Through JSON, where a tuple becomes a list.
    now, then = (flat(json.loads(json.dumps(fields))) for fields in (asked, earlier))
    return [
        f"{name} {text(then.get(name))}, not {text(now.get(name))}"
        for name in sorted(now.keys() | then.keys())
        if now.get(name) != then.get(name) and not name.startswith(UNCOMPARED)
    ]


def note(file: Location, asked: dict[str, Any]) -> bool:
    """Write down what is asked for; return whether an earlier run was asked for the same and has begun here.

    Raises UserError, naming every difference, if it was asked for something else.
    """
    earlier = read(file)
    if earlier is None:
        file.write_bytes((json.dumps(asked, indent=2, ensure_ascii=False) + "\n").encode())
        return False
    refuse(file.parent, differences(asked, earlier))
    return True


def refuse_others(output: Location, own: str = "") -> None:
    """Raise UserError if the folder is that of another job, whose record is not named `own`."""
    for name in {PREDICT, REFINE} - {own}:
        if (output / name).exists():
            raise UserError(f"{output} holds results of another job ({name}): give another --output")


def refuse(output: Location, different: list[str]) -> None:
    """Raise UserError if there are differences."""
    if different:
        raise UserError(
            f"{output} holds results of another run ({'; '.join(different)}): ask for the same, or give another "
            "--output"
        )
