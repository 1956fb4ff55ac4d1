"""The permutohedral lattice (Adams, Baek and Davis 2010) of one kernel over one image.

A pixel's features, scaled to unit standard deviation, lie in a simplex of d + 1 vertices, with barycentric weights.
Filtering is splat (by these weights), blur along d + 1 directions, and slice (by the same weights). Simplices, weights
and the order of the blur are those of Krähenbühl's code, so results agree with it to rounding. The data structures
are our own:

- Pixels are visited in small tiles, and vertices are numbered in the order in which they are first touched.
- With colours (d = 5), two linear functions of a vertex's key depend on the position only; their values are the
  vertex's site. Blurring in the last three directions never leaves a site, so vertices are numbered by site, and a
  site fits the first-level cache. Keys are packed in 64 bits, with the site in the upper ones; the keys of a site share
  a window of the hash table.
- A direction is blurred in place along chains of neighbours; vertices without neighbours are in no chain.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab_ray.crf import lattice_kernels as kernels
from deeplab_ray.crf.simd import LANES, as_rows

_BLOCK = 4096
"""Vertices in a block whose chains are sorted by length: far fewer than fit a second-level cache, far more than a chain
has."""


@dataclass(frozen=True)
class Lattice:
    """V vertices, their chains, and the simplex of each of P pixels. Pixels are in the order of visiting."""

    offsets: NDArray[np.int32]
    """P×(d+1): the vertices of each pixel's simplex."""
    weights: NDArray[np.float32]
    """P×(d+1), for splat and slice: barycentric weights × √(kernel weight × scale × normalisation)."""
    vertices: int
    crossing: tuple[NDArray[np.int32], ...]
    """Chains of the first three directions. A chain lists its vertices in order, the last as its complement (~v)."""
    inner: tuple[tuple[NDArray[np.int32], NDArray[np.int32]], ...]
    """Chains of the directions that stay inside one of S sites, each with S + 1 bounds: where each site's chains begin.
    Without colours there are no sites; a block of vertices takes their place."""
    sites: NDArray[np.int32]
    """S + 1 bounds: where each site's vertices begin."""


def build(
    order: NDArray[np.int32],
    positions: tuple[NDArray[np.float32], NDArray[np.float32]],
    image: NDArray[np.uint8] | None,
    colours: NDArray[np.float32],
    weight: float,
    buffers: "HashBuffers",
) -> Lattice:
    """Build the lattice of the pixels in `order` (int32 P, indices into the image, row by row).

    positions: float32 features of each column (W) and of each row (H). image: uint8 H·W×3, or None for a kernel of
    positions alone. colours: float32 256, the feature of each value of a channel. weight: the kernel's weight, > 0.
    Raises ValueError if the features span more than the keys can hold.
    """
    d = 2 if image is None else 5
    packing = pack(d, positions, colours)
    bytes_of_colour = np.empty((0, 3), np.uint8) if image is None else image
    features = (*positions, bytes_of_colour, colours, np.empty((0, d), np.float32))
    offsets, weights, vertices, site_count = locate(order, features, packing, buffers)
    table, window = buffers.table, _window(len(buffers.table), packing.sites)
    keys, mass, sizes = buffers.keys[:vertices], buffers.mass[:vertices], buffers.sizes[:site_count]
    renumbered = np.empty(vertices, np.int32)
    sites = kernels.renumber(buffers.site_of[:vertices], sizes, keys, mass, renumbered, offsets)
    blocks = block_bounds(vertices)
    if d == 2:
        sites = blocks
    chains = []
    for direction in range(d + 1):
        bounds = sites if direction > 2 else blocks
        step = (d + 1) * packing.units[direction] - packing.units.sum()
        chains.append(kernels.chains(keys, renumbered, table, lines(table), step, bounds, packing.colour_bits, window))
    for chain, _ in chains:
        kernels.blur_numbers(chain, mass)
    kernels.normalise(offsets, weights, mass, scale(d), np.float32(weight))
    inner = tuple(chains[3:]) or _no_chains(len(sites))
    return Lattice(offsets, weights, vertices, tuple(chain for chain, _ in chains[:3]), inner, sites)


