"""Classes found by looking: what the labels hold, in numbers, colours or names."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from deeplab_ray.datasets.colour_map import Colour
from deeplab_ray.datasets.doctor import examine
from deeplab_ray.datasets.doctor.case import percent
from deeplab_ray.datasets.facts import Facts, merge
from deeplab_ray.datasets.folder.classes import TOOLS_IGNORE, ClassEntry, ClassList
from deeplab_ray.datasets.folder.folder import Folder
from deeplab_ray.datasets.folder.shapes import BACKGROUND
from deeplab_ray.datasets.formats import Value
from deeplab_ray.errors import UserError
from deeplab_ray.labels import IGNORE

# A colour beside a more frequent one, or between two, is the work of compression or smoothing if it is so much rarer.
_BESIDE = 24
_RARER = 0.05


@dataclass(frozen=True)
class Found:
    """Classes that were found."""

    classes: ClassList
    table: str
    """The same for people, with what each takes of the labels."""
    notes: tuple[str, ...]
    """What was not taken for a class, and what to do."""


def find_classes(folder: Folder, facts: Mapping[str, Facts]) -> Found:
    """The classes of labels that were looked at (with `survey.Options.knows_values` off), by split.

    Numbers are classes in their order, and 255 is ignored unless there is nothing else but 0. Colours are classes by
    their frequency, names by the alphabet behind "background". With `snap_colours`, what is taken for no class is
    removed from the facts, since it gets one. UserError if there are none, or more than 255.
    """
    whole = merge(facts.values())
    if not whole.pixels:
        raise UserError(f"no classes are found, as no label can be used: {_why_none(folder, facts, whole)}")
    notes: list[str] = []
    if folder.form == "numbers":
        rows = _numbers(folder, whole)
    elif folder.form == "colours":
        rows, left = _colours(folder, whole)
        notes = _tell_left(folder, whole, left)
        if folder.options.snap_colours:
            for each in (*facts.values(), whole):
                _forget(each, left)
    else:
        rows = _names(whole)
    count = sum(not entry.ignore for _, entry in rows)
    if not 1 <= count <= IGNORE or whole.capped:
        raise UserError(
            f"{len(whole.pixels)}{' or more' * whole.capped} different values are in the labels, too "
            f"{'few' if count < 1 else 'many'} to be classes: give --classes"
        )
    return Found(ClassList(tuple(entry for _, entry in rows)), _table(rows, whole), tuple(notes))


_Rows = list[tuple[Value, ClassEntry]]


def _numbers(folder: Folder, whole: Facts) -> _Rows:
    values = sorted(value for value in whole.pixels if isinstance(value, int))
    offset, ignored = folder.options.label_offset, set(folder.options.ignore_values)
    if values not in ([0, IGNORE], [IGNORE]):
        ignored.add(IGNORE)
    wrong = [value for value in values if not (0 <= value + offset <= 255 or value in ignored)]
    if wrong:
        raise UserError(f"the labels hold {wrong[0]}, which --label-offset {offset} makes {wrong[0] + offset}")
    # A value that is ignored is named as it is in the files, whatever the offset.
    kept = [value for value in values if value not in ignored]
    palette = [folder.kind.palette.get(value) for value in kept]
    colours = palette if len(set(palette) - {None}) == len(kept) else [None] * len(kept)
    rows: _Rows = [
        (value, ClassEntry(f"class {value + offset}", value + offset, colour))
        for value, colour in zip(kept, colours, strict=True)
    ]
    return rows + [
        (value, ClassEntry(f"ignored {value}", value + offset, ignore=True))
        for value in values
        if value in ignored and 0 <= value + offset <= 255
    ]


def _names(whole: Facts) -> _Rows:
    names = sorted((str(name) for name in whole.pixels), key=lambda name: (name != BACKGROUND, name))
    return [(name, ClassEntry(name, ignore=name == TOOLS_IGNORE)) for name in names]


def _colours(folder: Folder, whole: Facts) -> tuple[_Rows, list[Colour]]:
    """The classes, and the colours that are taken for none."""
    ignored = folder.options.ignored_colours
    taken: list[Colour] = []
    left: list[Colour] = []
    for colour, _ in whole.pixels.most_common():
        if isinstance(colour, tuple):
            noise = colour not in ignored and _is_noise(colour, taken, whole)
            (left if noise else taken).append(colour)
    kept = [colour for colour in taken if colour not in ignored]
    rows: _Rows = [(colour, ClassEntry(f"class {number}", colour=colour)) for number, colour in enumerate(kept)]
    rows += [(colour, ClassEntry(f"ignored {_hex(colour)}", colour=colour, ignore=True)) for colour in sorted(ignored)]
    return rows, left


def _tell_left(folder: Folder, whole: Facts, left: list[Colour]) -> list[str]:
    borders = whole.sign("soft").pixels + whole.sign("lossy").pixels
    odd = sum(whole.pixels[colour] for colour in left) + borders
    if not odd:
        return []
    fix = "" if folder.options.snap_colours else " → give --snap-colours"
    return [
        f"{odd} pixels ({percent(odd, whole.pixels.total() + borders)}) have colours that look like smoothed borders or"
        f" compression, and are taken for no classes{fix}"
    ]


def _forget(facts: Facts, colours: list[Colour]) -> None:
    for colour in colours:
        facts.pixels.pop(colour, None)
        facts.images_with.pop(colour, None)
        facts.first_with.pop(colour, None)


def _is_noise(colour: Colour, taken: list[Colour], whole: Facts) -> bool:
    """Whether a colour is far rarer than one that it nearly is, or than two that it lies between."""
    frequent = [other for other in taken if whole.pixels[colour] < _RARER * whole.pixels[other]]
    if not frequent:
        return False
    ends, point = np.array(frequent, float), np.array(colour, float)
    if (np.abs(ends - point).max(axis=1) <= _BESIDE).any():
        return True
    # [F, F, 3] from each to each; how far along the way the colour is, and how far beside.
    ways = ends[None] - ends[:, None]
    lengths = (ways**2).sum(axis=2)
    along = ((point - ends[:, None]) * ways).sum(axis=2) / np.where(lengths, lengths, 1)
    beside = np.abs(ends[:, None] + along[..., None] * ways - point).max(axis=2)
    return bool(((lengths > 0) & (along > 0) & (along < 1) & (beside <= _BESIDE / 2)).any())


def _why_none(folder: Folder, facts: Mapping[str, Facts], whole: Facts) -> str:
    """What the doctor says of labels none of which could be used, or else what is wrong with the first."""
    any_class = folder.with_classes(ClassList((ClassEntry("any", 0, (0, 0, 0)),)))
    errors = [finding for finding in examine(facts, any_class) if finding.severity == "error"]
    if errors:
        return f"{errors[0].message} → {errors[0].fix}"
    first = whole.bad[0] if whole.bad else None
    return f"{first.id}: {first.reason}" if first else "there is none"


def _table(rows: _Rows, whole: Facts) -> str:
    """Name, what stands for it in the labels, colour, share of the pixels, number of images."""
    total = sum(whole.pixels.values())
    cells = [("class", "in labels", "pixels", "images")]
    for value, entry in rows:
        shown = _hex(value) if isinstance(value, tuple) else str(value)
        name = f"{entry.name} (ignored)" if entry.ignore else entry.name
        cells.append((name, shown, percent(whole.pixels[value], total), str(whole.images_with[value])))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        f"{name:<{widths[0]}}  {shown:<{widths[1]}}  {share:>{widths[2]}}  {images:>{widths[3]}}"
        for name, shown, share, images in cells
    )


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
