"""Values that mean something else in the labels than in the dataset's table."""

import shlex
from collections.abc import Iterator

from deeplab_ray.datasets.doctor.case import Case, Finding, listed, name, percent
from deeplab_ray.datasets.formats import Value
from deeplab_ray.labels import IGNORE

_BYTE = 255
# A command line has room for so many.
_NAMED = 20


def check_values(case: Case) -> Iterator[Finding]:
    """The one convention that explains the values of the whole set, or else the values that mean nothing."""
    seen = {value for value in case.whole.pixels if isinstance(value, int)}
    unknown = [value for value in case.whole.pixels if case.train_id(value) is None]
    if len(seen) == len(case.whole.pixels):
        for explain in (_binary, _from_zero, _train_ids, _from_one):
            if finding := explain(case, seen):
                yield finding
                return
    if unknown == [_BYTE]:
        yield _undeclared(case)
    elif unknown:
        yield _beyond(case, unknown)


def _binary(case: Case, seen: set[int]) -> Finding | None:
    """A binary mask in black and white, whose white is what others ignore."""
    if seen != {0, _BYTE} or case.train_id(_BYTE) not in (None, IGNORE):
        return None
    means = "is ignored" if case.train_id(_BYTE) == IGNORE else "means nothing"
    return Finding(
        "error",
        "binary-255",
        case.where(lambda facts: facts.labels),
        f"the labels hold 0 and {_BYTE} alone, as masks in black and white do, and {_BYTE} {means}: "
        f"{percent(case.whole.pixels[_BYTE], sum(case.whole.pixels.values()))} of all pixels, such as in "
        f"{case.whole.first_with[_BYTE]}",
        _with_white(case.dataset.classes) if case.own else "save the white pixels as the number of their class",
    )


def _with_white(classes: tuple[str, ...]) -> str:
    """The flag that makes white a class."""
    if len(classes) != 2:
        return f"give {_BYTE} as the value of the class that is white in --classes"
    return f"give --classes {shlex.quote(f'{classes[0]}=0,{classes[1]}={_BYTE}')}"


def _train_ids(case: Case, seen: set[int]) -> Finding | None:
    """Numbers 0..C−1 and 255, as a network learns them, under the names of files that hold other numbers."""
    table, classes = case.dataset.label_values, len(case.dataset.classes)
    moved = {value for value in seen - {_BYTE} if table.get(value) not in (value, None)}
    is_other = any(value >= classes for value, train_id in table.items() if train_id != IGNORE)
    if not (is_other and moved and _BYTE in seen and max(seen - {_BYTE}) < classes):
        return None
    lost = [value for value in sorted(moved) if table[value] == IGNORE]
    if not lost:
        return None
    return Finding(
        "error",
        "train-ids",
        case.where(lambda facts: facts.labels),
        f"the labels hold 0..{max(seen - {_BYTE})} and {_BYTE} alone, which are train ids, and not the ids of "
        f"{case.dataset.name} (0..{max(set(table) - {_BYTE})}): {', '.join(map(str, lost))} would be ignored, such as "
        f"in {case.whole.first_with[lost[0]]}",
        f"put the label files there as {case.dataset.name} publishes them",
    )


def _from_one(case: Case, seen: set[int]) -> Finding | None:
    """Ids that are all one too high: the first never occurs, and one beyond the last does."""
    beyond = next((value for value in range(_BYTE + 2) if case.train_id(value) is None), 0)
    if not (beyond > 1 and case.train_id(0) == 0 and 0 not in seen and beyond in seen):
        return None
    if any(case.train_id(value) is None for value in seen - {beyond, _BYTE}):
        return None
    return Finding(
        "error",
        "ids-from-1",
        case.where(lambda facts: facts.labels),
        f"the labels hold {min(seen)}..{beyond}, and 0 nowhere, where values are 0..{beyond - 1}: "
        f"{case.of(case.whole.images_with[beyond], 'have')} {beyond}, such as {case.whole.first_with[beyond]}, and the "
        "others are off by one",
        "give --label-offset -1" if case.own else "subtract 1 from the values of the labels",
    )


def _from_zero(case: Case, seen: set[int]) -> Finding | None:
    """Ids 0..C−1 and 255 where classes are 1..C and 0 is ignored."""
    classes = len(case.dataset.classes)
    starts_at_one = case.train_id(0) == IGNORE and case.train_id(1) == 0 and case.train_id(classes) == classes - 1
    if not (starts_at_one and case.train_id(_BYTE) is None and {0, _BYTE} <= seen and classes not in seen):
        return None
    if any(case.train_id(value) is None for value in seen - {_BYTE}):
        return None
    images = case.whole.images_with[_BYTE]
    return Finding(
        "error",
        "ids-from-0",
        case.where(lambda facts: facts.labels),
        f"the labels hold 0..{max(seen - {_BYTE})} and {_BYTE}, where the {classes} classes are 1..{classes} and 0 is "
        f"ignored: {case.of(images, 'have')} {_BYTE}, such as {case.whole.first_with[_BYTE]}; "
        "the others are off by one",
        f"give --label-offset 1 --ignore-values {_BYTE}"
        if case.own
        else f"put the label files there as {case.dataset.name} publishes them (0 is none, 1 is the first class)",
    )


def _undeclared(case: Case) -> Finding:
    """255 occurs, as what is to be ignored most likely, but has no meaning."""
    whole, table = case.whole, case.dataset.table
    images = whole.images_with[_BYTE]
    return Finding(
        case.severity(images),
        "undeclared-255",
        case.where(lambda facts: _BYTE in facts.pixels),
        f"{case.of(images, 'hold')} {_BYTE}, {percent(whole.pixels[_BYTE], sum(whole.pixels.values()))} of all pixels, "
        f"which means nothing here, such as {whole.first_with[_BYTE]}",
        case.leave_out(
            images,
            f"give --ignore-values {_BYTE} if it stands for no class"
            if case.own
            else f"save those pixels as {table.ignore_value}, which {case.dataset.name} ignores",
        ),
    )


def _beyond(case: Case, unknown: list[Value]) -> Finding:
    whole, (sign, splits) = case.whole, case.signed("unknown")
    images = sign.images or max(whole.images_with[value] for value in unknown)
    pixels = sum(whole.pixels[value] for value in unknown)
    values = [name(value) for value in sorted(unknown, key=lambda value: (str(type(value)), value))]
    numbers, colours = (all(isinstance(value, kind) for value in unknown) for kind in (int, tuple))
    flag = "--ignore-values" if numbers else "--ignore-colours" if colours else ""
    if not case.own:
        fix = f"save them as {case.dataset.name} publishes them"
        fix += f", with {case.dataset.table.ignore_value} for what is none of its classes" if numbers else ""
    elif flag and len(values) <= _NAMED:
        fix = f"name them in --classes, or give {flag} {' '.join(map(shlex.quote, values))} if they stand for no class"
    else:
        fix = "name them in --classes"
    return Finding(
        case.severity(images),
        "unknown-values",
        splits or case.where(lambda facts: any(value in facts.pixels for value in unknown)),
        f"{case.of(images, 'hold')} {len(values)} value{'s' * (len(values) > 1)} beyond the "
        f"{len(case.dataset.classes)} classes ({listed(values)}), in {pixels} pixels "
        f"({percent(pixels, sum(whole.pixels.values()))}), such as {whole.first_with[unknown[0]]}",
        case.leave_out(images, fix),
    )