def locate(
    order: NDArray[np.int32], features: tuple[Any, Any, Any, Any, Any], packing: "Packing", buffers: "HashBuffers"
) -> tuple[NDArray[np.int32], NDArray[np.float32], int, int]:
    """Fill the buffers with the vertices of all points; return offsets, weights, the numbers of vertices and of sites.

    features: what `kernels.locate` reads them from: columns, rows, image, colours and features.
    """
    d, points = len(packing.units) - 1, len(order)
    # Krähenbühl's code takes four points at a time and pads with zeros, whose vertices stay in the lattice.
    padded = -(-points // 4) * 4
    offsets = np.empty((points, d + 1), np.int32)
    weights = np.empty((points, d + 1), np.float32)
    batch = np.zeros(4 * (d + 1) * LANES, np.float32)
    progress = np.zeros(3, np.int64)
    buffers.table.fill(0)
    while True:
        kernels.locate(
            order, padded, *features, elevation(d), packing.units, packing.origin, packing.colour_bits,
            _window(len(buffers.table), packing.sites), buffers.table, buffers.keys, buffers.mass, buffers.site_of,
            buffers.sizes, progress, offsets, weights, batch, as_rows(batch, LANES), lines(buffers.table),
        )  # fmt: skip
        if progress[0] >= padded:
            return offsets, weights, int(progress[1]), int(progress[2])
        table = np.zeros((2 * len(buffers.table), 2), np.int64)
        kernels.rehash(buffers.table, table, packing.colour_bits, _window(len(table), packing.sites))
        buffers.grow(table)


def block_bounds(vertices: int) -> NDArray[np.int32]:
    """Return where the blocks of vertices begin, whose chains are sorted by length, and where the last ends."""
    return np.append(np.arange(0, vertices, _BLOCK, dtype=np.int32), np.int32(vertices))


def scale(d: int) -> np.float32:
    """Return the factor of what is sliced from a lattice of d dimensions, as in Krähenbühl's code."""
    return np.float32(1 / (1 + 2.0**-d))


def lines(table: NDArray[np.int64]) -> NDArray[Any]:
    """View the hash table as rows that `prefetch` takes."""
    return as_rows(table.view(np.float32), 4)


def empty(pixels: int, d: int) -> Lattice:
    """Return the lattice of a kernel of weight 0: one vertex, to which no pixel contributes."""
    offsets, weights = np.zeros((pixels, d + 1), np.int32), np.zeros((pixels, d + 1), np.float32)
    return Lattice(offsets, weights, 1, (np.empty(0, np.int32),) * 3, _no_chains(2), np.array([0, 1], np.int32))


def _no_chains(bounds: int) -> tuple[tuple[NDArray[np.int32], NDArray[np.int32]], ...]:
    return ((np.empty(0, np.int32), np.zeros(bounds, np.int32)),) * 3


class HashBuffers:
    """The hash table and the arrays filled along with it, kept from image to image."""

    def __init__(self) -> None:
        size = 1 << 12
        self.table = np.zeros((size, 2), np.int64)
        self.keys, self.mass = np.empty(size, np.int64), np.empty(size, np.float32)
        self.site_of, self.sizes = np.empty(size, np.int32), np.empty(size, np.int32)

    def grow(self, table: NDArray[np.int64]) -> None:
        """Take the bigger table, and make room for half as many vertices as it has slots."""
        self.table = table
        for name in ("keys", "mass", "site_of", "sizes"):
            old = getattr(self, name)
            setattr(self, name, np.resize(old, len(table) // 2))


def _window(slots: int, sites: int) -> int:
    """Return the number of slots, less one, over which a site's keys are spread: at least its share of the table."""
    return (1 << max(6, (slots // sites).bit_length())) - 1


@dataclass(frozen=True)
class Packing:
    """How a vertex's integer coordinates become one 64-bit key: origin + Σ coordinate × unit."""

    units: NDArray[np.int64]
    origin: int
    colour_bits: int
    """Number of bits below the site."""
    bits: int
    """Number of bits of the whole key."""
    sites: int
    """Estimate of the number of sites that the image covers."""


def elevation(d: int) -> NDArray[np.float32]:
    """Return the diagonal (float32 d) of the matrix that lifts features to the lattice's plane (Adams et al., p. 5)."""
    deviation = np.float32(math.sqrt(2 / 3) * (d + 1))
    return np.array([1 / math.sqrt((i + 2) * (i + 1)) * float(deviation) for i in range(d)], np.float32)


def pack(d: int, positions: tuple[NDArray[np.float32], ...], colours: NDArray[np.float32]) -> Packing:
    """Choose the packing for d features of these ranges (see `build`). Raises ValueError if 62 bits are too few."""
    extent = np.array([p[-1] for p in positions] + [colours[-1]] * (d - 2), np.float64)
    elevate = np.triu(np.tile(elevation(d).astype(np.float64), (d + 1, 1)))
    for j in range(1, d + 1):
        elevate[j, j - 1] = -j * float(elevation(d)[j - 1])
    # A site is (k0 − k2, k1 − k2), in which colours cancel out; k2, k3, k4 tell its vertices apart and determine k5.
    fields = np.eye(d + 1, dtype=np.int64)[:d]
    if d == 5:
        fields[:2, 2] = -1
    span = fields @ elevate * extent
    # A vertex lies within d + 1 of a feature in each coordinate, its neighbours within d more.
    margin = 4 * (d + 1)
    low = np.floor(np.minimum(span, 0).sum(1)) - margin
    bits = [int(high - lo + margin).bit_length() for lo, high in zip(low, np.maximum(span, 0).sum(1), strict=True)]
    if sum(bits) > 62:
        raise ValueError(
            f"the CRF's sigmas are too small for this image: its lattice needs keys of {sum(bits)} bits, more than the "
            "62 that there are; take larger sigmas"
        )
    units, origin, shift = np.zeros(d + 1, np.int64), 0, 0
    for field in reversed(range(d)):
        units += fields[field] << shift
        origin -= int(low[field]) << shift
        shift += bits[field]
    colour_bits = sum(bits[2:])
    # Sites lie d + 1 apart in both coordinates.
    sites = abs(np.linalg.det((elevate[:2, :2] - elevate[2, :2]) * extent[:2])) / (d + 1) ** 2
    return Packing(units, origin, colour_bits, sum(bits), int(sites) + 1)
