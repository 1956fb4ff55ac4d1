"""What the steps are told, and which of them go into which pool: the chains that the jobs are made of.

The steps themselves are imported in the workers: they need PyTorch, and a driver starts sooner without it.
"""

import os
from dataclasses import dataclass
from functools import partial
from typing import Any

from deeplab_ray.config.network import NetworkConfig
from deeplab_ray.config.recipe import Precision, Recipe
from deeplab_ray.config.scoring import ScoringConfig
from deeplab_ray.crf.params import CRFParams
from deeplab_ray.inputs import Inputs
from deeplab_ray.on_ray.infer.chain import Stage
from deeplab_ray.on_ray.infer.stage import Step
from deeplab_ray.on_ray.resources import Pool
from deeplab_ray.outputs.prediction import Format
from deeplab_ray.outputs.stored import Kind
from deeplab_ray.storage.location import Location

Maker = partial[Step]


@dataclass(frozen=True)
class Scorer:
    """What the actors with the network are told."""

    checkpoint: Location
    network: NetworkConfig
    """As the checkpoint's recipe has it; an actor needs nothing else to know the network, be it one of ours or not."""
    classes: int
    precision: Precision
    scoring: ScoringConfig
    batch: int = 0
    """Images of equal size that are scored together; 0: one on a CPU, and found out by trial on a GPU."""

    @classmethod
    def of(cls, checkpoint: Location, recipe: Recipe, classes: int, batch: int = 0) -> "Scorer":
        """The scorer that a recipe asks for."""
        return cls(checkpoint, recipe.network, classes, recipe.precision, recipe.scoring, batch)


@dataclass(frozen=True)
class Target:
    """Where files go, and which."""

    output: Location
    formats: tuple[Format, ...]

    def complete(self, id: str) -> bool:
        """Whether all files of an image are there."""
        return all((self.output / each.path(id)).exists() for each in self.formats)


def step(name: str, *arguments: Any) -> Maker:
    """Return the maker of the step that `steps` has under this name."""
    return partial(_make, name, *arguments)


def _make(name: str, *arguments: Any) -> Step:
    # Threads of PyTorch that wait for each other would compute meanwhile: a sixth of all CPU time, which the CRF could
    # use (`jobs/benchmark.py predict`). Read when PyTorch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from deeplab_ray.on_ray.infer import steps

    made: Step = getattr(steps, name)(*arguments)
    return made


def predict_stage(
    inputs: Inputs, scorer: Scorer, pool: Pool, max_pixels: int, there: Target | None = None, *more: Maker
) -> Stage:
    """Read images and score them; `more` is done with the scores in the same worker, or they go on to another.

    there: files of an earlier run; images that have all of theirs are passed over.
    """
    read, predict = step("Read", inputs, max_pixels, there), step("Predict", scorer, "cuda" if pool.gpus else "cpu")
    return Stage("predict", (read, predict, *(more or [step("Shed")])), pool)


def reread(inputs: Inputs, max_pixels: int) -> Maker:
    """The first step of a stage that takes what `predict_stage` hands on."""
    return step("Reread", inputs, max_pixels)


def refine_stage(
    first: Maker, classes: int, params: CRFParams | None, pool: Pool, *sinks: Maker, kind: Kind = "probabilities"
) -> Stage:
    """Make labels of scores, before and after the CRF, and hand both to the sinks. `params` None leaves the CRF out.

    first: brings the scores' images, or both. kind: what maps hold that are no scores of ours.
    """
    return Stage("refine", (first, step("Refine", classes, params, kind), *sinks), pool)
