"""What the numbers in a label mean: train ids 0..C−1, IGNORE, and the table of classes behind them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

IGNORE = 255
"""Train id of pixels that take no part in training and measuring."""


@dataclass(frozen=True)
class ClassTable:
    """The C classes that a network learns, in the order of their train ids 0..C−1. Picklable, small.

    Raises ValueError unless every class has a name, a colour and a value, all within their ranges, and no two of the
    values (with `ignore_value`) are the same.
    """

    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    """RGB, each 0..255."""
    values: tuple[int, ...]
    """The value (0..255) that a label file on the way out holds for each train id: what a benchmark takes."""
    ignore_value: int = IGNORE
    """The same for pixels of no class."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= IGNORE:
            raise ValueError(f"{len(self.names)} classes: there must be 1 to {IGNORE}")
        if not len(self.names) == len(self.colours) == len(self.values):
            raise ValueError(
                f"{len(self.names)} classes have {len(self.colours)} colours and {len(self.values)} values"
            )
        if any(len(colour) != 3 or not all(0 <= part <= 255 for part in colour) for colour in self.colours):
            raise ValueError("a colour is three numbers of 0..255")
        values = [*self.values, self.ignore_value]
        if not all(0 <= value <= 255 for value in values):
            raise ValueError(f"values {values}: they must lie in 0..255")
        if len(set(values)) < len(values):
            raise ValueError(f"values {values}: each class and what is ignored need one of their own")

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def _raw_values(self) -> NDArray[np.int16]:
        """int16 [256]: train id → value, −1 if the table has no such id."""
        table = np.full(256, -1, np.int16)
        table[: len(self)] = self.values
        table[IGNORE] = self.ignore_value
        return table

    @cached_property
    def _palette(self) -> NDArray[np.uint8]:
        """uint8 [256, 3]: train id → colour."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self)] = self.colours
        return table

    def colourise(self, train_ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Train ids, uint8 H×W → uint8 RGB H×W×3 in the classes' colours; IGNORE is black."""
        return self._palette[train_ids]

    def to_values(self, train_ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Train ids, uint8 H×W → uint8 H×W in the values of label files on the way out.

        Raises ValueError for a train id that is none of 0..C−1 and IGNORE.
        """
        raw = self._raw_values[train_ids]
        if (raw < 0).any():
            raise ValueError(f"train id {train_ids[raw < 0][0]} is none of the {len(self)} classes")
        return raw.astype(np.uint8)

    def to_json(self) -> dict[str, Any]:
        """The table as JSON has it: a list of classes (name, colour, value) and the ignore value."""
        rows = zip(self.names, self.colours, self.values, strict=True)
        classes = [{"name": name, "colour": list(colour), "value": value} for name, colour, value in rows]
        return {"classes": classes, "ignore_value": self.ignore_value}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "ClassTable":
        """The table that `to_json` gave. Raises KeyError, TypeError or ValueError for anything else."""
        classes = fields["classes"]
        return cls(
            names=tuple(str(each["name"]) for each in classes),
            colours=tuple(
                (int(red), int(green), int(blue)) for red, green, blue in (each["colour"] for each in classes)
            ),
            values=tuple(int(each["value"]) for each in classes),
            ignore_value=int(fields["ignore_value"]),
        )
