"""What a preset is."""

from dataclasses import dataclass, field

from deeplab_ray import datasets
from deeplab_ray.config.recipe import Recipe
from deeplab_ray.config.resources import TrainingResources

Published = tuple[float | None, float | None]
"""Mean IoU in per cent before and after the CRF; None if none was published."""


def class_names(dataset: str) -> tuple[str, ...]:
    """Names of a dataset's classes; UserError, listing the datasets, if no reader for it is here."""
    return datasets.get(dataset).classes


@dataclass(frozen=True)
class Preset:
    """A recipe, the data that it is for, and where it comes from."""

    name: str
    table: str
    """Where it stands: a table of the paper, or what else it is for."""
    switched_on: str
    """What sets it apart from its neighbours in the table."""
    dataset: str
    """What it is trained and tested on: the reader of jobs/prepare.py. The recipe says which splits."""
    recipe: Recipe
    published: Published = (None, None)
    resources: TrainingResources = field(default_factory=TrainingResources)

    @property
    def is_available(self) -> bool:
        """Whether jobs/prepare.py can read its dataset."""
        return self.dataset in datasets.names()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of its dataset's classes; UserError if no reader for it is here."""
        return class_names(self.dataset)

    @property
    def missing(self) -> str:
        """What is missing to run it as published, as a part of a sentence; empty if nothing is."""
        return "" if self.is_available else f"jobs/prepare.py cannot read {self.dataset} yet"

    def describe(self) -> str:
        """One line: what is switched on, the table, the published figures."""
        before, after = self.published
        figures = [f"{before} before" if before else "", f"{after} after the CRF" if after else ""]
        published = " and ".join(figure for figure in figures if figure)
        return f"{self.switched_on}: {self.table}" + (f"; published mIoU {published}" if published else "")
