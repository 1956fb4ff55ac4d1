"""pydensecrf.densecrf: the model, its unary and pairwise energies, and inference."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from numbers import Number
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab_ray.crf.compat.buffers import take, take_compatibility
from deeplab_ray.crf.compat.fast import Isotropic, refine
from deeplab_ray.crf.kernel import Kernel, Normalisation
from deeplab_ray.crf.mean_field import MeanField


class KernelType(IntEnum):
    """Which parameters of a kernel could be learned in C++; inference is the same for all."""

    CONST_KERNEL = 0
    DIAG_KERNEL = 1
    FULL_KERNEL = 2


class NormalizationType(IntEnum):
    """How a kernel is normalised: see `Kernel`."""

    NO_NORMALIZATION = 0
    NORMALIZE_BEFORE = 1
    NORMALIZE_AFTER = 2
    NORMALIZE_SYMMETRIC = 3


CONST_KERNEL, DIAG_KERNEL, FULL_KERNEL = KernelType
NO_NORMALIZATION, NORMALIZE_BEFORE, NORMALIZE_AFTER, NORMALIZE_SYMMETRIC = NormalizationType
_NORMALISATIONS: tuple[Normalisation, ...] = ("none", "before", "after", "symmetric")


class Unary:
    """Unary energies as an object, for `DenseCRF.setUnary`."""

    def __init__(self, energies: NDArray[np.float32]) -> None:
        self.energies = energies


class ConstUnary(Unary):
    """Energies u, float32 C×N."""

    def __init__(self, u: NDArray[np.float32]) -> None:
        super().__init__(take(u, "u", 2).copy())


class LogisticUnary(Unary):
    """Energies L f of linear weights L, float32 C×K, and features f, float32 K×N."""

    def __init__(self, L: NDArray[np.float32], f: NDArray[np.float32]) -> None:
        super().__init__(take(L, "L", 2) @ take(f, "f", 2))


@dataclass(frozen=True)
class _Pairwise:
    """One pairwise energy. Its kernel is made when it is used: an image that is inferred in one go needs none."""

    make: Callable[[], Kernel]
    isotropic: Isotropic | None = None
    """What the engine for images takes instead, if it can."""

    @cached_property
    def kernel(self) -> Kernel:
        """Return the kernel."""
        return self.make()


class DenseCRF:
    """A fully connected CRF of `nvar` points and `nlabels` labels."""

    def __init__(self, nvar: int, nlabels: int, *_: Any, **__: Any) -> None:
        self._points, self._labels = int(nvar), int(nlabels)
        self._unary: NDArray[np.float32] | None = None
        self._pairwise: list[_Pairwise] = []

    def addPairwiseEnergy(
        self,
        features: NDArray[np.float32],
        compat: Any,
        kernel: int = DIAG_KERNEL,
        normalization: int = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add a Gaussian kernel of features, float32 D×N, in standard deviations.

        compat: a number (Potts), or costs as a vector (equal labels) or a matrix (label beside label), float32.
        """
        given = take(features, "features", 2)
        if given.shape[1] != self._points:
            raise ValueError(f"Bad shape for pairwise energy (Need (?, {self._points}), got {given.shape})")
        ready = _kernel(given.copy(), take_compatibility(compat, self._labels), kernel, normalization)
        self._pairwise.append(_Pairwise(lambda: ready))

    def setUnary(self, u: Unary) -> None:
        """Take the unary energies of an object."""
        if not isinstance(u, Unary):
            raise TypeError(
                f"Argument 'u' has incorrect type (expected {Unary.__module__}.Unary, got {type(u).__name__})"
            )
        self._set(u.energies)

    def setUnaryEnergy(self, u: NDArray[np.float32], f: NDArray[np.float32] | None = None) -> None:
        """Take unary energies (−log probabilities), float32 C×N; with f, which is N×N, they are u f."""
        given = take(u, "u", 2)
        self._check(given)
        self._set(given.copy() if f is None else given @ take(f, "f", 2))

    def inference(self, niter: int, /) -> NDArray[np.float32]:
        """Return the beliefs after `niter` iterations of mean field, float32 C×N."""
        field = self._field()
        for _ in range(int(niter)):
            field.step()
        return field.beliefs()

    def map(self, niter: int, /) -> NDArray[np.int16]:
        """Return each point's most probable label after `niter` iterations, int16 N (as in C++; not in pydensecrf)."""
        return self.inference(niter).argmax(axis=0).astype(np.int16)

    def startInference(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Return the beliefs by the unary energies (zeros without any), float32 C×N, and two empty matrices."""
        nothing = np.empty((0, 0), np.float32)
        if self._unary is None:
            return np.zeros((self._points, self._labels), np.float32).T, nothing, nothing.copy()
        return self._field().beliefs(), nothing, nothing.copy()

    def stepInference(self, Q: NDArray[np.float32], tmp1: Any, tmp2: Any) -> None:
        """Run one iteration on Q in place. tmp1, tmp2: as `startInference` returned them; they are not needed."""
        field = self._field()
        field.set_beliefs(Q)
        field.step()
        Q[...] = field.beliefs()

    def klDivergence(self, Q: NDArray[np.float32]) -> float:
        """Return pydensecrf's figure for Q, in which pairwise energies count twice; see `PointCRF.kl_divergence`."""
        field = self._field()
        field.set_beliefs(Q)
        return field.divergence(pairwise=1.0)

    def _field(self) -> MeanField:
        return MeanField([pairwise.kernel for pairwise in self._pairwise], self._energies())

    def _energies(self) -> NDArray[np.float32]:
        return np.zeros((self._labels, self._points), np.float32) if self._unary is None else self._unary

    def _set(self, energies: NDArray[np.float32]) -> None:
        self._check(energies)
        self._unary = energies

    def _check(self, energies: NDArray[np.float32]) -> None:
        if energies.shape != (self._labels, self._points):
            raise ValueError(f"Bad shape for unary energy (Need {(self._labels, self._points)}, got {energies.shape})")


class DenseCRF2D(DenseCRF):
    """A fully connected CRF of an image's pixels, row by row."""

    def __init__(self, w: int, h: int, nlabels: int, *_: Any, **__: Any) -> None:
        super().__init__(int(w) * int(h), nlabels)
        self._width, self._height = int(w), int(h)

    def addPairwiseGaussian(
        self, sxy: Any, compat: Any, kernel: int = DIAG_KERNEL, normalization: int = NORMALIZE_SYMMETRIC
    ) -> None:
        """Add a kernel of positions with widths `sxy`: one, or those of x and y, in pixels."""
        widths = (sxy, sxy) if isinstance(sxy, Number) else (sxy[0], sxy[1])
        self._add(widths, (), None, compat, kernel, normalization)

    def addPairwiseBilateral(
        self,
        sxy: Any,
        srgb: Any,
        rgbim: NDArray[np.uint8],
        compat: Any,
        kernel: int = DIAG_KERNEL,
        normalization: int = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add a kernel of positions and colours. srgb: the width in colour: one, or one for each channel. rgbim: uint8
        H×W×3."""
        widths = (sxy, sxy) if isinstance(sxy, Number) else (sxy[0], sxy[1])
        colours = (srgb,) * 3 if isinstance(srgb, Number) else (srgb[0], srgb[1], srgb[2])
        image = take(rgbim, "rgbim", 3, np.uint8)
        if image.shape[:2] != (self._height, self._width):
            raise ValueError(
                f"Bad shape for pairwise bilateral (Need {(self._height, self._width, 3)}, got {image.shape})"
            )
        if image.shape[2] != 3:
            raise ValueError(
                "addPairwiseBilateral only works for RGB images. For other types, use "
                "`utils.create_pairwise_bilateral` to construct your own pairwise energy and add it through "
                "`addPairwiseEnergy`."
            )
        self._add(widths, colours, image.copy(), compat, kernel, normalization)

    def inference(self, niter: int, /) -> NDArray[np.float32]:
        """Return the beliefs after `niter` iterations of mean field, float32 C×N.

        The usual case, at most one Gaussian and one bilateral energy of equal widths with numbers as compatibilities,
        takes the engine for images, which is several times as fast.
        """
        beliefs = refine(
            [pairwise.isotropic for pairwise in self._pairwise], self._energies(), self._width, self._height, int(niter)
        )
        return super().inference(niter) if beliefs is None else beliefs

    def _add(
        self, widths: Any, colours: Any, image: NDArray[np.uint8] | None, compat: Any, kernel: int, normalization: int
    ) -> None:
        """Add the energy of pixels' positions, and of colours where there is an image."""
        costs = take_compatibility(compat, self._labels)
        sigmas = np.array((*widths, *colours), np.float32)
        if not (sigmas > 0).all():
            raise ValueError(f"widths must be above 0, not {sigmas.tolist()}")

        def make() -> Kernel:
            y, x = np.indices((self._height, self._width), np.float32)
            planes = [x.ravel(), y.ravel(), *(() if image is None else image.reshape(-1, 3).T)]
            features = np.stack([plane / sigma for plane, sigma in zip(planes, sigmas, strict=True)])
            return _kernel(features.astype(np.float32), costs, kernel, normalization)

        isotropic = None
        if isinstance(costs, float) and NormalizationType(normalization) == NORMALIZE_SYMMETRIC:
            isotropic = Isotropic.of(widths, colours, image, costs)
        KernelType(kernel)
        self._pairwise.append(_Pairwise(make, isotropic))


def _kernel(features: NDArray[np.float32], costs: float | NDArray[np.float32], kind: int, normalization: int) -> Kernel:
    """Make a kernel; what is a cost here is, for a vector, minus what `Kernel` favours."""
    KernelType(kind)
    normalisation = _NORMALISATIONS[NormalizationType(normalization)]
    if isinstance(costs, float):
        return Kernel(features, costs, normalisation=normalisation)
    return Kernel(features, -1.0 if costs.ndim == 1 else 1.0, compatibility=costs, normalisation=normalisation)
