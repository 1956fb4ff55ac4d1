"""Mean field on one core, by compiled kernels: the default backend. "Beliefs" are the probabilities of an iteration.

Memory, which is kept from image to image: 8 bytes per pixel and class, 80 more per pixel, 8 bytes per lattice vertex
and class, about 100 more per vertex. Classes are rounded up to 4, 8, 16, 20, 24 or 32, and above to multiples. Street
scenes have 0.2 to 1 vertices per pixel, noise up to 6, no image more than 9.

What was tried, in this engine or a prototype; the numbers are speed-ups of the part in question.
Helped: rows in parts that are powers of two (2×: LLVM moves other vectors through memory); rows aligned to cache lines;
growing tables outside Numba's loops (2× in building: the loops counted references); splatting beliefs while most pixels
still move, and only their changes later (2× per iteration: changes need the old beliefs, a second stream through
memory); unsigned indices (1.1×); no search for a pixel's largest score before the exponential (1.1×); prefetching
rows of vertices and slots of the hash table (1.2×; 1.7× with many colours); a bound on the change of the belief instead
of the score (confident pixels rest earlier); chains sorted by length within a block; no branches whose outcome is
random.
Did not help: flags for vertices without a change (mispredicted branches cost what they saved); huge pages; splatting by
vertex instead of by pixel; 16-bit rows (errors up to 0.02); an exact separable Gaussian for the spatial kernel (up to
0.9 from the reference); stopping early (beliefs still move by 0.15 at iteration 10); leaving out improbable classes
(errors of 0.15); threads within an image.
"""

import fcntl
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab_ray.crf import kernels, lattice
from deeplab_ray.crf.checks import SMALLEST, check_values
from deeplab_ray.crf.lattice import HashBuffers, Lattice
from deeplab_ray.crf.params import CRFParams
from deeplab_ray.crf.simd import as_rows
from deeplab_ray.crf.workspace import Workspace

_PLANS = 4
_SWEEPS = 2
"""Iterations in which every pixel is updated: most still change, and deciding which to skip has its price."""
_WIDEST = 32
"""Most lanes of a row: two registers of 512 bits. More classes take several rows."""


@dataclass(frozen=True)
class _Plan:
    """What depends on the image size alone: the order of its pixels, and the lattice of the spatial kernel."""

    order: NDArray[np.int32]
    """The pixels in the order of visiting: by 256×256 tiles, and in each by 32×32 tiles."""
    near: Lattice


