"""Compiled kernels that build a `Lattice`: simplices, the hash table of vertices, chains of neighbours."""

from typing import Any

import numba
import numpy as np

from deeplab_ray.crf.simd import LANES, less, load, nearest, prefetch, store

_TABLE_ROOM = 2
"""Least number of slots of the hash table per entry."""
_NEAR = 16
"""Neighbouring slots that are tried for a key before the search jumps."""
_AHEAD = 16
"""How many keys in advance slots are prefetched."""


@numba.njit(nogil=True, cache=True)
def _first_slot(slots: Any, key: Any, colour_bits: Any, window: Any) -> Any:
    """Return the slot where the search for a key starts. A site's keys share a window of the table: it stays cached."""
    site = (key >> colour_bits) * np.int64(-7046029254386353131)
    colour = (key & ((np.int64(1) << colour_bits) - 1)) * np.int64(0x2545F4914F6CDD1D)
    return np.uint64(((site >> 20) + ((colour >> 33) & window)) & (slots - 1))


@numba.njit(nogil=True, cache=True)
def find(table: Any, key: Any, colour_bits: Any, window: Any) -> Any:
    """Return the slot that holds the key, or the free slot where it belongs. Key 0 marks a free slot."""
    slot = _first_slot(len(table), key, colour_bits, window)
    tried = 0
    while table[slot, 0] != key and table[slot, 0] != 0:
        tried += 1
        # Where the table is crowded, jump far away.
        colour = (key & ((np.int64(1) << colour_bits) - 1)) * np.int64(0x2545F4914F6CDD1D)
        stride = 1 if tried < _NEAR else (colour >> 20) | 1
        slot = np.uint64((np.int64(slot) + stride) & (len(table) - 1))
    return slot


@numba.njit(nogil=True, cache=True)
def rehash(table: Any, bigger: Any, colour_bits: Any, window: Any) -> None:
    """Move all keys to a bigger, empty table."""
    for i in range(len(table)):
        if table[i, 0]:
            slot = find(bigger, table[i, 0], colour_bits, window)
            bigger[slot, 0], bigger[slot, 1] = table[i, 0], table[i, 1]


