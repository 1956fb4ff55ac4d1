"""Kernels of the mean-field iteration over any number of lattices of points; see `kernels` for those of an image.

Each takes one part of the classes, a row of 4, 8 or 16 lanes for every point, and is compiled once for each width of
row: no number of classes, features or kernels compiles anew. Indices are unsigned for speed. Prefetching rows of
vertices, which helps in `kernels`, cost a fifth here if the lattice fits a cache, and gained nothing at 26 MB
(of vertices, on a processor with a large third-level cache).
"""

from typing import Any

import numba
import numpy as np

from deeplab_ray.crf.simd import exponential, fma, load, maximum, store, total


@numba.njit(nogil=True, cache=True)
def respond(offsets: Any, weights: Any, mass: Any, scale: Any, response: Any) -> None:
    """Slice `mass`, one number per vertex, for each point."""
    for p in range(offsets.shape[0]):
        answer = np.float32(0)
        for k in range(offsets.shape[1]):
            answer += weights[p, k] * scale * mass[offsets[p, k]]
        response[p] = answer


@numba.njit(nogil=True, cache=True)
def splat(offsets: Any, weights: Any, factors: Any, rows: Any, values: Any) -> None:
    """Add each point's row, times its factor and its weights, to the rows of its vertices. offsets: uint32 N×(D+1)."""
    corners = np.uint64(offsets.shape[1])
    for i in range(len(factors)):
        p = np.uint64(i)
        row = factors[p] * load(rows, p)
        for k in range(corners):
            v = offsets[p, k]
            store(values, v, fma(weights[p, k], row, load(values, v)))


@numba.njit(nogil=True, cache=True)
def slice_into(offsets: Any, weights: Any, factors: Any, values: Any, gain: Any, rows: Any) -> None:
    """Add what each point slices from its vertices, times its factor and `gain` (one row), to its row."""
    corners = np.uint64(offsets.shape[1])
    gains = load(gain, 0)
    for i in range(len(factors)):
        p = np.uint64(i)
        message = weights[p, 0] * load(values, offsets[p, 0])
        for k in range(np.uint64(1), corners):
            message = fma(weights[p, k], load(values, offsets[p, k]), message)
        store(rows, p, fma(factors[p] * message, gains, load(rows, p)))


@numba.njit(nogil=True, cache=True)
def highest(rows: Any, tops: Any) -> None:
    """Raise each point's `tops` to the largest lane of its row."""
    for i in range(len(tops)):
        tops[i] = max(tops[i], maximum(load(rows, np.uint64(i))))


@numba.njit(nogil=True, cache=True)
def powers(rows: Any, tops: Any, sums: Any) -> None:
    """Replace each row by e to the power of its difference from `tops`, and add its lanes to `sums`."""
    for i in range(len(tops)):
        p = np.uint64(i)
        row = exponential(load(rows, p) - tops[p])
        store(rows, p, row)
        sums[p] += total(row)


@numba.njit(nogil=True, cache=True)
def divide(rows: Any, sums: Any) -> None:
    """Divide each row by its point's sum."""
    for i in range(len(sums)):
        p = np.uint64(i)
        store(rows, p, (np.float32(1) / sums[p]) * load(rows, p))
