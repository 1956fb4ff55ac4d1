"""Images that occur twice, and sets that are not whole."""

from collections.abc import Iterator
from itertools import combinations

from deeplab_ray.datasets.doctor.case import Case, Finding
from deeplab_ray.datasets.facts import Facts


def check_splits(case: Case) -> Iterator[Finding]:
    """Images with the very same content within a split and in two; numbers of images other than the published ones."""
    for split, facts in case.facts.items():
        yield from _check_count(case, split, facts)
        yield from _check_duplicates(split, facts)
    for one, other in combinations(case.facts, 2):
        if not _meant_to_overlap(one, other):
            yield from _check_overlap(case, one, other)


def _check_count(case: Case, split: str, facts: Facts) -> Iterator[Finding]:
    published = case.dataset.published.get(split, len(facts.ids))
    if len(facts.ids) != published:
        yield Finding(
            "warning",
            "published-count",
            (split,),
            f"{split} has {len(facts.ids)} images, {case.dataset.name} as published has {published}",
            "get the missing ones" if len(facts.ids) < published else "take out what is not of the published set",
        )


def _check_duplicates(split: str, facts: Facts) -> Iterator[Finding]:
    first: dict[bytes, int] = {}
    copies, contrary, example = 0, 0, ""
    for index, sha in enumerate(facts.image_sha):
        if not sha:
            continue
        before = first.setdefault(sha, index)
        if before != index:
            copies += 1
            contrary += facts.label_sha[before] != facts.label_sha[index]
            example = example or f"{facts.ids[index]} = {facts.ids[before]}"
    if copies:
        yield Finding(
            "warning",
            "duplicates",
            (split,),
            f"{copies} of the {len(facts.ids)} images of {split} {'are copies' if copies > 1 else 'is a copy'} of "
            f"another one, {contrary} with another label, such as {example}",
            f"delete all but one of each from {split}",
        )


def _meant_to_overlap(one: str, other: str) -> bool:
    """Whether two splits are parts of each other by their names, as train and val are of trainval."""
    both_train = one.startswith("train") and other.startswith("train")
    return both_train or one in other or other in one


def _check_overlap(case: Case, one: str, other: str) -> Iterator[Finding]:
    facts, others = case.facts[one], case.facts[other]
    where = {sha: id for sha, id in zip(facts.image_sha, facts.ids, strict=True) if sha}
    common = [(id, where[sha]) for sha, id in zip(others.image_sha, others.ids, strict=True) if sha in where]
    if common:
        mine, theirs = common[0]
        yield Finding(
            "warning",
            "overlap",
            (one, other),
            f"{len(common)} of the {len(others.ids)} images of {other} {'are' if len(common) > 1 else 'is'} in {one}, "
            f"too, such as {mine}" + (f" = {theirs}" if mine != theirs else ""),
            f"delete them from {one} or from {other}: what has been learnt by heart measures nothing",
        )
