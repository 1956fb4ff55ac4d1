"""A few samples of a split, looked at: small pictures of the image and of its labels over it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deeplab_ray.errors import UserError
from deeplab_ray.images import decode_image, decode_label
from deeplab_ray.labels import IGNORE, ClassTable
from deeplab_ray.outputs.overlay import draw
from deeplab_ray.report.inspection.verification import Problem, check_shard
from deeplab_ray.report.pictures import data_uri, photograph
from deeplab_ray.shards import Sample, Split
from deeplab_ray.storage.patience import with_patience

WIDTH = 480
"""Largest width of a picture in pixels."""


@dataclass(frozen=True)
class Look:
    """A sample, small enough for a page."""

    id: str
    height: int
    width: int
    """In pixels, of the whole image."""
    image: str | None
    """The image, as a data URI; None if it could not be read."""
    overlay: str | None
    """The same with its labels over it; None if it has none."""
    labels: tuple[tuple[str, float], ...] = ()
    """The classes of its label and their shares of the labelled pixels in 0..1, the largest first."""
    ignored: float = 0.0
    """Share of the pixels that do not count, in 0..1."""
    problem: str | None = None
    """What is wrong with it."""
    shard: Problem | None = None
    """What is wrong with its shard, if that is why it cannot be shown."""


def look_at_samples(split: Split, count: int, seed: int) -> list[Look]:
    """Draw `count` images of a split by `seed`, among those with a label if there are any, in the split's order.

    A sample that cannot be read or shown tells so in its `problem`. Raises JobError if storage goes on failing.
    """
    numbers: Sequence[int] = split.labelled() or range(len(split))
    drawn = np.random.default_rng(seed).choice(len(numbers), min(count, len(numbers)), replace=False)
    return [_look_at(split, numbers[place]) for place in sorted(drawn.tolist())]


def _look_at(split: Split, number: int) -> Look:
    try:
        sample = with_patience(partial(split.read, number), split.folder)
    except (UserError, OSError):
        shard, row = split.place(number)
        problem = check_shard(split.folder, shard)
        return Look(f"row {row} of {shard.path}", 0, 0, None, None, problem="Its shard cannot be read.", shard=problem)
    try:
        image = decode_image(sample.image, max_pixels=None)
        label = None if sample.label is None else decode_label(sample.label)
        _check(sample, image, label, split.classes)
    except ValueError as error:
        return Look(sample.id, sample.height, sample.width, None, None, problem=str(error))
    small = photograph(image, WIDTH)
    look = partial(Look, sample.id, sample.height, sample.width, data_uri(small))
    if label is None:
        return look(None)
    counts = np.bincount(label.ravel(), minlength=256)
    labelled, classes = int(counts[:IGNORE].sum()), np.argsort(-counts[: len(split.classes)], kind="stable")
    return look(
        _overlay(np.asarray(small), label, split.classes),
        tuple((split.classes.names[each], counts[each] / labelled) for each in classes if counts[each]),
        float(counts[IGNORE] / label.size),
    )


def _check(sample: Sample, image: NDArray[np.uint8], label: NDArray[np.uint8] | None, classes: ClassTable) -> None:
    """Raise ValueError unless an image, uint8 H×W×3, and its label, uint8 H×W, are as the row says."""
    told = (sample.height, sample.width)
    for what, shape in (("image", image.shape[:2]), ("label", told if label is None else label.shape)):
        if shape != told:
            raise ValueError(f"the {what} is {shape[1]}×{shape[0]}, its row says {told[1]}×{told[0]}")
    if label is not None:
        strange = label[(label >= len(classes)) & (label != IGNORE)]
        if strange.size:
            raise ValueError(f"the label holds {strange[0]}, which is none of the {len(classes)} classes")


def _overlay(image: NDArray[np.uint8], label: NDArray[np.uint8], classes: ClassTable) -> str:
    """A small image, uint8 h×w×3, with its label of any size over it, as a data URI."""
    height, width = image.shape[:2]
    small = np.asarray(Image.fromarray(label).resize((width, height), Image.Resampling.NEAREST))
    return data_uri(Image.fromarray(draw(image, small, classes)))
