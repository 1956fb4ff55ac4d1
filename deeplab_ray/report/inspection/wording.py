"""Numbers and sentences that the text and the page of an inspection share."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deeplab_ray.report.inspection.comparison import Comparison
from deeplab_ray.report.inspection.facts import Facts
from deeplab_ray.report.inspection.inspection import Inspection
from deeplab_ray.report.scores import percent

_FREQUENT = 3
_NAMED = 20


def size_of(number: int) -> str:
    """Bytes as people say them: "812 B", "3.4 MB"."""
    size, unit = float(number), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 999.5:
            break
        size, unit = size / 1000, larger
    return f"{number} B" if unit == "B" else f"{size:.3g} {unit}"


def share(fraction: float | None) -> str:
    """A share in per cent, with two digits behind the point; "0" is nothing at all, "<0.01" is not."""
    if fraction == 0:
        return "0"
    return "<0.01" if fraction and fraction < 5e-5 else percent(fraction, 2)


def spread(values: NDArray[np.int64]) -> str:
    """The smallest, the median and the largest of rising numbers, or the only one there is; "–" of none."""
    if not values.size:
        return "–"
    if values[0] == values[-1]:
        return f"{values[0]:,}"
    return f"{values[0]:,} / {values[(len(values) - 1) // 2]:,} / {values[-1]:,}"


def frequent_sizes(facts: Facts) -> str:
    """The most frequent sizes, width×height, each with its share of the images."""
    sizes = list(facts.columns.sizes.items())
    if len(sizes) == 1:
        ((height, width), _), *_ = sizes
        return f"all {width}×{height}"
    named = [
        f"{width}×{height} ({percent(number / facts.columns.images)} %)"
        for (height, width), number in sizes[:_FREQUENT]
    ]
    others = len(sizes) - _FREQUENT
    more = f" and {others:,} other{'s' if others > 1 else ''}" if others > 0 else ""
    return f"{', '.join(named)}{more}" or "–"


def what_was_read(facts: Facts) -> str:
    """Of how many images the sizes and ids are known, a sentence without its full stop."""
    columns, manifest = facts.columns, facts.manifest
    if facts.complete:
        return f"{facts.name}: ids and sizes of all {manifest.images:,} images"
    return (
        f"{facts.name}: ids and sizes of {columns.images:,} of {manifest.images:,} images, those in {columns.shards:,} "
        f"of {len(manifest.shards):,} shards"
    )


def verdict(inspection: Inspection) -> str:
    """What came of comparing the checksums, a sentence without its full stop."""
    verification = inspection.verification
    if verification is None:
        return "Checksums were not compared: --verify does"
    speed = f"{size_of(verification.bytes)} in {verification.seconds:.1f} s"
    if not verification.problems:
        return f"All {verification.shards:,} shards are whole: their sha256 is the manifests' ({speed})"
    return f"{len(verification.problems):,} of {verification.shards:,} shards are not what the manifests say ({speed})"


def stray(inspection: Inspection) -> Sequence[str]:
    """URIs of files beside the shards that no manifest names."""
    return () if inspection.verification is None else inspection.verification.stray


def how_prepared(facts: Facts) -> list[str]:
    """What was asked for, changed and dropped when a split was prepared, as sentences without their full stops."""
    manifest = facts.manifest
    said = [f"{facts.name}: prepared with {name} {value}" for name, value in manifest.options.items()]
    said += [f"{facts.name}: {count(number, 'image')} changed: {why}" for why, number in manifest.changed.items()]
    if manifest.dropped:
        said.append(f"{facts.name}: {count(manifest.dropped, 'image')} left out, with too little of any object")
    return said


def differences(comparison: Comparison) -> list[str]:
    """What is worth saying of two splits, as sentences without their full stops."""
    first, second = comparison.first.name, comparison.second.name
    said = []
    if not comparison.same_table:
        said.append(f"{first} and {second} have other classes: neither training nor measuring takes both")
    if comparison.distance is not None:
        said.append(
            f"The class shares differ by {percent(comparison.distance)} % of the pixels (half the sum of differences)"
        )
    for place, classes in (
        (f"in {first} alone", comparison.first_alone),
        (f"in {second} alone", comparison.second_alone),
        ("in neither", comparison.nowhere),
    ):
        if classes:
            said.append(f"{count(len(classes), 'class')} {place}: {_first(classes, len(classes))}")
    if comparison.new_sizes:
        images = count(comparison.second.columns.images, "image")
        said.append(f"{comparison.new_sizes:,} of the {images} of {second} have a size that no image of {first} has")
    among = "" if comparison.complete else ", among those that were read: there may be more"
    if comparison.shared:
        said.append(
            f"{count(comparison.shared, 'id')} in both ({_first(comparison.shared_ids, comparison.shared)}){among}"
        )
    else:
        said.append(f"No id in both{among}")
    return said


def count(number: int, what: str) -> str:
    """A number of things: "1 class", "12 classes"."""
    ending = "" if number == 1 else "es" if what.endswith("s") else "s"
    return f"{number:,} {what}{ending}"


def _first(names: Sequence[str], number: int) -> str:
    return ", ".join(names[:_NAMED]) + (" …" if number > _NAMED else "")
