"""Kernels of the mean-field iteration over two lattices, compiled once for each width of row (see simd.py).

`sweep` takes every pixel through one iteration: the pixel slices its message from the lattices' `value` and splats its
beliefs into `delta`. `delta`, blurred in place, is the next iteration's `value`.

Once most pixels have settled, `update` takes only those that may change. `delta` then collects changes of beliefs,
which are blurred and added to `value`. `moved` adds up each vertex's largest change, which bounds the change of a
pixel's message.

A pixel's classes are one row of at most 32 lanes, or several rows ("blocks") if there are more classes.
Rows of vertices are stored block by block, rows of pixels pixel by pixel.
Indices are unsigned where speed matters: Numba lets signed ones count from the end, which costs time.
"""

from typing import Any

import numba
import numpy as np

from deeplab_ray.crf.simd import (
    at_least,
    exponential,
    first_maximum,
    fma,
    largest,
    less,
    load,
    logarithm,
    maximum,
    prefetch,
    store,
    total,
)

_AHEAD = 4
"""How many pixels in advance rows are prefetched."""
_UNSEEN = np.float32(0.25)
"""A belief whose change is at most this share of the tolerance is not splatted."""
_SOON = 12
"""How many rows of a chain in advance are prefetched."""
_LEAST, _MOST = np.float32(1e-9), np.float32(1e30)
"""If a pixel's sum of exponentials lies between these, the clamps of `exponential` have lost nothing."""
_RUN = 32
"""Pixels that are copied plane by plane at a time: as many as lie side by side in the order of visiting."""
_BATCH = 256
"""Pixels that are tested together, before those that need it are updated."""


@numba.njit(nogil=True, cache=True)
def gather(
    planes: Any, order: Any, energies: Any, smallest: Any, padding: Any, scores: Any, numbers: Any
) -> tuple[Any, Any]:
    """Turn planes C×H·W into rows of scores: log-probabilities clamped from below, or −energies.

    padding: what is added to every pixel's rows: 0, and −1e30 in lanes without a class. numbers: the memory of scores
    as float32. Returns the largest |Σp − 1| (infinite if a value is not finite), and whether a value is negative.
    """
    classes, pixels = planes.shape[0], np.uint64(len(order))
    blocks = np.uint64(len(padding))
    lanes = np.uint64(len(numbers)) // pixels
    off = np.float32(0)
    negative = 0 * load(padding, 0)
    for start in range(0, len(order), _RUN):
        stop = min(start + _RUN, len(order))
        for c in range(lanes):
            if c < classes:
                for p in range(start, stop):
                    numbers[np.uint64(p) * lanes + c] = planes[c, np.uint64(order[p])]
            else:
                for p in range(start, stop):
                    numbers[np.uint64(p) * lanes + c] = 0
        for p in range(start, stop):
            added = np.float32(0)
            for b in range(blocks):
                at = np.uint64(p) * blocks + b
                row = load(scores, at)
                added += total(row)
                negative = negative + less(row, 0.0)
                row = load(padding, b) - row if energies else logarithm(at_least(row, smallest)) + load(padding, b)
                store(scores, at, row)
            error = abs(added - np.float32(1))
            if not error <= off:
                off = error if error == error else np.float32(np.inf)
    return off, total(negative) > 0


@numba.njit(nogil=True, cache=True)
def scatter(numbers: Any, order: Any, planes: Any) -> None:
    """Copy the pixels' rows (numbers: float32) into planes C×H·W."""
    lanes = np.uint64(len(numbers)) // np.uint64(len(order))
    for start in range(0, len(order), _RUN):
        stop = min(start + _RUN, len(order))
        for i in range(planes.shape[0]):
            c = np.uint64(i)
            for p in range(start, stop):
                planes[c, np.uint64(order[p])] = numbers[np.uint64(p) * lanes + c]


