"""The CRF's interface: an image and probabilities in, refined probabilities or labels out."""

import importlib
import threading
from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deeplab_ray.crf.checks import check_classes, check_compatibility, check_image, check_planes
from deeplab_ray.crf.outcome import Outcome, observe
from deeplab_ray.crf.params import CRFParams

Backend = Literal["numba", "torch", "pydensecrf"]

TOLERANCE = 1e-4
"""How much a pixel's probabilities may be out of date before they are computed again."""


class DenseCRF:
    """Mean-field inference in the fully connected CRF of equation 3.

    `DenseCRF(CRFParams(4, 67, 3, 3, 1)).refine(image, probabilities)`.

    backend:
        "numba": the default, on one core. It keeps its buffers and all that depends on the image size alone, so make
        one object and give it all images. Threads take turns on an object; give each its own to run at the same time.
        "torch": one image at a time, on the GPU if there is one; for batches and gradients see
        `deeplab_ray.crf.torch_backend`.
        "pydensecrf": Krähenbühl's code, the reference (extra `pydensecrf`).
    compatibility: None is the Potts model. C numbers are a diagonal matrix: how much label a at both of two pixels is
        favoured (all ones: Potts). C×C, symmetric: what label a at one pixel costs beside label b at the other
        (1 − identity: Potts). The kernels' weights multiply it.
    tolerance (numba only): a pixel is updated once its probabilities may have changed by more than this. 0 updates
        every pixel in every iteration, which is always done above 32 classes.
    share (numba only): another DenseCRF whose buffers this one uses, too; the two take turns.

    In every backend, pydensecrf's included, the permutohedral lattice only approximates the Gaussians of equation 3.
    Most pixels come out as by exact mean field over all pairs of pixels, but not all: where two labels are nearly
    equal, the approximation may tip the scales. With the paper's parameters, on images of 28×34 pixels with shading and
    noise, probabilities differ by 0.001 to 0.003 on average, but at single pixels by up to 0.97; 98 to 99.7 % of the
    labels agree. On flat images of 195 pixels they differ by 0.044 at most (`test_is_near_exact_mean_field` and
    `test_single_pixels_may_tip` in tests/crf/test_contract.py).

    Raises UserError if the backend's package is not installed, and ValueError for an unknown backend or a wrong
    compatibility.
    """

    def __init__(
        self,
        params: CRFParams,
        backend: Backend = "numba",
        *,
        compatibility: ArrayLike | None = None,
        tolerance: float = TOLERANCE,
        share: "DenseCRF | None" = None,
    ) -> None:
        if backend not in get_args(Backend):
            raise ValueError(f"unknown CRF backend {backend!r}: choose one of {', '.join(get_args(Backend))}")
        self.params = params
        self.backend = backend
        self.compatibility = None if compatibility is None else np.array(compatibility, np.float32)
        self.tolerance = tolerance
        check_compatibility(self.compatibility)
        self._start(share)

    def _start(self, share: "DenseCRF | None" = None) -> None:
        options = {"share": share._engine} if share and share.backend == self.backend == "numba" else {}
        self._turn: threading.Lock = share._turn if share else threading.Lock()
        self._engine: Any = _engine(self.backend)(self.params, self.compatibility, self.tolerance, **options)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_turn", "_engine")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def warm(self, classes: int) -> None:
        """Compile what images of this many classes need, unless Numba's cache on this machine already holds it."""
        if self.backend == "numba":
            numba_backend = importlib.import_module("deeplab_ray.crf.numba_backend")
            numba_backend.warm(classes)

    def refine(
        self,
        image: NDArray[np.uint8],
        probabilities: NDArray[np.float32] | None = None,
        *,
        energies: NDArray[np.float32] | None = None,
        on_iteration: Callable[[int, NDArray[np.float32]], None] | None = None,
    ) -> NDArray[np.float32]:
        """Refine probabilities: image uint8 RGB H×W×3, probabilities float C×H×W → probabilities float32 C×H×W.

        Takes energies (−log) instead of probabilities, 2 to 512 classes, any size and any memory layout.
        on_iteration: called after each iteration with its number, from 1, and the probabilities so far.
        Raises ValueError if shapes do not match, the image is not uint8, a value is not finite, or probabilities are
        negative or do not sum to one within 1e-3.
        """
        with self._turn:
            return self._engine.refine(*self._checked(image, probabilities, energies), on_iteration)

    def labels(
        self,
        image: NDArray[np.uint8],
        probabilities: NDArray[np.float32] | None = None,
        *,
        energies: NDArray[np.float32] | None = None,
    ) -> NDArray[Any]:
        """Return `refine(…).argmax(axis=0)`: H×W, uint8 (uint16 above 256 classes). Raises ValueError as `refine` does.

        The numba backend does it without an array of C×H×W.
        """
        with self._turn:
            return self._engine.labels(*self._checked(image, probabilities, energies))

    def observe(
        self,
        image: NDArray[np.uint8],
        probabilities: NDArray[np.float32] | None = None,
        *,
        energies: NDArray[np.float32] | None = None,
    ) -> Outcome:
        """Refine, and tell what the CRF did: labels, doubt, classes that it removed, KL divergence per iteration.

        It takes about five times as long as `refine`, for the KL divergence. Raises ValueError as `refine` does.
        """
        # Imported late, as each compiled module takes time to load.
        grid_kernels = importlib.import_module("deeplab_ray.crf.grid_kernels")
        points = importlib.import_module("deeplab_ray.crf.points")
        self._checked(image, probabilities, energies)
        kernels = grid_kernels.equation_3(self.params, image, channel_axis=-1, compatibility=self.compatibility)

        def refine(planes: Any, **rest: Any) -> NDArray[np.float32]:
            return self.refine(image, planes, **rest)

        divergence = points.PointCRF(kernels).divergence(probabilities, energies=energies)
        return observe(refine, divergence, probabilities, energies)

    def _checked(self, image: Any, probabilities: Any, energies: Any) -> tuple[Any, Any, bool]:
        if (probabilities is None) == (energies is None):
            raise ValueError("give either probabilities or energies")
        planes = energies if probabilities is None else probabilities
        check_image(image)
        check_planes(planes, image, "probabilities" if energies is None else "energies")
        check_classes(self.compatibility, len(planes))
        return np.ascontiguousarray(image), np.ascontiguousarray(planes, np.float32), energies is not None


def _engine(backend: Backend) -> Any:
    """Return the backend's class; imported late, as each needs a package that the others do not."""
    return importlib.import_module(f"deeplab_ray.crf.{backend}_backend").Engine
