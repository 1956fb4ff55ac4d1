"""The dataclass of a preset."""

from dataclasses import dataclass, field

from deeplab_ray import datasets
from deeplab_ray.config.recipe import Recipe
from deeplab_ray.config.resources import TrainingResources
from deeplab_ray.labels import ClassTable

Published = tuple[float | None, float | None]
"""Mean IoU in per cent before and after the CRF; None if none was published."""


def class_table(dataset: str) -> ClassTable:
    """Return a dataset's classes. Raises UserError, listing the datasets, if there is none of that name."""
    return datasets.get(dataset).table


@dataclass(frozen=True)
class Preset:
    """A named recipe, with the dataset that it is for and its source."""

    name: str
    table: str
    """Title of the table that lists it: one of the paper's, or another."""
    switched_on: str
    """What sets it apart from the others in its table."""
    dataset: str
    """Dataset for training and testing, by its name in jobs/prepare.py. The recipe says which splits."""
    recipe: Recipe
    published: Published = (None, None)
    resources: TrainingResources = field(default_factory=TrainingResources)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the dataset's classes."""
        return class_table(self.dataset).names

    def describe(self) -> str:
        """Return one line: what is switched on, the table, the published figures."""
        before, after = self.published
        figures = [f"{before} before" if before else "", f"{after} after the CRF" if after else ""]
        published = " and ".join(figure for figure in figures if figure)
        return f"{self.switched_on}: {self.table}" + (f"; published mIoU {published}" if published else "")