@numba.njit(nogil=True, cache=True)
def locate(
    order: Any, padded: Any, columns: Any, rows: Any, image: Any, colours: Any, features: Any, scale: Any, units: Any,
    origin: Any, colour_bits: Any, window: Any, table: Any, keys: Any, mass: Any, site_of: Any, sizes: Any,
    progress: Any, offsets: Any, weights: Any, flat: Any, batch: Any, lines: Any,
) -> None:  # fmt: skip
    """Find each pixel's simplex and barycentric weights, and number vertices as they are first met.

    features: float32 N×D, or empty if columns, rows, image and colours hold the features of the pixels. Fills each
    vertex's key, mass (the splat of ones) and site, and the sizes of sites. progress: the numbers of pixels, vertices
    and sites so far. Stops early if a buffer may become too small; the caller grows it and calls again.
    (Growing here would make Numba count references in the loop, which takes longer than the rest.) lines: the table as
    rows that can be prefetched.
    """
    d = len(scale)
    step = np.float32(d + 1)
    part = np.float32(1) / step
    width, given = len(columns), len(features) > 0
    count, sites = progress[1], progress[2]
    x, y, last = 0, 0, 0
    unit_sum = units.sum()
    # First rows in the batch (flat: its numbers) of elevated coordinates, remainder-0 vertex, ranks and features.
    e, z, r, f = 0, d + 1, 2 * (d + 1), 3 * (d + 1)
    # One pixel's units and remainders, sorted by rank; then keys and barycentric weights of all lanes.
    unit, rest = np.empty(d + 1, np.int64), np.empty(d + 1, np.float32)
    wanted, bary = np.empty((LANES, d + 1), np.int64), np.empty((LANES, d + 1), np.float32)
    start = progress[0]
    # Each new vertex may come with a new site.
    most = 2 * LANES * (d + 1)
    while start < padded and count + most <= len(keys) and _TABLE_ROOM * (count + sites + most) <= len(table):
        for lane in range(LANES):
            p = start + lane
            if p < len(order):
                i = order[p]
                if given:
                    for k in range(d):
                        flat[(f + k) * LANES + lane] = features[i, k]
                    continue
                # Mostly the next pixel in its row, so the slow division is rare.
                x += i - last
                if x < 0 or x >= width:
                    y = i // width
                    x = i - y * width
                last = i
                flat[f * LANES + lane] = columns[x]
                flat[(f + 1) * LANES + lane] = rows[y]
                for k in range(2, d):
                    flat[(f + k) * LANES + lane] = colours[image[i, k - 2]]
            else:
                for k in range(d):
                    flat[(f + k) * LANES + lane] = 0
        total = 0.0 * load(batch, 0)
        for j in range(d, 0, -1):
            scaled = load(batch, f + j - 1) * scale[j - 1]
            store(batch, e + j, total - np.float32(j) * scaled)
            total = total + scaled
        store(batch, e, total)
        shift = 0.0 * total
        for j in range(d + 1):
            whole = nearest(load(batch, e + j) * part)
            store(batch, z + j, whole * step)
            store(batch, r + j, 0.0 * whole)
            shift = shift + whole
        for i in range(d):
            mine = load(batch, e + i) - load(batch, z + i)
            rank = load(batch, r + i)
            for j in range(i + 1, d + 1):
                below = less(mine, load(batch, e + j) - load(batch, z + j))
                rank = rank + below
                store(batch, r + j, load(batch, r + j) + (np.float32(1) - below))
            store(batch, r + i, rank)
        for j in range(d + 1):
            rank = load(batch, r + j) + shift
            # +(d + 1) below 0, −(d + 1) from d + 1 on.
            turn = less(rank, 0.0) * step - less(np.float32(d) + np.float32(0.5), rank) * step
            base = load(batch, z + j) + turn
            store(batch, r + j, rank + turn)
            store(batch, z + j, base)
            store(batch, f + j, (load(batch, e + j) - base) * part)
        for lane in range(LANES):
            key = origin
            for j in range(d + 1):
                rank = np.uint64(flat[(r + j) * LANES + lane])
                key += units[j] * np.int64(flat[(z + j) * LANES + lane])
                unit[rank], rest[rank] = units[j], flat[(f + j) * LANES + lane]
            bary[lane, 0] = rest[d] + (np.float32(1) - rest[0])
            for k in range(d + 1):
                if k > 0:
                    # From colour k − 1 to k: +1 everywhere, −(d + 1) more in the coordinate of rank d − k + 1.
                    key += unit_sum - (d + 1) * unit[d - k + 1]
                    bary[lane, k] = rest[d - k] - rest[d - k + 1]
                wanted[lane, k] = key
                prefetch(lines, _first_slot(len(table), key, colour_bits, window))
        for lane in range(min(LANES, padded - start)):
            p = start + lane
            for k in range(d + 1):
                key = wanted[lane, k]
                slot = find(table, key, colour_bits, window)
                if table[slot, 0] == 0:
                    table[slot, 0], table[slot, 1] = key, count
                    keys[count], mass[count], site_of[count] = key, 0, count
                    if colour_bits:
                        # No vertex has all of its colour fields 0: that key stands for the site itself.
                        site_key = key >> colour_bits << colour_bits
                        own = find(table, site_key, colour_bits, window)
                        if table[own, 0] == 0:
                            table[own, 0], table[own, 1] = site_key, sites
                            sizes[sites] = 0
                            sites += 1
                        site_of[count] = table[own, 1]
                        sizes[site_of[count]] += 1
                    vertex = count
                    count += 1
                else:
                    vertex = table[slot, 1]
                if p < len(order):
                    offsets[p, k] = vertex
                    weights[p, k] = bary[lane, k]
                    mass[vertex] += bary[lane, k]
        start += LANES
    progress[0], progress[1], progress[2] = start, count, sites


