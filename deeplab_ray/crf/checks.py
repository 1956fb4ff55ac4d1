"""Checks of the CRF's input, the same for every backend."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALLEST = 1e-5
"""Probabilities are clamped to at least this, as in the original, so that the CRF can overrule a certain network."""
SUM_TOLERANCE = 1e-3
"""How far the sum of a pixel's probabilities may be from one."""
MOST_CLASSES = 512


def check_image(image: NDArray[np.uint8]) -> None:
    """Raise ValueError unless the image is uint8 H×W×3 and not empty."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"the image must be uint8 H×W×3, not {image.dtype} {image.shape}")
    if image.size == 0:
        raise ValueError(f"the image is empty: {image.shape}")


def check_planes(planes: NDArray[np.float32], image: NDArray[np.uint8], name: str) -> None:
    """Raise ValueError unless `planes` (probabilities or energies) is floating-point C×H×W of the image's size."""
    if not np.issubdtype(planes.dtype, np.floating):
        raise ValueError(f"{name} must be floating-point numbers, not {planes.dtype}")
    if planes.ndim != 3 or planes.shape[1:] != image.shape[:2] or planes.shape[0] < 2:
        raise ValueError(f"{name} must be C×H×W with C ≥ 2 and the image's size {image.shape[:2]}, not {planes.shape}")
    if len(planes) > MOST_CLASSES:
        raise ValueError(f"{name} have {len(planes)} classes; the CRF takes at most {MOST_CLASSES}")


def check_point_planes(planes: NDArray[Any], points: int, name: str) -> None:
    """Raise ValueError unless `planes` is floating-point C×N, or C× a shape of N points, with C ≥ 2."""
    if not np.issubdtype(planes.dtype, np.floating):
        raise ValueError(f"{name} must be floating-point numbers, not {planes.dtype}")
    if planes.ndim < 2 or len(planes) < 2 or planes[0].size != points:
        raise ValueError(f"{name} must be C×N with C ≥ 2 and the kernels' {points} points, not {planes.shape}")


def check_values(energies: bool, off: float, negative: bool) -> None:
    """Raise ValueError if the values are not finite or not probabilities; energies need only be finite.

    off, negative: what `measure_values` returned.
    """
    if energies:
        if not np.isfinite(off):
            raise ValueError("energies must be finite")
    elif negative or not np.isfinite(off):
        raise ValueError("probabilities must be finite and not negative")
    elif off > SUM_TOLERANCE:
        raise ValueError(f"probabilities must sum to one at every pixel; the sum is off by up to {off:.3g}")


def measure_values(planes: NDArray[Any]) -> tuple[float, bool]:
    """Return the largest |Σp − 1| (infinite if a value is not finite), and whether any value is negative."""
    off = float(np.abs(planes.sum(axis=0) - 1).max())
    return (off if off == off else np.inf), bool((planes < 0).any())


def check_compatibility(compatibility: NDArray[np.float32] | None) -> None:
    """Raise ValueError unless the compatibility is None, a finite vector, or a finite symmetric matrix."""
    if compatibility is None:
        return
    if not np.isfinite(compatibility).all():
        raise ValueError("the compatibility must be finite")
    if compatibility.ndim == 1 or (compatibility.ndim == 2 and len(set(compatibility.shape)) == 1):
        if compatibility.ndim == 2 and not np.array_equal(compatibility, compatibility.T):
            raise ValueError("the compatibility matrix must be symmetric: a beside b must cost as much as b beside a")
        return
    raise ValueError(f"the compatibility must be one number per class (C) or a matrix C×C, not {compatibility.shape}")


def check_classes(compatibility: NDArray[np.float32] | None, classes: int) -> None:
    """Raise ValueError if the compatibility is for another number of classes."""
    if compatibility is not None and len(compatibility) != classes:
        raise ValueError(f"the compatibility is for {len(compatibility)} classes, the image has {classes}")
