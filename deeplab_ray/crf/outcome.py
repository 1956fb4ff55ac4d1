"""What a CRF did to an image: beliefs, labels, doubt, and the classes that it removed entirely."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Outcome:
    """The result of `observe`. Shapes are C×… of C classes and any shape of points, or that shape alone."""

    beliefs: NDArray[np.float32]
    """C×…: the refined probabilities."""
    labels: NDArray[Any]
    """Their arg max: uint8, uint16 above 256 classes."""
    before: NDArray[np.int64]
    """C: of how many points each class was the label before the CRF."""
    after: NDArray[np.int64]
    """C: of how many it is now."""
    kl: tuple[float, ...]
    """KL divergence of the beliefs from the CRF's distribution, less the constant log Z, in nats: before the first
    iteration and after each."""

    @property
    def entropy(self) -> NDArray[np.float32]:
        """The doubt at each point, −Σ Q log Q in nats: 0 where it is certain, log C where it knows nothing."""
        return entropy(self.beliefs)

    @property
    def removed(self) -> NDArray[np.bool_]:
        """C: whether a class was some point's label before the CRF and is no point's now."""
        return (self.before > 0) & (self.after == 0)


def entropy(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return −Σ p log p over the classes, in nats: C×… → float32 of the points' shape."""
    return -(probabilities * np.log(np.maximum(probabilities, 1e-30))).sum(axis=0)


def observe(
    refine: Callable[..., NDArray[np.float32]],
    divergence: Callable[[NDArray[np.float32]], float],
    probabilities: NDArray[Any] | None,
    energies: NDArray[Any] | None,
) -> Outcome:
    """Call `refine` and tell what it did. divergence: the KL divergence of beliefs."""
    kl: list[float] = []

    def note(_: int, beliefs: NDArray[np.float32]) -> None:
        kl.append(divergence(beliefs))

    beliefs = refine(probabilities, energies=energies, on_iteration=note)
    start = _softmax(-np.asarray(energies)) if probabilities is None else np.asarray(probabilities)
    kl.insert(0, divergence(start))
    labels = beliefs.argmax(axis=0).astype(np.uint8 if len(beliefs) <= 256 else np.uint16)
    before, after = (
        np.bincount(found.ravel(), minlength=len(beliefs)).astype(np.int64) for found in (start.argmax(axis=0), labels)
    )
    return Outcome(beliefs, labels, before, after, tuple(kl))


def _softmax(scores: NDArray[Any]) -> NDArray[np.float32]:
    powers = np.exp(scores - scores.max(axis=0))
    return (powers / powers.sum(axis=0)).astype(np.float32)
