"""Classes that cannot be learnt or measured, and pixels that belong to none."""

from collections import Counter
from collections.abc import Iterator, Sized

from deeplab_ray.datasets.doctor.case import Case, Finding, listed, name, percent
from deeplab_ray.datasets.facts import Facts
from deeplab_ray.datasets.formats import Value
from deeplab_ray.labels import IGNORE

_MUCH = 0.75


def check_classes(case: Case) -> Iterator[Finding]:
    """Classes that occur nowhere, or in none of the splits that are trained on."""
    if not case.whole.labels:
        return
    pixels = {split: _by_class(case, facts) for split, facts in case.facts.items() if facts.labels}
    classes = case.dataset.classes
    never = [title for id, title in enumerate(classes) if not any(counts[id] for counts in pixels.values())]
    if never:
        it = "it" if len(never) == 1 else "them"
        yield Finding(
            "warning",
            "class-never",
            tuple(pixels),
            f"{len(never)} of {len(classes)} classes {_occur(never)} in no label: {listed(never)}",
            f"leave {it} out of --classes, or add images that show {it}"
            if case.own
            else f"add the images that show {it}, if the set is not whole: what is never seen is not learnt",
        )
    train = [split for split in pixels if split.startswith("train")]
    others = [split for split in pixels if split not in train]
    if not train:
        return
    unseen = [
        id
        for id in range(len(classes))
        if any(pixels[split][id] for split in others) and not any(pixels[split][id] for split in train)
    ]
    if unseen:
        where = tuple(split for split in others if any(pixels[split][id] for id in unseen))
        count = sum(pixels[split][id] for split in where for id in unseen)
        yield Finding(
            "warning",
            "class-not-trained",
            where,
            f"{len(unseen)} of {len(classes)} classes {_occur(unseen)} in {', '.join(where)} and not in "
            f"{', '.join(train)}: {listed([classes[id] for id in unseen])}; {count} pixels, such as in "
            f"{_example(case, where, unseen)}",
            f"move images that show them from {where[0]} to {train[0]}",
        )


def _occur(what: Sized) -> str:
    return "occurs" if len(what) == 1 else "occur"


def _by_class(case: Case, facts: Facts) -> Counter[int]:
    """Pixels of each train id."""
    counts = Counter(facts.snapped)
    for value, pixels in facts.pixels.items():
        if (train_id := case.train_id(value)) is not None:
            counts[train_id] += pixels
    return counts


def _example(case: Case, splits: tuple[str, ...], train_ids: list[int]) -> str:
    firsts = (
        id
        for split in splits
        for value, id in case.facts[split].first_with.items()
        if case.train_id(value) in train_ids
    )
    return next(firsts, case.facts[splits[0]].sign("snapped").example)


def check_ignored(case: Case) -> Iterator[Finding]:
    """The share of pixels that belong to no class, in each split."""
    for split, facts in case.facts.items():
        ignored: dict[Value, int] = {v: n for v, n in facts.pixels.items() if case.train_id(v) == IGNORE}
        total = facts.pixels.total() + facts.snapped.total()
        share = sum(ignored.values()) + facts.snapped[IGNORE]
        if not total:
            continue
        void = facts.sign("void")
        most = max(ignored, key=lambda value: ignored[value]) if ignored else None
        message = f"{percent(share, total)} of the pixels of {split} are ignored"
        if most is not None:
            message += f", {percent(ignored[most], total)} as value {name(most)}"
        if void.images:
            message += f"; {void.images} of {facts.labels} labels are ignored throughout, such as {void.example}"
        if share == total and split not in case.dataset.unlabelled:
            others = [other for other in case.facts if other != split]
            fix = f"get the labels of {split}" + (f", or leave it out by --splits {' '.join(others)}" if others else "")
            if case.own and most is not None:
                fix = f"name value {name(most)} in --classes if it is a class, instead of ignoring it"
            yield Finding("error", "all-ignored", (split,), message, fix)
        elif share > _MUCH * total and split not in case.dataset.unlabelled:
            fix = "check that what is ignored belongs to no class"
            if case.own:
                fix = f"name value {name(most or 0)} in --classes if it is a class (such as background), instead of "
                fix += "ignoring it"
            yield Finding("warning", "much-ignored", (split,), message, fix)
        else:
            yield Finding("note", "ignored", (split,), message, "")