@numba.njit(nogil=True, cache=True)
def label(beliefs: Any, lanes: Any, order: Any, labels: Any) -> None:
    """Set each pixel's label to the index of its largest belief, the first of equals."""
    blocks = len(beliefs) // len(order)
    for p in range(len(order)):
        best, which = np.float32(-1), 0
        for b in range(blocks):
            row = load(beliefs, p * blocks + b)
            top = maximum(row)
            if top > best:
                best, which = top, b * lanes + first_maximum(row)
        labels[order[p]] = which


@numba.njit(nogil=True, cache=True)
def _message(p: Any, far_v: Any, far_w: Any, far_value: Any, near_v: Any, near_w: Any, near_value: Any) -> Any:
    """Return the message that a pixel slices from its vertices."""
    message = far_w[p, 0] * load(far_value, far_v[p, 0])
    for k in range(1, 6):
        message = fma(far_w[p, k], load(far_value, far_v[p, k]), message)
    for k in range(3):
        message = fma(near_w[p, k], load(near_value, near_v[p, k]), message)
    return message


@numba.njit(nogil=True, cache=True)
def _splat(p: Any, row: Any, far_v: Any, far_w: Any, far_delta: Any, near_v: Any, near_w: Any, near_delta: Any) -> None:
    for k in range(6):
        v = far_v[p, k]
        store(far_delta, v, fma(far_w[p, k], row, load(far_delta, v)))
    for k in range(3):
        v = near_v[p, k]
        store(near_delta, v, fma(near_w[p, k], row, load(near_delta, v)))


@numba.njit(nogil=True, cache=True)
def _powers(row: Any) -> Any:
    """Return e to the scores, up to a common factor, and their sum.

    Scores are logarithms of probabilities plus messages of a few units. So the largest hardly ever has to be found and
    subtracted first, which costs as much as the rest.
    """
    powers = exponential(row)
    added = total(powers)
    if not (_LEAST < added < _MOST):
        powers = exponential(row - maximum(row))
        added = total(powers)
    return powers, added


@numba.njit(nogil=True, cache=True)
def sweep(
    scores: Any, beliefs: Any, limit: Any, far: Any, near: Any, tolerance: Any, gain: Any, labels: Any, numbers: Any,
    slices: Any, keeps: Any, splats: Any,
) -> None:  # fmt: skip
    """Run one mean-field iteration of every pixel: slice, softmax, splat.

    far, near: offsets, weights, value and delta of the bilateral and of the spatial kernel. slices: whether there is
    anything to slice yet. keeps: whether to store beliefs and `limit`, for `update`. splats: whether another iteration
    follows. labels: the compatibility: None (Potts), one row (a diagonal), or a row for each class (a full matrix).
    numbers: scratch memory of one row, for the full matrix.
    """
    # Unpacked once, because taking an array out of a tuple counts references.
    far_v, far_w, far_value, far_delta = far
    near_v, near_w, near_value, near_delta = near
    for i in range(len(limit)):
        p = np.uint64(i)
        if i + _AHEAD < len(limit):
            q = np.uint64(i + _AHEAD)
            for k in range(6):
                prefetch(far_value, far_v[q, k])
                prefetch(far_delta, far_v[q, k])
        row = load(scores, p)
        if slices:
            message = _message(p, far_v, far_w, far_value, near_v, near_w, near_value)
            if labels is not None:
                message = _compare(message, labels, numbers)
            row = row + message
        row, added = _powers(row)
        part = np.float32(1) / added
        if keeps:
            limit[p] = _slack((added - maximum(row)) * part, tolerance) / gain
        row = row * part
        if keeps:
            store(beliefs, p, row)
        if splats:
            _splat(p, row, far_v, far_w, far_delta, near_v, near_w, near_delta)


