"""The permutohedral lattice of points with any number of features; see `lattice` for that of an image.

Simplices, weights and the order of the blur are those of Krähenbühl's code here, too. A vertex's key is the sum of its
integer coordinates, each times a fixed random odd number, modulo 2^64: as many features and as narrow widths as one
likes, and a neighbour's key is a sum away. Two of ten million vertices share a key with a probability of 3e-6.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deeplab_ray.crf import lattice, lattice_kernels, point_kernels
from deeplab_ray.crf.lattice import HashBuffers, Packing, elevation

_FARTHEST = 2.0**20
"""Largest coordinate on the lattice's plane: beyond it, float32 would lose a point's place within its simplex."""
_MOST_POINTS = 2**31 - 1


@dataclass(frozen=True)
class PointLattice:
    """V vertices, their chains, and the simplex of each of N points in D dimensions."""

    offsets: NDArray[np.int32]
    """N×(D+1): the vertices of each point's simplex."""
    weights: NDArray[np.float32]
    """N×(D+1): barycentric weights, for splat and slice."""
    vertices: int
    chains: tuple[NDArray[np.int32], ...]
    """Chains of neighbours in each of D + 1 directions, as in `lattice.Lattice`."""
    response: NDArray[np.float32]
    """N: what filtering ones gives."""


def check_features(features: NDArray[np.float32]) -> None:
    """Raise ValueError unless features, float32 D×N, are finite and not too many standard deviations apart."""
    d, points = features.shape
    if d == 0 or not 0 < points <= _MOST_POINTS:
        raise ValueError(f"features must be D×N with at least one feature and one point, not {features.shape}")
    low, high = features.min(axis=1).astype(np.float64), features.max(axis=1).astype(np.float64)
    # NaN, if there is any, is what a minimum returns.
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError("features must be finite: is a width 0, or a value not a number?")
    reach = elevation(d) * np.maximum(-low, high)
    farthest = (reach * np.arange(1, d + 1)).max() + reach.sum()
    if farthest > _FARTHEST:
        raise ValueError(
            f"features reach {max(-low.min(), high.max()):.3g} standard deviations from 0, too far for float32: take "
            "larger widths, or begin positions and colours nearer to 0"
        )


def build(features: NDArray[np.float32]) -> PointLattice:
    """Build the lattice of N points. features: float32 D×N, in standard deviations, which `check_features` passed."""
    d, points = features.shape
    rows = np.ascontiguousarray(features.T)
    nothing = np.empty(0, np.float32)
    source = (nothing, nothing, np.empty((0, 3), np.uint8), nothing, rows)
    order, buffers, packing = np.arange(points, dtype=np.int32), HashBuffers(), _hashing(d)
    offsets, weights, vertices, _ = lattice.locate(order, source, packing, buffers)
    keys, mass = buffers.keys[:vertices], buffers.mass[:vertices]
    numbers, blocks = np.arange(vertices, dtype=np.int32), lattice.block_bounds(vertices)
    chains = []
    for step in (d + 1) * packing.units - packing.units.sum():
        chain, _ = lattice_kernels.chains(
            keys, numbers, buffers.table, lattice.lines(buffers.table), step, blocks, 0, 0
        )
        lattice_kernels.blur_numbers(chain, mass)
        chains.append(chain)
    response = np.empty(points, np.float32)
    point_kernels.respond(offsets, weights, mass, lattice.scale(d), response)
    return PointLattice(offsets, weights, vertices, tuple(chains), response)


def _hashing(d: int) -> Packing:
    """Return the factors of a key's coordinates: the last coordinate follows from the others, so its factor is 0."""
    draw = np.random.default_rng(d).integers(-(2**63), 2**63 - 1, d + 1, np.int64) | 1
    units, origin = np.append(draw[:d], 0), int(draw[d])
    return Packing(units, origin, colour_bits=0, bits=64, sites=1)
