"""What the doctor looks at, and what it gives."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

from deeplab_ray.datasets.base import Dataset
from deeplab_ray.datasets.facts import Facts, Sign, SignName, merge
from deeplab_ray.datasets.formats import Value

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)

FOLDER = "folder"
"""Name of the dataset that is anybody's two folders, whose flags say what its labels mean."""
_LISTED = 6
_OF_ONE = {"are": "is", "have": "has"}


@dataclass(frozen=True)
class Finding:
    """Something that a set has, or lacks."""

    severity: Severity
    code: str
    """What kind of finding it is, such as "binary-255"."""
    splits: tuple[str, ...]
    """Where it was found."""
    message: str
    """What was found, with counts and the id of an example."""
    fix: str
    """What to do: a flag of jobs/prepare.py, or an action. Empty for most notes."""


@dataclass(frozen=True)
class Case:
    """The facts of a set's splits, and the dataset that they should be of."""

    facts: Mapping[str, Facts]
    dataset: Dataset

    @cached_property
    def whole(self) -> Facts:
        """Of all splits together."""
        return merge(self.facts.values())

    @property
    def own(self) -> bool:
        """Whether it is a user's own folders, with flags that say what their labels mean."""
        return self.dataset.name == FOLDER

    def train_id(self, value: Value) -> int | None:
        return self.dataset.labels.train_id(value)

    def severity(self, images: int) -> Severity:
        """An error if it concerns half of the labels, else a warning: the pairs concerned are bad by themselves."""
        return "error" if 2 * images >= self.whole.labels else "warning"

    def of(self, images: int, verb: str) -> str:
        """So many of all labels do something: "2 of 12 labels have", "1 of 12 labels has"."""
        return f"{images} of {self.whole.labels} labels {verb if images != 1 else _OF_ONE.get(verb, f'{verb}s')}"

    def where(self, holds: Callable[[Facts], object]) -> tuple[str, ...]:
        """The splits for which it holds."""
        return tuple(split for split, facts in self.facts.items() if holds(facts))

    def signed(self, name: SignName) -> tuple[Sign, tuple[str, ...]]:
        """A sign over all splits, and where it was seen."""
        return self.whole.sign(name), self.where(lambda facts: facts.sign(name).images)

    def leave_out(self, images: int, fix: str) -> str:
        """A fix for labels that are bad by themselves; if they are few, they may be left out, too."""
        return fix if self.severity(images) == "error" else f"{fix}, or leave them out by --skip-bad"


def percent(part: float, whole: float) -> str:
    """A share as people read it: 0 % and 100 % are exact."""
    share = 100 * part / whole if whole else 0.0
    if 0 < share < 0.1:
        return "under 0.1 %"
    if 99.9 < share < 100:
        return "over 99.9 %"
    return f"{share:.0f} %" if share in (0, 100) else f"{share:.1f} %"


def listed(items: list[str]) -> str:
    """The first of many, and how many more there are."""
    more = len(items) - _LISTED
    return ", ".join(items[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def name(value: Value) -> str:
    """A label's value in a sentence, and on the command line."""
    if isinstance(value, tuple):
        return "#{:02x}{:02x}{:02x}".format(*value)
    return repr(value) if isinstance(value, str) else str(value)