@numba.njit(nogil=True, cache=True)
def sweep_wide(
    scores: Any, beliefs: Any, limit: Any, far: Any, near: Any, tolerance: Any, gain: Any, labels: Any, numbers: Any,
    slices: Any, keeps: Any, splats: Any,
) -> None:  # fmt: skip
    """Do as `sweep` for pixels of several rows, but fill no `limit`.

    numbers: scratch memory of a pixel's scores and message, as rows and as float32.
    """
    far_v, far_w, far_value, far_delta = far
    near_v, near_w, near_value, near_delta = near
    rows, flat = numbers
    pixels = len(limit)
    blocks = len(scores) // pixels
    far_vertices, near_vertices = len(far_value) // blocks, len(near_value) // blocks
    for p in range(pixels):
        if slices:
            for b in range(blocks):
                message = far_w[p, 0] * load(far_value, b * far_vertices + far_v[p, 0])
                for k in range(1, 6):
                    message = fma(far_w[p, k], load(far_value, b * far_vertices + far_v[p, k]), message)
                for k in range(3):
                    message = fma(near_w[p, k], load(near_value, b * near_vertices + near_v[p, k]), message)
                store(rows, b, message)
        top = np.float32(-np.inf)
        for b in range(blocks):
            row = load(scores, p * blocks + b)
            if slices:
                if labels is None:
                    row = row + load(rows, b)
                elif len(labels) == blocks:
                    row = fma(load(rows, b), load(labels, b), row)
                else:
                    for c in range(len(labels) // blocks):
                        row = fma(flat[c], load(labels, c * blocks + b), row)
            store(rows, blocks + b, row)
            top = max(top, maximum(row))
        added = np.float32(0)
        for b in range(blocks):
            row = exponential(load(rows, blocks + b) - top)
            added += total(row)
            store(rows, b, row)
        for b in range(blocks):
            row = load(rows, b) * (np.float32(1) / added)
            if keeps:
                store(beliefs, p * blocks + b, row)
            if splats:
                for k in range(6):
                    v = b * far_vertices + far_v[p, k]
                    store(far_delta, v, fma(far_w[p, k], row, load(far_delta, v)))
                for k in range(3):
                    v = b * near_vertices + near_v[p, k]
                    store(near_delta, v, fma(near_w[p, k], row, load(near_delta, v)))


@numba.njit(nogil=True, cache=True)
def _met(p: Any, far_v: Any, far_w: Any, far_moved: Any, near_v: Any, near_w: Any, near_moved: Any) -> Any:
    """Upper bound on the change so far of a pixel's message: what its vertices have moved, sliced."""
    moved = np.float32(0)
    for k in range(6):
        moved += far_w[p, k] * far_moved[far_v[p, k]]
    for k in range(3):
        moved += near_w[p, k] * near_moved[near_v[p, k]]
    return moved


@numba.njit(nogil=True, cache=True)
def _slack(doubt: Any, tolerance: Any) -> Any:
    """Return how far a pixel's scores may move before its belief can have changed by `tolerance`.

    With the doubt η = 1 − max Q and scores that move by at most x, no belief changes by more than η (e^2x − 1);
    log(1 + y) ≥ 2y / (2 + y).
    """
    return tolerance / max(np.float32(2) * doubt + tolerance, np.float32(1e-30))


@numba.njit(nogil=True, cache=True)
def update(
    scores: Any, beliefs: Any, limit: Any, far: Any, near: Any, tolerance: Any, gain: Any, labels: Any, numbers: Any,
    splats: Any,
) -> Any:  # fmt: skip
    """Do as `sweep` for the pixels whose belief may have changed; return their number.

    far, near: as for `sweep`, and `moved`. limit: the bound (`_met`) above which a pixel is updated. gain: the largest
    factor by which the compatibility can scale a message.
    """
    far_v, far_w, far_value, far_delta, far_moved = far
    near_v, near_w, near_value, near_delta, near_moved = near
    updated = 0
    due = np.empty(_BATCH, np.uint32)
    met = np.empty(_BATCH, np.float32)
    for start in range(0, len(limit), _BATCH):
        count = 0
        for i in range(start, min(start + _BATCH, len(limit))):
            p = np.uint64(i)
            moved = _met(p, far_v, far_w, far_moved, near_v, near_w, near_moved)
            # No branch, since it could not be predicted.
            due[count], met[count] = p, moved
            count += moved > limit[p]
        updated += count
        for n in range(count):
            if n + _AHEAD < count:
                q = np.uint64(due[n + _AHEAD])
                prefetch(scores, q)
                prefetch(beliefs, q)
                for k in range(6):
                    prefetch(far_value, far_v[q, k])
                    prefetch(far_delta, far_v[q, k])
            p = np.uint64(due[n])
            message = _message(p, far_v, far_w, far_value, near_v, near_w, near_value)
            if labels is not None:
                message = _compare(message, labels, numbers)
            row, added = _powers(load(scores, p) + message)
            part = np.float32(1) / added
            limit[p] = met[n] + _slack((added - maximum(row)) * part, tolerance) / gain
            row = row * part
            change = row - load(beliefs, p)
            if splats and largest(change) <= tolerance * _UNSEEN:
                continue
            store(beliefs, p, row)
            if splats:
                _splat(p, change, far_v, far_w, far_delta, near_v, near_w, near_delta)
    return updated


@numba.njit(nogil=True, cache=True)
def _compare(message: Any, labels: Any, numbers: Any) -> Any:
    """Return the message after the label compatibility, diagonal or full."""
    if len(labels) == 1:
        return message * load(labels, 0)
    store(numbers[0], 0, message)
    result = numbers[1][0] * load(labels, 0)
    for c in range(1, len(labels)):
        result = fma(numbers[1][c], load(labels, c), result)
    return result


@numba.njit(nogil=True, cache=True)
def blur(chain: Any, begin: Any, end: Any, rows: Any) -> None:
    """Blur one direction in place along chain[begin:end]: to each row add half of its two neighbours."""
    if begin >= end:
        return
    nothing = 0 * load(rows, 0)
    before, now, v, fresh = nothing, nothing, np.uint64(0), True
    for i in range(begin, end):
        if i + _SOON < end:
            prefetch(rows, _vertex(chain[i + _SOON]))
        w = _vertex(chain[i])
        after = load(rows, w)
        if fresh:
            before = nothing
        else:
            store(rows, v, fma(0.5, before + after, now))
            before = now
        now, v, fresh = after, w, chain[i] < 0
        if fresh:
            store(rows, v, fma(0.5, before, now))


@numba.njit(nogil=True, cache=True)
def _vertex(entry: Any) -> Any:
    """Return the vertex of a chain's entry, which may be its complement."""
    return np.uint64(max(entry, ~entry))


@numba.njit(nogil=True, cache=True)
def blur_sites(inner: Any, sites: Any, rows: Any) -> None:
    """Blur the last directions site by site. inner: three pairs of chains and bounds."""
    for s in range(len(sites) - 1):
        for chain, bounds in inner:
            blur(chain, bounds[s], bounds[s + 1], rows)


@numba.njit(nogil=True, cache=True)
def measure(value: Any, later: Any, moved: Any) -> None:
    """Set `moved` to each vertex's largest change from `value` to `later`."""
    for v in range(len(moved)):
        moved[v] = largest(load(later, v) - load(value, v))


@numba.njit(nogil=True, cache=True)
def settle(inner: Any, sites: Any, delta: Any, value: Any, moved: Any) -> None:
    """Blur the changes `delta` site by site, add them to `value` and to `moved`, and clear them."""
    nothing = 0 * load(delta, 0)
    for s in range(len(sites) - 1):
        for chain, bounds in inner:
            blur(chain, bounds[s], bounds[s + 1], delta)
        for i in range(sites[s], sites[s + 1]):
            v = np.uint64(i)
            row = load(delta, v)
            store(value, v, load(value, v) + row)
            moved[v] += largest(row)
            store(delta, v, nothing)
