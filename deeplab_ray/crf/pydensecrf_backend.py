"""The reference backend: Krähenbühl's C++ code through pydensecrf (PyPI: pydensecrf2)."""

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab_ray.crf.checks import SMALLEST, check_values, measure_values
from deeplab_ray.crf.params import CRFParams
from deeplab_ray.errors import UserError


class Engine:
    """One image at a time for `DenseCRF`. Raises UserError, saying what to install, if pydensecrf is missing."""

    def __init__(self, params: CRFParams, compatibility: NDArray[np.float32] | None, tolerance: float) -> None:
        if importlib.util.find_spec("pydensecrf") is None:
            raise UserError(
                "pydensecrf is not installed: pip install 'deeplab-ray[pydensecrf]' (it needs a C++ compiler)"
            )
        self.params = params
        # In pydensecrf a diagonal is a cost, as a matrix is; our diagonal says what is favoured.
        self.cost: Any = None
        if compatibility is not None:
            self.cost = -compatibility if compatibility.ndim == 1 else compatibility

    def refine(
        self,
        image: NDArray[np.uint8],
        planes: NDArray[np.float32],
        energies: bool,
        on_iteration: Callable[[int, NDArray[np.float32]], None] | None,
    ) -> NDArray[np.float32]:
        """Return the refined probabilities, float32 C×H×W; see `DenseCRF.refine`."""
        check_values(energies, *measure_values(planes))
        crf = self._model(image, planes if energies else -np.log(np.clip(planes, SMALLEST, 1.0)))
        if on_iteration is None:
            return np.array(crf.inference(self.params.iterations), np.float32).reshape(planes.shape)
        beliefs, *scratch = crf.startInference()
        for iteration in range(1, self.params.iterations + 1):
            crf.stepInference(beliefs, *scratch)
            on_iteration(iteration, np.array(beliefs, np.float32).reshape(planes.shape))
        return np.array(beliefs, np.float32).reshape(planes.shape)

    def labels(self, image: NDArray[np.uint8], planes: NDArray[np.float32], energies: bool) -> NDArray[Any]:
        """Return the most probable label of every pixel, H×W; see `DenseCRF.labels`."""
        kind = np.uint8 if len(planes) <= 256 else np.uint16
        return self.refine(image, planes, energies, None).argmax(axis=0).astype(kind)

    def _model(self, image: NDArray[np.uint8], unary: NDArray[np.float32]) -> Any:
        from pydensecrf import densecrf

        classes, height, width = unary.shape
        crf = densecrf.DenseCRF2D(width, height, classes)
        crf.setUnaryEnergy(np.ascontiguousarray(unary.reshape(classes, -1), np.float32))
        params = self.params
        # The library would filter with a kernel of weight 0, too, which costs time and changes nothing.
        if params.w2:
            crf.addPairwiseGaussian(sxy=params.sigma_gamma, compat=self._compatibility(params.w2))
        if params.w1:
            crf.addPairwiseBilateral(
                sxy=params.sigma_alpha,
                srgb=params.sigma_beta,
                rgbim=np.require(image, requirements=["C", "W"]),
                compat=self._compatibility(params.w1),
            )
        return crf

    def _compatibility(self, weight: float) -> Any:
        return weight if self.cost is None else np.float32(weight) * self.cost
