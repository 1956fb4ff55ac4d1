"""Kernels over the points of a grid: images of any channels, volumes, video."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deeplab_ray.crf.kernel import Kernel, Normalisation
from deeplab_ray.crf.params import CRFParams

Widths = float | Sequence[float]
"""One number for all axes, or one for each in the order of the array's axes."""


def spatial_kernel(
    shape: Sequence[int],
    sigma: Widths,
    weight: float = 1.0,
    *,
    spacing: Widths = 1.0,
    compatibility: ArrayLike | None = None,
    normalisation: Normalisation = "symmetric",
) -> Kernel:
    """Return a kernel of positions on a grid of this shape: H×W, D×H×W, or of any number of axes.

    spacing: the distance of neighbours along each axis, in the unit of `sigma`: a volume's voxels in mm.
    Raises ValueError for another number of widths than axes, and as `Kernel` does.
    """
    features = _positions(shape, sigma, spacing)
    return Kernel(features, weight, compatibility=compatibility, normalisation=normalisation)


def bilateral_kernel(
    image: NDArray[np.generic],
    sigma: Widths,
    sigma_colour: Widths,
    weight: float = 1.0,
    *,
    channel_axis: int | None = None,
    spacing: Widths = 1.0,
    compatibility: ArrayLike | None = None,
    normalisation: Normalisation = "symmetric",
) -> Kernel:
    """Return a kernel of positions and values of an image of whole or floating-point numbers, in any number of axes.

    channel_axis: which axis holds the channels; None: the image has one channel, and no axis for it.
    sigma_colour: the width in the image's own unit, one for all channels or one for each. The rest: `spatial_kernel`.
    """
    channels = split_channels(image, channel_axis)
    colours = channels / _per_axis(sigma_colour, len(channels), "colour widths", "channels", len(channels.shape))
    features = np.concatenate([_positions(channels.shape[1:], sigma, spacing), colours])
    return Kernel(features, weight, compatibility=compatibility, normalisation=normalisation)


def equation_3(
    params: CRFParams,
    image: NDArray[np.generic],
    *,
    channel_axis: int | None = None,
    spacing: Widths = 1.0,
    compatibility: ArrayLike | None = None,
) -> list[Kernel]:
    """Return the kernels of equation 3 over an image; those of weight 0 are left out, but one always remains."""
    kernels = []
    if params.w2 or not params.w1:
        shape = split_channels(image, channel_axis).shape[1:]
        kernels.append(
            spatial_kernel(shape, params.sigma_gamma, params.w2, spacing=spacing, compatibility=compatibility)
        )
    if params.w1:
        kernels.append(
            bilateral_kernel(
                image, params.sigma_alpha, params.sigma_beta, params.w1,
                channel_axis=channel_axis, spacing=spacing, compatibility=compatibility,
            )
        )  # fmt: skip
    return kernels


def split_channels(image: NDArray[np.generic], channel_axis: int | None) -> NDArray[np.float32]:
    """Return the channels of an image, float32 K× its grid. Raises ValueError if its numbers are of no such kind."""
    if not (np.issubdtype(image.dtype, np.integer) or np.issubdtype(image.dtype, np.floating)):
        raise ValueError(f"the image must be of whole or floating-point numbers, not {image.dtype}")
    if channel_axis is not None and not -image.ndim <= channel_axis < image.ndim:
        raise ValueError(f"the image {image.shape} has no axis {channel_axis} for its channels")
    channels = image[np.newaxis] if channel_axis is None else np.moveaxis(image, channel_axis, 0)
    if channels.ndim < 2 or channels.size == 0:
        raise ValueError(f"the image must have a grid of pixels and at least one channel, not {image.shape}")
    return channels.astype(np.float32)


def _positions(shape: Sequence[int], sigma: Widths, spacing: Widths) -> NDArray[np.float32]:
    """Return the positions in standard deviations, the last axis first, as in `DenseCRF`: x, y, z."""
    axes = len(shape)
    scale = _per_axis(spacing, axes, "spacings", "axes", axes + 1)
    places = np.indices(tuple(shape), np.float32) * scale / _per_axis(sigma, axes, "widths", "axes", axes + 1)
    return places[::-1]


def _per_axis(values: Widths, count: int, what: str, of: str, dimensions: int) -> NDArray[np.float32]:
    """Return `count` positive numbers, float32, with `dimensions` axes of which the first is theirs."""
    array = np.asarray(values, np.float32)
    if array.ndim == 0:
        array = np.broadcast_to(array, count)
    if array.shape != (count,):
        raise ValueError(f"give one number or {count} {what}, as there are {count} {of}, not {values}")
    if not (np.isfinite(array) & (array > 0)).all():
        raise ValueError(f"{what} must be above 0, not {values}")
    return array.reshape(-1, *(1,) * (dimensions - 1))
