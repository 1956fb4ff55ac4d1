"""Mean field over N points, kernel by kernel: what is below `PointCRF` and the functions of `compat`.

Classes are taken in parts of 16, and the rest as a row of 4, 8 or 16 lanes. Memory: 12 bytes per point and class (16
with a full compatibility matrix), 8·(D + 1) per point and kernel of D features, and 64 per vertex of the largest
lattice at most, whatever the number of classes. Every belief is updated in every iteration.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab_ray.crf import kernels as image_kernels
from deeplab_ray.crf import point_kernels
from deeplab_ray.crf.kernel import Kernel
from deeplab_ray.crf.simd import as_rows
from deeplab_ray.crf.workspace import Workspace

_WIDTHS = (4, 8, 16)
_NO_CLASS = np.float32(-1e30)
"""The score of a lane without a class."""


class MeanField:
    """The beliefs of N points under unary energies (float32 C×N) and pairwise kernels; nothing is checked."""

    def __init__(self, kernels: Sequence[Kernel], energies: NDArray[np.float32]) -> None:
        self.kernels = kernels
        self.classes, self.points = energies.shape
        self._workspace = Workspace()
        self._scores = self._split(-energies, _NO_CLASS)
        self._beliefs = [part.copy() for part in self._scores]
        self._spare: list[NDArray[np.float32]] = []
        self._normalise()

    def step(self) -> None:
        """Run one iteration."""
        # Fresh memory would take as long as the rest: the system clears it page by page.
        sums = self._spare or [np.empty_like(part) for part in self._scores]
        for part, score in zip(sums, self._scores, strict=True):
            part[:] = score
        self._add_messages(sums)
        self._beliefs, self._spare = sums, self._beliefs
        self._normalise()

    def beliefs(self) -> NDArray[np.float32]:
        """Return the beliefs so far, float32 C×N, each point's classes side by side in memory."""
        return np.concatenate(self._beliefs, axis=1)[:, : self.classes].copy().T

    def set_beliefs(self, beliefs: NDArray[np.float32]) -> None:
        """Go on from these beliefs, float32 C×N."""
        self._beliefs = self._split(beliefs, np.float32(0))

    def divergence(self, pairwise: float) -> float:
        """Return Σ Q log Q + Σ Q × energy + pairwise × Σ Q × (compatibility of the filtered Q).

        With pairwise = ½ it is the KL divergence of Q from the CRF's distribution, up to the constant log Z.
        """
        messages = [np.zeros_like(part) for part in self._beliefs]
        self._add_messages(messages)
        result = 0.0
        for first, belief, score, message in zip(self._firsts(), self._beliefs, self._scores, messages, strict=True):
            held = min(belief.shape[1], self.classes - first)
            q = belief[:, :held]
            rest = np.log(np.maximum(q, np.float32(1e-20))) - score[:, :held] - np.float32(pairwise) * message[:, :held]
            result += float(np.sum(q * rest, dtype=np.float64))
        return result

    def _add_messages(self, sums: list[NDArray[np.float32]]) -> None:
        """Add every kernel's message, which is minus its energy, to the parts of `sums`."""
        for kernel in self.kernels:
            gain, costs = self._gain(kernel)
            for part, first in zip(self._beliefs, self._firsts(), strict=True):
                target = np.zeros_like(part) if costs is not None else sums[first // _WIDTHS[-1]]
                self._filter(kernel, part, gain[first : first + part.shape[1]], target)
                if costs is not None:
                    held = costs[first : first + part.shape[1]]
                    for into, at in zip(sums, self._firsts(), strict=True):
                        into -= target @ held[:, at : at + into.shape[1]]

    def _filter(
        self, kernel: Kernel, rows: NDArray[np.float32], gain: NDArray[np.float32], target: NDArray[np.float32]
    ) -> None:
        """Splat `rows`, blur, and add the slices times `gain` to `target`."""
        part, (before, after), lanes = kernel.lattice, kernel.factors, rows.shape[1]
        offsets = part.offsets.view(np.uint32)
        values = self._workspace.get("values", part.vertices * lanes)
        values.fill(0)
        vertices = as_rows(values, lanes)
        point_kernels.splat(offsets, part.weights, before, as_rows(rows, lanes), vertices)
        for chain in part.chains:
            image_kernels.blur(chain, 0, len(chain), vertices)
        point_kernels.slice_into(
            offsets, part.weights, after, vertices, as_rows(np.ascontiguousarray(gain), lanes), as_rows(target, lanes)
        )

    def _gain(self, kernel: Kernel) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Return the factor of each class's message, and the costs if these are a full matrix, both padded."""
        padded = self._firsts()[-1] + self._beliefs[-1].shape[1]
        gain, given = np.full(padded, kernel.weight, np.float32), kernel.compatibility
        if given is None:
            return gain, None
        if given.ndim == 1:
            gain[: self.classes] *= given
            return gain, None
        costs = np.zeros((padded, padded), np.float32)
        costs[: self.classes, : self.classes] = np.float32(kernel.weight) * given
        return np.ones(padded, np.float32), costs

    def _normalise(self) -> None:
        """Turn the parts of `_beliefs`, which are scores, into probabilities."""
        tops, sums = np.full(self.points, -np.inf, np.float32), np.zeros(self.points, np.float32)
        rows = [as_rows(part, part.shape[1]) for part in self._beliefs]
        for part in rows:
            point_kernels.highest(part, tops)
        for part in rows:
            point_kernels.powers(part, tops, sums)
        for part in rows:
            point_kernels.divide(part, sums)

    def _firsts(self) -> range:
        """Return the first class of each part."""
        return range(0, self.classes, _WIDTHS[-1])

    def _split(self, planes: NDArray[Any], padding: np.float32) -> list[NDArray[np.float32]]:
        """Return the parts of planes C×N: each N×lanes."""
        parts = []
        for first in self._firsts():
            held = planes[first : first + _WIDTHS[-1]]
            lanes = next(width for width in _WIDTHS if len(held) <= width)
            part = np.empty((self.points, lanes), np.float32)
            part[:, : len(held)] = held.T
            part[:, len(held) :] = padding
            parts.append(part)
        return parts