class Engine:
    """One image at a time for `DenseCRF`, which see; for one thread at a time."""

    def __init__(
        self,
        params: CRFParams,
        compatibility: NDArray[np.float32] | None,
        tolerance: float,
        share: "Engine | None" = None,
    ) -> None:
        self.params = params
        self.compatibility = compatibility
        self.tolerance = tolerance
        self._plans: OrderedDict[tuple[int, int], _Plan] = OrderedDict()
        self._workspace: Workspace = share._workspace if share else Workspace()

    def refine(
        self,
        image: NDArray[np.uint8],
        planes: NDArray[np.float32],
        energies: bool,
        on_iteration: Callable[[int, NDArray[np.float32]], None] | None,
    ) -> NDArray[np.float32]:
        """Return the refined probabilities, float32 C×H×W; see `DenseCRF.refine`."""
        beliefs, order, _ = self._infer(image, planes, energies, on_iteration)
        return _planes(beliefs, order, planes.shape)

    def labels(self, image: NDArray[np.uint8], planes: NDArray[np.float32], energies: bool) -> NDArray[Any]:
        """Return the most probable label of every pixel, H×W; see `DenseCRF.labels`."""
        beliefs, order, lanes = self._infer(image, planes, energies, None)
        labels = np.empty(len(order), np.uint8 if len(planes) <= 256 else np.uint16)
        kernels.label(as_rows(beliefs, lanes), lanes, order, labels)
        return labels.reshape(image.shape[:2])

    def _infer(
        self, image: Any, planes: Any, energies: bool, on_iteration: Any
    ) -> tuple[NDArray[np.float32], NDArray[np.int32], int]:
        """Return beliefs (flat rows, in this object's memory), the order of their pixels, and the lanes of a row."""
        classes, height, width = planes.shape
        pixels = height * width
        blocks = -(-classes // _WIDEST)
        lanes = _lanes(-(-classes // blocks))
        row = blocks * lanes
        numbers = self._workspace.get("scores", pixels * row)
        beliefs = self._workspace.get("beliefs", pixels * row)
        scores = as_rows(numbers, lanes)
        padding = np.zeros(row, np.float32)
        padding[classes:] = -1e30
        plan = self._plan(height, width)
        flat = planes.reshape(classes, pixels)
        checked = kernels.gather(flat, plan.order, energies, SMALLEST, as_rows(padding, lanes), scores, numbers)
        check_values(energies, *checked)
        far = _Filter(self._workspace, "5", self._bilateral(image, plan.order), lanes, blocks)
        near = _Filter(self._workspace, "2", plan.near, lanes, blocks)
        labels, gain = self._compatibility(classes, row, lanes)
        scratch = np.empty(2 * row, np.float32)
        state = (scores, as_rows(beliefs, lanes), self._workspace.get("limit", pixels))
        rest = (np.float32(self.tolerance), gain, labels, (as_rows(scratch, lanes), scratch))
        sweep = kernels.sweep if blocks == 1 else kernels.sweep_wide
        last = self.params.iterations
        # Up to this iteration every pixel is updated.
        swept = min(_SWEEPS, last) if self.tolerance > 0 and blocks == 1 else last
        for iteration in range(last + 1):
            for part in (far, near) if iteration else ():
                part.add_changes() if iteration > swept + 1 else part.turn(measure=iteration == swept + 1)
            splats = iteration < last
            if iteration <= swept:
                keeps = iteration == swept or on_iteration is not None
                sweep(*state, far.arrays, near.arrays, *rest, iteration > 0, keeps, splats)
            else:
                kernels.update(*state, (*far.arrays, far.moved), (*near.arrays, near.moved), *rest, splats)
            if iteration and on_iteration is not None:
                on_iteration(iteration, _planes(beliefs, plan.order, planes.shape))
        return beliefs, plan.order, lanes

    def _plan(self, height: int, width: int) -> _Plan:
        key = height, width
        if key not in self._plans:
            order = _visiting_order(height, width)
            near = lattice.empty(len(order), 2)
            if self.params.w2:
                positions = _positions(width, height, self.params.sigma_gamma)
                near = lattice.build(order, positions, None, positions[0], self.params.w2, HashBuffers())
            self._plans[key] = _Plan(order, near)
            if len(self._plans) > _PLANS:
                self._plans.popitem(last=False)
        self._plans.move_to_end(key)
        return self._plans[key]

    def _bilateral(self, image: NDArray[np.uint8], order: NDArray[np.int32]) -> Lattice:
        if not self.params.w1:
            return lattice.empty(len(order), 5)
        height, width = image.shape[:2]
        colours = np.arange(256, dtype=np.float32) / np.float32(self.params.sigma_beta)
        positions = _positions(width, height, self.params.sigma_alpha)
        return lattice.build(order, positions, image.reshape(-1, 3), colours, self.params.w1, self._workspace.table)

    def _compatibility(self, classes: int, row: int, lanes: int) -> tuple[Any, np.float32]:
        """Return the rows that the kernels take, and the largest factor by which they can scale a message."""
        given = self.compatibility
        if given is None:
            return None, np.float32(1)
        padded = np.zeros((1 if given.ndim == 1 else classes, row), np.float32)
        padded[:, :classes] = given if given.ndim == 1 else -given
        return as_rows(padded, lanes), np.float32(max(np.abs(padded).sum(0).max(), 1e-6))


class _Filter:
    """A lattice with the rows that pixels slice from (`value`) and splat into (`delta`)."""

    def __init__(self, workspace: Workspace, name: str, part: Lattice, lanes: int, blocks: int) -> None:
        self.part, self.blocks = part, blocks
        size = part.vertices * blocks * lanes
        self.value, self.delta = (as_rows(workspace.get(kind + name, size), lanes) for kind in ("value", "delta"))
        self.moved = workspace.get(f"moved{name}", part.vertices)
        self.delta.view(np.float32).fill(0)

    @property
    def arrays(self) -> tuple[Any, ...]:
        """Return offsets, weights, value and delta, as the kernels take them."""
        return self.part.offsets.view(np.uint32), self.part.weights, self.value, self.delta

    def turn(self, measure: bool) -> None:
        """Blur what was splatted and make it the new `value`.

        measure: note how far each vertex moved, since only changes are splatted from now on.
        """
        n = self.part.vertices
        for block in range(self.blocks):
            rows = self.delta[block * n : (block + 1) * n]
            for chain in self.part.crossing:
                kernels.blur(chain, 0, len(chain), rows)
            kernels.blur_sites(self.part.inner, self.part.sites, rows)
        if measure:
            kernels.measure(self.value, self.delta, self.moved)
        self.value, self.delta = self.delta, self.value
        self.delta.view(np.float32).fill(0)

    def add_changes(self) -> None:
        """Blur the changes that were splatted and add them to `value`."""
        for chain in self.part.crossing:
            kernels.blur(chain, 0, len(chain), self.delta)
        kernels.settle(self.part.inner, self.part.sites, self.delta, self.value, self.moved)


def _planes(beliefs: NDArray[np.float32], order: NDArray[np.int32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    result = np.empty(shape, np.float32)
    kernels.scatter(beliefs, order, result.reshape(shape[0], -1))
    return result


def _lanes(classes: int) -> int:
    return next(lanes for lanes in (4, 8, 16, 20, 24, 32) if classes <= lanes)


def _positions(width: int, height: int, sigma: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    columns, rows = (np.arange(size, dtype=np.float32) / np.float32(sigma) for size in (width, height))
    return columns, rows


def _visiting_order(height: int, width: int) -> NDArray[np.int32]:
    y, x = (axis.ravel() for axis in np.mgrid[:height, :width])
    return np.lexsort((x, y, x // 32, y // 32, x // 256, y // 256)).astype(np.int32)


def warm(classes: int) -> None:
    """Compile what images of this many classes need, or load it from Numba's cache.

    Compiling takes seconds. If several processes of a machine call this, one compiles; the others wait, then load.
    """
    # Noise makes the hash table grow, and this many iterations run every kernel.
    side = 48
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8)
    planes = np.full((classes, side, side), 1 / classes, np.float32)
    with (Path(tempfile.gettempdir()) / f"deeplab-ray-crf-{os.getuid()}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        engine = Engine(CRFParams(iterations=_SWEEPS + 2), None, 1e-4)
        engine.refine(image, planes, False, None)
        engine.labels(image, planes, False)
