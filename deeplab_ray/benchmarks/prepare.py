"""How fast a dataset is prepared, and that the memory which it takes does not depend on how large it is.

The set is drawn: a few street scenes, shifted sideways by one pixel after another, so that no two images are the same.
"""

import contextlib
import io
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from deeplab_ray.on_ray.prepare import prepare
from deeplab_ray.scenes.draw import render

_SCENES = 10
_LOOK_EVERY_S = 0.5


@dataclass(frozen=True)
class Row:
    """One preparation."""

    cores: int
    images: int
    images_per_s: float
    """From the first look at a file to the published manifest; the workers had been started."""
    mb_per_s: float
    """Of image and label files."""
    peak_mib: float
    """Memory of the driver and of all workers (what they share is counted once), at its highest."""


class Drawn:
    """A drawn set in a folder of its own, inside a `with`."""

    def __init__(self, images: int, height: int, width: int) -> None:
        self._size = images, height, width
        self._folder = tempfile.TemporaryDirectory(prefix="deeplab-ray-prepare-")
        self.source = Path(self._folder.name) / "source"
        self.output = Path(self._folder.name) / "output"
        self.bytes = 0

    def __enter__(self) -> "Drawn":
        images, height, width = self._size
        scenes = [render(0, number, height, width) for number in range(_SCENES)]
        for tree in ("leftImg8bit", "gtFine"):
            (self.source / tree / "train" / "drawn").mkdir(parents=True)
        for number in range(images):
            image, label = (np.roll(pixels, number // _SCENES, axis=1) for pixels in scenes[number % _SCENES])
            self._write(f"leftImg8bit/train/drawn/{number:06d}_leftImg8bit.png", image)
            self._write(f"gtFine/train/drawn/{number:06d}_gtFine_labelIds.png", label)
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def _write(self, name: str, pixels: np.ndarray) -> None:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG", compress_level=1)
        self.bytes += (self.source / name).write_bytes(file.getvalue())


def measure(cores: int, images: int, height: int, width: int, shard_mb: float) -> Row:
    """Prepare so many drawn images. Ray must run, with so many CPUs."""
    with Drawn(cores, 64, 64) as few:
        # Starts the workers.
        prepare("scenes", str(few.source), str(few.output))
    with Drawn(images, height, width) as drawn, _Peak() as peak:
        started = time.monotonic()
        prepare("scenes", str(drawn.source), str(drawn.output), shard_mb=shard_mb)
        seconds = time.monotonic() - started
        return Row(cores, images, images / seconds, drawn.bytes / 1e6 / seconds, peak.mib)


def table(rows: Sequence[Row]) -> str:
    """A line for each preparation."""
    lines = [f"{'cores':>5}{'images':>8}{'images/s':>10}{'MB/s':>8}{'peak MiB':>10}"]
    lines += [
        f"{row.cores:>5}{row.images:>8}{row.images_per_s:>10.1f}{row.mb_per_s:>8.1f}{row.peak_mib:>10.0f}"
        for row in rows
    ]
    return "\n".join(lines)


class _Peak:
    """Watches memory while its block runs."""

    mib = 0.0

    def __enter__(self) -> "_Peak":
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while True:
            self.mib = max(self.mib, sum(_memory(each) for each in (me, *_workers(me))))
            if self._over.wait(_LOOK_EVERY_S):
                return


def _workers(me: psutil.Process) -> Iterator[psutil.Process]:
    for each in me.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "".join(each.cmdline()).startswith("ray::"):
                yield each


def _memory(process: psutil.Process) -> float:
    """MiB that it does not share, and its part of what it does."""
    try:
        held = process.memory_full_info()
    except psutil.Error:
        return 0.0
    return getattr(held, "pss", held.rss) / 2**20
