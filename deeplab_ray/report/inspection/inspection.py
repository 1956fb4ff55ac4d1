"""An inspection: all that is found out about a prepared set, or a part of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from deeplab_ray.report.inspection.comparison import Comparison, compare
from deeplab_ray.report.inspection.facts import Facts, examine, open_set
from deeplab_ray.report.inspection.verification import Problem, Verification, verify

_SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class Said:
    """One thing that the doctor said of some of the splits."""

    severity: str
    code: str
    message: str
    fix: str
    """Empty if there is nothing to fix."""
    splits: tuple[str, ...]

    def __str__(self) -> str:
        fix = f" → {self.fix}" if self.fix else ""
        return f"{self.severity} {self.code} ({', '.join(self.splits)}): {self.message}{fix}"


@dataclass(frozen=True)
class Inspection:
    """What was found."""

    uri: str
    facts: Sequence[Facts]
    """Of each split."""
    comparison: Comparison | None
    """None if no split was named to compare with."""
    verification: Verification | None
    """None if the checksums were not compared."""
    seed: int
    """What the samples were drawn by."""

    @cached_property
    def problems(self) -> list[Problem]:
        """Shards that are not what their manifests say, each once."""
        verified = () if self.verification is None else self.verification.problems
        found = [*verified, *(problem for each in self.facts for problem in each.problems)]
        return list({problem.shard: problem for problem in reversed(found)}.values())[::-1]

    @cached_property
    def odd_samples(self) -> list[str]:
        """What is wrong with samples whose shards are whole: "id: reason"."""
        looks = [look for each in self.facts for look in each.looks]
        return [f"{look.id}: {look.problem}" for look in looks if look.problem and not look.shard]

    @cached_property
    def said(self) -> list[Said]:
        """What the doctor said when the set was prepared, the most serious first."""
        found: dict[tuple[str, str, str, str], list[str]] = {}
        for each in self.facts:
            for finding in each.manifest.findings:
                key = (finding["severity"], finding["code"], finding["message"], finding["fix"])
                found.setdefault(key, []).append(each.name)
        said = [Said(*key, splits=tuple(splits)) for key, splits in found.items()]
        return sorted(said, key=lambda each: _SEVERITIES.index(each.severity))


def inspect(
    uri: str,
    split: str | None = None,
    against: str | None = None,
    samples: int = 0,
    seed: int = 0,
    verified: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Inspection:
    """Look at the prepared splits that are meant (see `open_set`); with `verified` read all their shards.

    samples: images of each split to look at. `say` gets a line now and then while shards are read.
    Raises UserError as `open_set` does, JobError if storage goes on failing. What is damaged is told in the result.
    """
    splits = open_set(uri, split, against)
    verification = verify(splits, say) if verified else None
    facts = [examine(each, samples, seed) for each in splits]
    comparison = compare(*facts) if against is not None else None
    return Inspection(uri, facts, comparison, verification, seed)
