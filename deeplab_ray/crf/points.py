"""The fully connected CRF over any points with any features, of which images and volumes are cases.

from deeplab_ray.crf import Kernel, PointCRF

near = Kernel(positions / 3, weight=3)                                    # D×N: D features of N points
alike = Kernel(np.concatenate([positions / 40, channels / 0.2]), weight=5)
beliefs = PointCRF([near, alike], iterations=5).refine(probabilities)     # C×N → float32 C×N
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab_ray.crf.checks import SMALLEST, check_classes, check_point_planes, check_values, measure_values
from deeplab_ray.crf.kernel import Kernel
from deeplab_ray.crf.mean_field import MeanField
from deeplab_ray.crf.outcome import Outcome, observe


class PointCRF:
    """Mean-field inference over N points with any number of kernels, on one core. Every point is updated every time.

    Probabilities are C×N, or C× any shape of N points, which results have, too; any C ≥ 2.
    Raises ValueError if kernels are of different points, or there is none, or fewer than one iteration.
    """

    def __init__(self, kernels: Sequence[Kernel], iterations: int = 10) -> None:
        if not kernels or len({kernel.features.shape[1] for kernel in kernels}) > 1:
            raise ValueError("give at least one kernel, all of them of the same points")
        if iterations < 1:
            raise ValueError(f"CRF iterations {iterations} must be at least 1")
        self.kernels = tuple(kernels)
        self.iterations = iterations

    def refine(
        self,
        probabilities: NDArray[Any] | None = None,
        *,
        energies: NDArray[Any] | None = None,
        on_iteration: Callable[[int, NDArray[np.float32]], None] | None = None,
    ) -> NDArray[np.float32]:
        """Refine probabilities, or energies (−log) instead; see `DenseCRF.refine`, which raises the same."""
        shape, field = self._start(probabilities, energies)
        for iteration in range(1, self.iterations + 1):
            field.step()
            if on_iteration is not None:
                on_iteration(iteration, _planes(field, shape))
        return _planes(field, shape)

    def labels(
        self, probabilities: NDArray[Any] | None = None, *, energies: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Return the arg max of `refine`: uint8 (uint16 above 256 classes) of the points' shape."""
        beliefs = self.refine(probabilities, energies=energies)
        return beliefs.argmax(axis=0).astype(np.uint8 if len(beliefs) <= 256 else np.uint16)

    def observe(self, probabilities: NDArray[Any] | None = None, *, energies: NDArray[Any] | None = None) -> Outcome:
        """Refine, and tell what the CRF did: see `Outcome`. It takes about four times as long as `refine`."""
        return observe(self.refine, self.divergence(probabilities, energies=energies), probabilities, energies)

    def kl_divergence(
        self,
        beliefs: NDArray[np.float32],
        probabilities: NDArray[Any] | None = None,
        *,
        energies: NDArray[Any] | None = None,
    ) -> float:
        """Return KL(beliefs ‖ the CRF's distribution) − log Z in nats, which mean field lowers; log Z is not known."""
        return self.divergence(probabilities, energies=energies)(beliefs)

    def divergence(
        self, probabilities: NDArray[Any] | None = None, *, energies: NDArray[Any] | None = None
    ) -> Callable[[NDArray[np.float32]], float]:
        """Return `kl_divergence` as a function of the beliefs alone, for many beliefs of the same input."""
        _, field = self._start(probabilities, energies)

        def measure(beliefs: NDArray[np.float32]) -> float:
            field.set_beliefs(np.reshape(beliefs, (field.classes, field.points)))
            return field.divergence(pairwise=0.5)

        return measure

    def _start(self, probabilities: Any, energies: Any) -> tuple[tuple[int, ...], MeanField]:
        if (probabilities is None) == (energies is None):
            raise ValueError("give either probabilities or energies")
        planes = np.asarray(energies if probabilities is None else probabilities)
        check_point_planes(
            planes, self.kernels[0].features.shape[1], "probabilities" if energies is None else "energies"
        )
        for kernel in self.kernels:
            check_classes(kernel.compatibility, len(planes))
        flat = planes.reshape(len(planes), -1).astype(np.float32)
        check_values(energies is not None, *measure_values(flat))
        unary = flat if probabilities is None else -np.log(np.maximum(flat, SMALLEST))
        return planes.shape, MeanField(self.kernels, unary)


def _planes(field: MeanField, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.ascontiguousarray(field.beliefs()).reshape(shape)
