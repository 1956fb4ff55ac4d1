"""pydensecrf.utils: unary energies from labels and probabilities, features of images of any dimension."""

from collections.abc import Iterable, Sequence
from logging import warning
from numbers import Number
from typing import Any

import numpy as np
from numpy.typing import NDArray


def unary_from_labels(
    labels: NDArray[Any], n_labels: int, gt_prob: float, zero_unsure: bool = True
) -> NDArray[np.float32]:
    """Return energies, float32 C×N, of labels of any shape that are right with probability `gt_prob`.

    zero_unsure: 0 means unknown (every label is as likely) and labels count from 1; otherwise they count from 0.
    Raises AssertionError unless 0 < gt_prob < 1.
    """
    if not 0 < gt_prob < 1:
        raise AssertionError("`gt_prob must be in (0,1).")
    flat = labels.flatten()
    energies = np.full((n_labels, len(flat)), -np.log((1 - gt_prob) / (n_labels - 1)), np.float32)
    energies[flat - 1 if zero_unsure else flat, np.arange(len(flat))] = -np.log(gt_prob)
    if zero_unsure:
        energies[:, flat == 0] = -np.log(1 / n_labels)
    return energies


def compute_unary(labels: NDArray[Any], M: int, GT_PROB: float = 0.5) -> NDArray[np.float32]:
    """Deprecated: `unary_from_labels`."""
    warning("pydensecrf.compute_unary is deprecated, use unary_from_labels instead.")
    return unary_from_labels(labels, M, GT_PROB)


def unary_from_softmax(sm: NDArray[Any], scale: float | None = None, clip: float | None = 1e-5) -> NDArray[np.float32]:
    """Return energies, float32 C×N, of probabilities C× any shape.

    scale: if given, how far to trust them: they are mixed with 1 − scale of a uniform distribution. clip: the least
    probability that is taken, or None. Raises AssertionError unless 0 < scale ≤ 1.
    """
    classes = sm.shape[0]
    if scale is not None:
        if not 0 < scale <= 1:
            raise AssertionError("`scale` needs to be in (0,1]")
        sm = scale * sm + (1 - scale) / classes
    if clip is not None:
        sm = np.clip(sm, clip, 1.0)
    return -np.log(sm).reshape(classes, -1).astype(np.float32)


def softmax_to_unary(sm: NDArray[Any], GT_PROB: float = 1) -> NDArray[np.float32]:
    """Deprecated: `unary_from_softmax`, without clipping."""
    warning("pydensecrf.softmax_to_unary is deprecated, use unary_from_softmax instead.")
    return unary_from_softmax(sm, None if GT_PROB == 1 else GT_PROB, clip=None)


def create_pairwise_gaussian(sdims: Sequence[float], shape: Sequence[int]) -> NDArray[np.float32]:
    """Return positions divided by the widths `sdims`, float32 D×N, of a grid of any dimension."""
    return _positions(sdims, shape).reshape(len(sdims), -1)


def create_pairwise_bilateral(
    sdims: Sequence[float], schan: float | Sequence[float], img: NDArray[Any], chdim: int = -1
) -> NDArray[np.float32]:
    """Return positions divided by `sdims` and channels divided by `schan` (one width, or one each), float32 D×N.

    chdim: which dimension of the image holds its channels; −1: none, it has only one.
    """
    channels = (img[np.newaxis] if chdim == -1 else np.moveaxis(img, chdim, 0)).astype(np.float32)
    if isinstance(schan, Number):
        channels /= schan
    elif isinstance(schan, Iterable):
        for channel, width in zip(channels, schan, strict=False):
            channel /= width
    features = np.concatenate([_positions(sdims, channels.shape[1:]), channels])
    return features.reshape(len(features), -1)


def _positions(sdims: Sequence[float], shape: Sequence[int]) -> NDArray[np.float32]:
    mesh = np.indices(tuple(shape), np.float32)
    for axis, width in zip(mesh, sdims, strict=False):
        axis /= width
    return mesh
