"""How two splits differ: in their classes, in the sizes of their images, and whether images are in both."""

from dataclasses import dataclass

import pyarrow.compute as pc

from deeplab_ray.report.inspection.facts import ClassRow, Facts, class_rows

_NOTABLE = 2.0
_LISTED = 20


@dataclass(frozen=True)
class ClassDifference:
    """A class in both splits."""

    row: ClassRow
    factor: float | None
    """Its share in the second split divided by that in the first; None if either is nothing."""

    @property
    def notable(self) -> bool:
        """Whether one of the shares is at least twice the other."""
        return self.factor is not None and not 1 / _NOTABLE < self.factor < _NOTABLE


@dataclass(frozen=True)
class Comparison:
    """A split beside another one."""

    first: Facts
    second: Facts
    classes: list[ClassDifference]
    distance: float | None
    """Half the sum of the shares' differences, in 0..1: such a part of the pixels would have to be of another class.
    None if one of the splits has no labelled pixel."""
    first_alone: list[str]
    """Classes that occur in the first split alone."""
    second_alone: list[str]
    nowhere: list[str]
    """Classes that occur in neither."""
    same_table: bool
    """Whether both have the same classes, in the same order."""
    new_sizes: int
    """Images of the second split, of those whose sizes were read, of a size that none of the first has."""
    shared: int
    """Number of ids that occur in both."""
    shared_ids: list[str]
    """The first ones of them."""
    complete: bool
    """Whether all ids were compared; else it is those of samples of the shards."""


def compare(first: Facts, second: Facts) -> Comparison:
    """Compare two splits; classes are told apart by their names."""
    rows = class_rows([first, second])
    known = first.labelled_pixels and second.labelled_pixels
    differences = [(row, row.shares[0] or 0.0, row.shares[1] or 0.0) for row in rows]
    both = first.columns.ids.filter(pc.is_in(first.columns.ids, value_set=second.columns.ids.combine_chunks()))
    return Comparison(
        first,
        second,
        classes=[ClassDifference(row, b / a if a and b else None) for row, a, b in differences],
        distance=sum(abs(a - b) for _, a, b in differences) / 2 if known else None,
        first_alone=[row.name for row, a, b in differences if a and not b],
        second_alone=[row.name for row, a, b in differences if b and not a],
        nowhere=[row.name for row, a, b in differences if not a and not b],
        same_table=first.manifest.classes.names == second.manifest.classes.names,
        new_sizes=sum(n for size, n in second.columns.sizes.items() if size not in first.columns.sizes),
        shared=len(both),
        shared_ids=both[:_LISTED].to_pylist(),
        complete=first.complete and second.complete,
    )
