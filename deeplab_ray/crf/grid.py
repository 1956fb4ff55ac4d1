"""Equation 3 over images of any channels and over volumes.

from deeplab_ray.crf import CRFParams, GridCRF

scan = GridCRF(CRFParams(w1=5, sigma_alpha=8, sigma_beta=40, w2=3, sigma_gamma=2), spacing=(5.0, 0.7, 0.7))  # mm
beliefs = scan.refine(volume, probabilities)                     # D×H×W, C×D×H×W → float32 C×D×H×W
satellite = GridCRF(params, channel_axis=-1)
beliefs = satellite.refine(image, probabilities)                 # H×W×12 of uint16, C×H×W
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deeplab_ray.crf.checks import check_compatibility
from deeplab_ray.crf.grid_kernels import Widths, equation_3, split_channels
from deeplab_ray.crf.model import DenseCRF
from deeplab_ray.crf.outcome import Outcome
from deeplab_ray.crf.params import CRFParams
from deeplab_ray.crf.points import PointCRF


class GridCRF:
    """Mean-field inference in the CRF of equation 3 over a grid: grey or multispectral images, volumes, video.

    params: sigma_alpha and sigma_gamma are in the unit of `spacing`, sigma_beta in that of the image's values.
    channel_axis: which axis of an image holds the channels; None: it has one channel and no axis for it.
    spacing: the distance of neighbouring points, one number or one for each axis of the grid (D, H, W).
    compatibility: as in `DenseCRF`.

    Images are of whole or floating-point numbers; uint8 images of three channels with a spacing of 1 go to `DenseCRF`,
    which is faster. Raises ValueError for a wrong compatibility. Methods raise it for images of other numbers or of
    another grid than the probabilities, for another number of spacings than axes, and as `DenseCRF.refine` and `Kernel`
    do.
    """

    def __init__(
        self,
        params: CRFParams,
        *,
        channel_axis: int | None = None,
        spacing: Widths = 1.0,
        compatibility: ArrayLike | None = None,
    ) -> None:
        self.params = params
        self.channel_axis = channel_axis
        self.spacing = spacing
        self.compatibility = None if compatibility is None else np.array(compatibility, np.float32)
        check_compatibility(self.compatibility)
        self._rgb = DenseCRF(params, compatibility=compatibility)

    def refine(
        self,
        image: NDArray[Any],
        probabilities: NDArray[Any] | None = None,
        *,
        energies: NDArray[Any] | None = None,
        on_iteration: Callable[[int, NDArray[np.float32]], None] | None = None,
    ) -> NDArray[np.float32]:
        """Refine probabilities C×H×W or C×D×H×W of an image, or energies (−log) instead; see `DenseCRF.refine`."""
        crf, first = self._engine(image, probabilities, energies)
        return crf.refine(*first, probabilities, energies=energies, on_iteration=on_iteration)

    def labels(
        self, image: NDArray[Any], probabilities: NDArray[Any] | None = None, *, energies: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Return the arg max of `refine`: uint8 (uint16 above 256 classes) of the grid's shape."""
        crf, first = self._engine(image, probabilities, energies)
        return crf.labels(*first, probabilities, energies=energies)

    def observe(
        self, image: NDArray[Any], probabilities: NDArray[Any] | None = None, *, energies: NDArray[Any] | None = None
    ) -> Outcome:
        """Refine, and tell what the CRF did: see `Outcome`."""
        crf, first = self._engine(image, probabilities, energies)
        return crf.observe(*first, probabilities, energies=energies)

    def _engine(self, image: NDArray[Any], probabilities: Any, energies: Any) -> tuple[Any, tuple[NDArray[Any], ...]]:
        """Return the engine for this image, and what its methods take before the probabilities."""
        shape = split_channels(image, self.channel_axis).shape
        planes = energies if probabilities is None else probabilities
        if planes is not None and np.shape(planes)[1:] != shape[1:]:
            raise ValueError(f"probabilities must be C× the image's grid {shape[1:]}, not {np.shape(planes)}")
        if image.dtype == np.uint8 and shape[0] == 3 and len(shape) == 3 and np.all(np.asarray(self.spacing) == 1):
            return self._rgb, (np.moveaxis(image, self.channel_axis or 0, -1),)
        kernels = equation_3(
            self.params, image,
            channel_axis=self.channel_axis, spacing=self.spacing, compatibility=self.compatibility,
        )  # fmt: skip
        return PointCRF(kernels, self.params.iterations), ()
