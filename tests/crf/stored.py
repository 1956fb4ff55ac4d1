"""What pydensecrf makes of small images, stored for machines that cannot compile it."""

from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import numpy as np
from fields import random_case, scene

from deeplab_ray.crf import CRFParams

FILE = Path(__file__).parents[1] / "reference" / "pydensecrf.npz"
LEVELS = 65535
"""Beliefs are stored in steps of 1 / LEVELS."""


@dataclass(frozen=True)
class Case:
    """image uint8 H×W×3, probabilities and beliefs float32 C×H×W, compatibility as `DenseCRF` takes it."""

    name: str
    image: np.ndarray
    probabilities: np.ndarray
    params: CRFParams
    compatibility: np.ndarray | None
    beliefs: np.ndarray


def inputs() -> Iterator[tuple[str, np.ndarray, np.ndarray, CRFParams, np.ndarray | None]]:
    """Name, image, probabilities as whole numbers uint8 C×H×W, parameters and compatibility of each case."""
    image, probabilities = scene(5, 20, 31)
    for name, params in (
        ("both", CRFParams()),
        ("bilateral", CRFParams(3, 30, 5, 0, 1, 3)),
        ("spatial", CRFParams(0, 30, 5, 2, 3, 1)),
    ):
        yield name, image, _whole(probabilities), params, None
    # Three images for every number of classes that random cases have, of a few hundred pixels at most.
    wanted = dict.fromkeys((2, 3, 11, 16, 21, 40, 64), 3)
    for seed in range(2000):
        image, probabilities, params, compatibility = random_case(seed)
        classes = len(probabilities)
        if wanted[classes] and 8 < probabilities[0].size < 1500 / classes:
            wanted[classes] -= 1
            if compatibility is not None:
                compatibility = np.round(np.float32(compatibility) * 64) / 64
            # Far from a fixed point mean field can double any rounding in each iteration; the first few tell all.
            yield (
                f"{classes} classes, {seed}",
                image,
                _whole(probabilities),
                replace(params, iterations=4),
                compatibility,
            )


def _whole(probabilities: np.ndarray) -> np.ndarray:
    return np.round(255 * probabilities).astype(np.uint8)


def as_probabilities(whole: np.ndarray) -> np.ndarray:
    """uint8 C×H×W → float32, which sum to one: equal on every machine."""
    return (whole / whole.sum(axis=0, dtype=np.int64)).astype(np.float32)


def pack(
    name: str,
    image: np.ndarray,
    whole: np.ndarray,
    params: CRFParams,
    compatibility: np.ndarray | None,
    beliefs: np.ndarray,
) -> dict[str, np.ndarray]:
    """The arrays of a case as they lie in FILE."""
    arrays = {"image": image, "whole": whole, "params": np.array(astuple(params))}
    arrays["beliefs"] = np.round(LEVELS * beliefs).astype(np.uint16)
    if compatibility is not None:
        arrays["compatibility"] = compatibility
    return {f"{name}/{kind}": array for kind, array in arrays.items()}


def stored_cases() -> list[Case]:
    """What FILE holds."""
    with np.load(FILE) as file:
        arrays = dict(file)
    names = dict.fromkeys(key.split("/")[0] for key in arrays)
    return [
        Case(
            name,
            arrays[f"{name}/image"],
            as_probabilities(arrays[f"{name}/whole"]),
            CRFParams(*arrays[f"{name}/params"][:5].tolist(), int(arrays[f"{name}/params"][5])),
            arrays.get(f"{name}/compatibility"),
            arrays[f"{name}/beliefs"].astype(np.float32) / LEVELS,
        )
        for name in names
    ]
