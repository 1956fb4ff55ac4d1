"""Measure the CRF's backends against pydensecrf: time, agreement, memory and throughput, in one run."""

import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deeplab_ray.crf.model import TOLERANCE, Backend, DenseCRF
from deeplab_ray.crf.params import CRFParams
from deeplab_ray.errors import UserError
from deeplab_ray.scenes import draw as scenes

Size = Literal["camvid", "voc", "cityscapes"]
Letter = Literal["A", "B", "C"]

SIZES: dict[Size, tuple[int, int, int]] = {
    "camvid": (360, 480, 11),
    "voc": (375, 500, 21),
    "cityscapes": (1024, 2048, 19),
}
"""Height, width and classes."""
PARAMS: dict[Letter, CRFParams] = {
    "A": CRFParams(4, 67, 3, 3, 3, 10),
    "B": CRFParams(4, 49, 5, 3, 3, 10),
    "C": CRFParams(4, 121, 5, 3, 3, 10),
}
ENDINGS = (".png", ".jpg", ".jpeg")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Case:
    """An image uint8 RGB H×W×3 with probabilities float32 C×H×W."""

    name: str
    image: NDArray[np.uint8]
    probabilities: NDArray[np.float32]


@dataclass(frozen=True)
class Rival:
    """A backend with its settings."""

    name: str
    backend: Backend
    tolerance: float = TOLERANCE

    def make(self, params: CRFParams) -> DenseCRF:
        """Make a CRF with these settings."""
        return DenseCRF(params, self.backend, tolerance=self.tolerance)


REFERENCE = Rival("pydensecrf", "pydensecrf")
RIVALS = (REFERENCE, Rival("numba", "numba"), Rival("numba, no skipping", "numba", 0.0), Rival("torch", "torch"))


def scene_case(size: Size, seed: int = 0) -> Case:
    """Draw a street scene, and imitate what a network of middling quality would say about it."""
    height, width, classes = SIZES[size]
    image, ids = scenes.render(seed, 0, height, width)
    return Case(size, image, imitate(np.searchsorted(sorted(scenes.CLASS_IDS.values()), ids), classes, seed))


