"""An inspection as a page: one HTML file that needs nothing else."""

from collections.abc import Sequence
from typing import Any

from deeplab_ray.report.environment import TEMPLATES
from deeplab_ray.report.inspection import wording
from deeplab_ray.report.inspection.charts import Scale, scatters, share_scale
from deeplab_ray.report.inspection.facts import ClassRow, Facts, class_rows
from deeplab_ray.report.inspection.inspection import Inspection

LISTED = 50
"""How many bad pairs of a split, and how many stray files, the page lists."""
_FADE = 0.62


def write_page(inspection: Inspection) -> str:
    """The page as HTML text: self-contained, without script; for screen (light and dark), phone and paper."""
    facts = inspection.facts
    rows = class_rows(facts)
    labelled = [place for place, each in enumerate(facts) if each.labelled_pixels]
    scale = share_scale(row.shares[place] for row in rows for place in labelled)
    return TEMPLATES.get_template("inspection.html.j2").render(
        inspection=inspection,
        facts=facts,
        name=inspection.uri.rstrip("/").rsplit("/", 1)[-1],
        words=wording,
        how_prepared=[line for each in facts for line in wording.how_prepared(each)],
        scale=scale,
        rows=[_row(row, labelled, scale) for row in rows],
        labelled=labelled,
        fades=[f"{100 * _FADE**place:.0f}" for place in range(len(labelled))],
        legends=[_legend(each) for each in facts],
        scatters=scatters({each.name: each.columns for each in facts}),
        listed=LISTED,
    )


def _row(row: ClassRow, labelled: Sequence[int], scale: Scale) -> dict[str, Any]:
    return {
        "name": row.name,
        "value": row.value,
        "colour": _css(row.colour),
        "hex": "#{:02x}{:02x}{:02x}".format(*row.colour),
        "bars": [f"{scale.at(row.shares[place]):.2f}" for place in labelled],
        "shares": row.shares,
        "pixels": row.pixels,
    }


def _legend(facts: Facts) -> list[tuple[str, str]]:
    """Names and colours of the classes that occur in a split's samples, in their order."""
    seen = {name for look in facts.looks for name, _ in look.labels}
    table = facts.manifest.classes
    return [(name, _css(colour)) for name, colour in zip(table.names, table.colours, strict=True) if name in seen]


def _css(colour: tuple[int, int, int]) -> str:
    return "rgb({} {} {})".format(*colour)