@numba.njit(nogil=True, cache=True)
def renumber(site_of: Any, sizes: Any, keys: Any, mass: Any, renumbered: Any, offsets: Any) -> Any:
    """Renumber vertices by site, in the order of first touch; return S + 1 bounds: where each site's vertices begin."""
    if len(sizes) == 0:
        for v in range(len(site_of)):
            renumbered[v] = v
        return np.zeros(1, np.int32)
    starts = np.zeros(len(sizes) + 1, np.int32)
    for s in range(len(sizes)):
        starts[s + 1] = starts[s] + sizes[s]
    filled = starts.copy()
    old_keys, old_mass = keys.copy(), mass.copy()
    for v in range(len(site_of)):
        new = filled[site_of[v]]
        filled[site_of[v]] += 1
        renumbered[v] = new
        keys[new], mass[new] = old_keys[v], old_mass[v]
    for p in range(offsets.shape[0]):
        for k in range(offsets.shape[1]):
            offsets[p, k] = renumbered[offsets[p, k]]
    return starts


@numba.njit(nogil=True, cache=True)
def chains(
    keys: Any, renumbered: Any, table: Any, lines: Any, step: Any, bounds: Any, colour_bits: Any, window: Any
) -> Any:
    """Find the chains of vertices whose keys differ by `step`, sorted into blocks by their first vertices.

    Within a block shorter chains come first, so that the processor can predict where they end.
    """
    vertices = len(keys)
    # One more entry, −1, so that following[−1] is −1: nothing follows a missing vertex.
    following = np.full(vertices + 1, -1, np.int32)
    begins = np.ones(vertices + 1, np.int8)
    for v in range(vertices):
        if v + _AHEAD < vertices:
            prefetch(lines, _first_slot(len(table), keys[v + _AHEAD] + step, colour_bits, window))
        slot = find(table, keys[v] + step, colour_bits, window)
        if table[slot, 0] != 0:
            w = renumbered[table[slot, 1]]
            following[v] = w
            begins[w] = 0
    chain = np.empty(vertices, np.int32)
    parts = np.zeros(len(bounds), np.int32)
    heads, ordered = np.empty(vertices + 1, np.int32), np.empty(vertices + 1, np.int32)
    lengths = np.empty(vertices + 1, np.int8)
    starts = np.empty(7, np.int64)
    size = 0
    for block in range(len(bounds) - 1):
        found = 0
        starts[:] = 0
        for v in range(bounds[block], bounds[block + 1]):
            # No branches, since none could be predicted. Lengths are 2, 3, 4, and 5 for all longer chains.
            b = following[following[v]]
            c = following[b]
            length = 2 + (b >= 0) + (c >= 0) + (following[c] >= 0)
            heads[found], lengths[found] = v, length
            is_head = begins[v] & (following[v] >= 0)
            found += is_head
            starts[length + 1] += is_head
        for length in range(2, 6):
            starts[length + 1] += starts[length]
        for k in range(found):
            ordered[starts[lengths[k]]] = heads[k]
            starts[lengths[k]] += 1
        for k in range(found):
            v = ordered[k]
            while following[v] >= 0:
                chain[size] = v
                size += 1
                v = following[v]
            chain[size] = ~v
            size += 1
        parts[block + 1] = size
    return chain[:size].copy(), parts


@numba.njit(nogil=True, cache=True)
def blur_numbers(chain: Any, values: Any) -> None:
    """Blur one direction in place, for one number per vertex."""
    before = np.float32(0)
    for i in range(len(chain)):
        v = chain[i]
        last = v < 0
        v = ~v if last else v
        now = values[v]
        after = np.float32(0)
        if not last:
            after = values[chain[i + 1] if chain[i + 1] >= 0 else ~chain[i + 1]]
        values[v] = now + np.float32(0.5) * (before + after)
        before = np.float32(0) if last else now


@numba.njit(nogil=True, cache=True)
def normalise(offsets: Any, weights: Any, mass: Any, scale: Any, weight: Any) -> None:
    """Multiply weights by √(weight · scale · n), n = 1 / the filter's response to ones: symmetric normalisation."""
    for p in range(offsets.shape[0]):
        answer = np.float32(0)
        for k in range(offsets.shape[1]):
            answer += weights[p, k] * scale * mass[offsets[p, k]]
        factor = np.sqrt(scale * weight / (answer + np.float32(1e-20)))
        for k in range(offsets.shape[1]):
            weights[p, k] *= factor
