"""What it costs to find out what is left of a batch prediction: its names and its journal, no image."""

import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from deeplab_ray.outputs.journal import SCHEMA, Journal, missing
from deeplab_ray.storage.location import locate

_PART = 100_000


@dataclass(frozen=True)
class Costs:
    """Of ids that are all done but one in a thousand."""

    seconds: float
    """To read the journal and compare."""
    mib: float
    """Largest size of the process, Python, Arrow and the names of the images included."""
    left: int
    """Images found to be left."""


def measure(ids: int) -> Costs:
    """Write a journal as a job that was killed leaves it, in files of 100,000 rows, and find out what is missing."""
    with tempfile.TemporaryDirectory(prefix="deeplab-ray-resume-") as folder:
        journal = Journal(locate(folder))
        for number, keys in enumerate(_keys(ids)):
            done = [key for place, key in enumerate(keys.to_pylist()) if place % 1000]
            columns = {"key": done, "id": [key.removesuffix(".png") for key in done]}
            nothing = {name: [None] * len(done) for name in ("stage", "reason", "measured")}
            sink = pa.BufferOutputStream()
            pq.write_table(pa.table(columns | nothing, schema=SCHEMA), sink, compression="zstd")
            (journal.folder / f"{number:05d}.parquet").write_bytes(sink.getvalue().to_pybytes())
        keys = pa.chunked_array(_keys(ids))
        started = time.monotonic()
        left = missing(keys, (table["key"] for table in journal.tables(["key"])))
        seconds = time.monotonic() - started
    return Costs(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, len(left))


def _keys(count: int) -> Iterator[pa.Array]:
    """Names as Cityscapes has them."""
    for start in range(0, count, _PART):
        numbers = range(start, min(count, start + _PART))
        names = [f"train/city{n % 50:02d}/city{n % 50:02d}_{n:08d}_leftImg8bit.png" for n in numbers]
        yield pa.array(names, pa.string())
