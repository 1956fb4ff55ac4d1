"""Ids of files, by their paths."""

import unicodedata
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

PART = 2**18
"""Names at a time; what is made of them in Python takes some hundred bytes each."""
_ENDING = r"([^/])\.[^./]*$"


def with_ids(keys: pa.Array) -> pa.Array:
    """The ids (large_string) of files, in the order of `keys`, all the keys of a folder: no id comes twice.

    An id is the path without the name's ending. But files that have it in common, or differ in upper and lower case
    or in how Unicode composes letters alone, all keep their whole path, and so do others whose id that would be. 10
    million sorted keys took 10 to 13 s on two busy cores (41 s with letters beyond ASCII in each) and 0.8 GB beside
    their own memory.
    """
    keys = keys.cast(pa.large_string())
    parts = [keys[at : at + PART] for at in range(0, len(keys), PART)]
    folded = pa.chunked_array([_folded(_without_endings(part)) for part in parts], pa.large_string())
    shared = _shared(folded)
    # Only what has an ending still, such as a.jpg of a.jpg.png, may be the whole path of another.
    dotted = np.concatenate(
        [np.zeros(0, np.int64)]
        + [
            np.flatnonzero(pc.match_substring_regex(part, r"\.[^/]*$").to_numpy(zero_copy_only=False)) + i * PART
            for i, part in enumerate(folded.chunks)
        ]
    )
    if len(dotted) and shared.any():
        candidates = folded.take(dotted)
        while True:
            kept = _folded(keys.filter(pa.array(shared)))
            hit = pc.is_in(candidates, value_set=kept.filter(pc.is_in(kept, value_set=candidates.combine_chunks())))
            new = dotted[np.asarray(hit)]
            if shared[new].all():
                break
            shared[new] = True
    del folded
    chosen = [
        pc.if_else(pa.array(shared[i * PART : (i + 1) * PART]), part, _without_endings(part))
        for i, part in enumerate(parts)
    ]
    return pa.chunked_array(chosen, pa.large_string()).combine_chunks()


def _without_endings(paths: pa.Array) -> pa.Array:
    return pc.replace_substring_regex(paths, _ENDING, r"\1")


def without_ending(path: str) -> str:
    """A path without the ending of its name."""
    return _without_endings(pa.array([path], pa.large_string()))[0].as_py()


def _folded(paths: pa.Array) -> pa.Array:
    """As file systems compare that do not tell upper from lower case."""
    if pc.all(pc.string_is_ascii(paths)).as_py() is not False:
        return pc.ascii_lower(paths)
    names = (unicodedata.normalize("NFC", path.casefold()) for path in paths.to_pylist())
    return pa.array(names, pa.large_string())


def _shared(names: pa.ChunkedArray) -> NDArray[np.bool_]:
    """bool [n]: whether there is another one that is equal."""
    order = pc.sort_indices(names).to_numpy()
    shared = np.zeros(len(order), bool)
    for window in _windows(len(order)):
        sorted_names = names.take(order[window]).combine_chunks()
        same = pc.equal(sorted_names[1:], sorted_names[:-1]).to_numpy(zero_copy_only=False)
        shared[order[window][1:][same]] = True
        shared[order[window][:-1][same]] = True
    return shared


def _windows(count: int) -> Iterator[slice]:
    """Slices of 0..count, each of which has its first in common with the one before."""
    return (slice(at, at + PART + 1) for at in range(0, count, PART))
