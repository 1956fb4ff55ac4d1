"""An inspection as text, for a terminal."""

from collections.abc import Callable, Sequence

from deeplab_ray.report.inspection.comparison import Comparison
from deeplab_ray.report.inspection.facts import Facts, class_rows
from deeplab_ray.report.inspection.inspection import Inspection
from deeplab_ray.report.inspection.wording import (
    differences,
    frequent_sizes,
    how_prepared,
    share,
    size_of,
    spread,
    stray,
    verdict,
    what_was_read,
)

_LISTED = 10
_ROWS: tuple[tuple[str, Callable[[Facts], str]], ...] = (
    ("reader", lambda facts: facts.manifest.reader),
    ("images", lambda facts: f"{facts.manifest.images:,}"),
    ("labelled", lambda facts: f"{facts.manifest.labelled:,}"),
    ("labelled pixels", lambda facts: f"{facts.labelled_pixels:,}"),
    ("bad pairs, left out", lambda facts: f"{len(facts.manifest.bad):,}"),
    ("shards", lambda facts: f"{len(facts.manifest.shards):,}"),
    ("bytes", lambda facts: size_of(facts.bytes)),
    ("digest", lambda facts: facts.manifest.digest[:12]),
    ("width (min / median / max)", lambda facts: spread(facts.columns.widths)),
    ("height", lambda facts: spread(facts.columns.heights)),
    ("sizes", lambda facts: f"{len(facts.columns.sizes):,}"),
)


def format_text(inspection: Inspection) -> str:
    """The whole text: splits side by side, classes, comparison, what was found; ends without a newline."""
    facts, comparison = inspection.facts, inspection.comparison
    parts = [
        [f"{inspection.uri}: {', '.join(each.name for each in facts)}"],
        _table([["", *(each.name for each in facts)], *([name, *map(row, facts)] for name, row in _ROWS)]),
        [f"{each.name}: {frequent_sizes(each)}" for each in facts],
        [f"{line}." for each in facts for line in how_prepared(each)],
        _classes(facts, comparison),
        [] if comparison is None else [f"{line}." for line in differences(comparison)],
        *(_listed(f"Left out of {each.name} when it was prepared:", _bad(each)) for each in facts),
        _listed("Said when it was prepared:", inspection.said, len(inspection.said)),
        _listed("Shards that are not what the manifests say:", inspection.problems, len(inspection.problems)),
        _listed("Samples that cannot be shown:", inspection.odd_samples),
        _listed("Files that no manifest names (nobody reads them; they may be deleted):", stray(inspection)),
    ]
    notes = [f"{what_was_read(each)}." for each in facts if not each.complete]
    parts.append([*notes, f"{verdict(inspection)}."])
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def _listed(title: str, lines: Sequence[object], at_most: int = _LISTED) -> list[str]:
    """A title and the first lines below it, with the number of those that are left out; nothing without lines."""
    more = [f"  … and {len(lines) - at_most:,} others"] if len(lines) > at_most else []
    return [title, *(f"  {line}" for line in lines[:at_most]), *more] if lines else []


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, its first column to the left and all others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _classes(facts: Sequence[Facts], comparison: Comparison | None) -> list[str]:
    rows = [["class", "value", "colour", *(f"{each.name} %" for each in facts)]]
    for row in class_rows(facts):
        colour = "#{:02x}{:02x}{:02x}".format(*row.colour)
        rows.append([row.name, str(row.value), colour, *map(share, row.shares)])
    if comparison is not None:
        rows[0].append(f"{comparison.second.name} / {comparison.first.name}  ")
        for line, each in zip(rows[1:], comparison.classes, strict=True):
            line.append("–  " if each.factor is None else f"{each.factor:.2f}{' !' if each.notable else '  '}")
    marked = comparison is not None and any(each.notable for each in comparison.classes)
    return _table(rows) + (["! one share is at least twice the other"] if marked else [])


def _bad(facts: Facts) -> list[str]:
    return [f"{each.id}: {each.reason}" for each in facts.manifest.bad]