def folder_cases(folder: str, classes: int, limit: int) -> Iterator[Case]:
    """Yield the folder's first images, with probabilities made from their brightness, since there are no labels.

    Raises UserError if the folder holds no images.
    """
    files = sorted(path for path in Path(folder).glob("*") if path.suffix.lower() in ENDINGS)[:limit]
    if not files:
        raise UserError(f"no images ({', '.join(ENDINGS)}) in {folder}: give a folder that holds some")
    for file in files:
        image = np.asarray(Image.open(file).convert("RGB"))
        yield Case(file.name, image, imitate(image.mean(axis=2).astype(int) * 6 // 256, classes, 0))


def imitate(labels: NDArray[Any], classes: int, seed: int) -> NDArray[np.float32]:
    """Imitate the probabilities of a network at stride 8: labels H×W, smoothed, with smooth noise → float32 C×H×W.

    Labels are shifted in the middle and the right third of the image, so that more classes occur.
    """
    height, width = labels.shape
    labels = (labels + np.arange(width) * 3 // width * 7) % classes
    radius = max(1, height // 17)
    noise = np.random.default_rng(seed).normal(size=(classes, height // 8 + 2, width // 8 + 2)).astype(np.float32)
    scores = np.empty((classes, height, width), np.float32)
    for c in range(classes):
        scores[c] = 6 * _box(_box((labels == c).astype(np.float32), radius), radius)
        scores[c] += 0.7 * np.asarray(Image.fromarray(noise[c]).resize((width, height), Image.Resampling.BILINEAR))
    scores -= scores.max(axis=0)
    np.exp(scores, out=scores)
    return scores / scores.sum(axis=0)


def _box(plane: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """Return the mean of every pixel's square window, which is cut off at the borders; H×W → float32 H×W."""
    for axis in (0, 1):
        sums = np.insert(np.cumsum(plane, axis=axis, dtype=np.float64), 0, 0, axis=axis)
        at = np.arange(plane.shape[axis])
        high, low = np.minimum(at + radius + 1, len(at)), np.maximum(at - radius, 0)
        shape = (-1, 1) if axis == 0 else (1, -1)
        plane = ((sums.take(high, axis) - sums.take(low, axis)) / (high - low).reshape(shape)).astype(np.float32)
    return plane


def compare(case: Case, params: CRFParams, rivals: tuple[Rival, ...], repeats: int) -> list[dict[str, Any]]:
    """Measure each rival's median seconds, in turn, and how its probabilities and labels differ from the first's."""
    crfs = [rival.make(params) for rival in rivals]
    beliefs = [crf.refine(case.image, case.probabilities) for crf in crfs]
    seconds: list[list[float]] = [[] for _ in rivals]
    for _ in range(repeats):
        for crf, taken in zip(crfs, seconds, strict=True):
            started = time.perf_counter()
            crf.refine(case.image, case.probabilities)
            taken.append(time.perf_counter() - started)
    first = statistics.median(seconds[0])
    return [
        {
            "case": case.name,
            "rival": rival.name,
            "seconds": round(statistics.median(taken), 4),
            "times_faster": round(first / statistics.median(taken), 2),
            "largest_difference": float(np.abs(q - beliefs[0]).max()),
            "labels_agree": float((q.argmax(0) == beliefs[0].argmax(0)).mean()),
        }
        for rival, taken, q in zip(rivals, seconds, beliefs, strict=True)
    ]


def throughput(case: Case, params: CRFParams, rival: Rival, images: int, processes: int) -> float:
    """Measure images per second of this many processes together, with one thread each."""
    context = multiprocessing.get_context("spawn")
    gate, times = context.Barrier(processes), context.Queue()
    workers = [context.Process(target=_work, args=(case, params, rival, images, gate, times)) for _ in range(processes)]
    return processes * images / max(_run(workers, times))


def memory(case: Case, params: CRFParams, rival: Rival) -> float:
    """Measure the peak memory in MiB that refining takes in a process of its own, without inputs and imports."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    return _run([context.Process(target=_weigh, args=(case, params, rival, results))], results)[0]


def _run(workers: list[Any], results: Any) -> list[float]:
    """Start the processes with one thread each, and collect one number from each."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        for worker in workers:
            worker.start()
        return [results.get(timeout=600) for _ in workers]
    finally:
        for worker in workers:
            worker.join(5)
            worker.kill()
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _work(case: Case, params: CRFParams, rival: Rival, images: int, gate: Any, times: Any) -> None:
    crf = rival.make(params)
    crf.labels(case.image, case.probabilities)
    gate.wait(600)
    started = time.perf_counter()
    for _ in range(images):
        crf.labels(case.image, case.probabilities)
    times.put(time.perf_counter() - started)


def _weigh(case: Case, params: CRFParams, rival: Rival, results: Any) -> None:
    crf = rival.make(params)
    corner = case.image[:8, :8]
    classes = len(case.probabilities)
    crf.refine(corner, np.full((classes, *corner.shape[:2]), 1 / classes, np.float32))
    # Make Linux forget the peak so far.
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = _status("VmRSS")
    crf.refine(case.image, case.probabilities)
    results.put((_status("VmHWM") - before) / 1024)


def _status(name: str) -> int:
    """Return an entry of this process's status, in kilobytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def table(rows: list[dict[str, Any]]) -> str:
    """Format the results as lines of text."""
    head = f"{'case':<24}{'CRF':>4} {'rival':<20}{'s':>9}{'× faster':>10}{'max |ΔQ|':>11}{'labels agree':>14}"
    memory = f"{'MiB':>7}{'images/s':>10}"
    lines = [head + memory]
    for row in rows:
        line = f"{row['case'][-24:]:<24}{row['params']:>4} {row['rival']:<20}{row['seconds']:>9.3f}"
        line += f"{row['times_faster']:>10.2f}{row['largest_difference']:>11.1e}{row['labels_agree']:>14.6f}"
        lines.append(line + f"{row['peak_mib']:>7.0f}{row['images_per_second']:>10.2f}")
    return "\n".join(lines)
