"""The chain of batch prediction against a bare loop over the same functions on the same cores.

Both read images from disk, score them, apply the CRF, and write label files. The loop runs in as many processes as
there are cores, with one thread each; the chain as jobs/predict.py runs it. What is compared is the time from the first
image to the last: starting takes both a while, and is told apart.
"""

import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from deeplab_ray.config.recipe import Recipe
from deeplab_ray.config.resources import InferenceResources
from deeplab_ray.crf.params import CRFParams
from deeplab_ray.inputs import open_inputs
from deeplab_ray.labels import ClassTable
from deeplab_ray.machine import usable_cpus
from deeplab_ray.models.configs import DeepLabV2Config
from deeplab_ray.on_ray.infer import predict
from deeplab_ray.on_ray.infer.delivery import begin
from deeplab_ray.on_ray.infer.stages import Scorer
from deeplab_ray.on_ray.infer.work import Work
from deeplab_ray.outputs.formats import make
from deeplab_ray.storage.location import locate

_CLASSES = 19
_TITLES = ("ray::Predict", "ray::Refine")
"""How the workers' processes call themselves."""
_EARLY = 50
"""After so many images memory is looked at first."""


@dataclass(frozen=True)
class Comparison:
    """Rates are in images a second, from the first image to the last."""

    loop_images_per_s: float
    chain_images_per_s: float
    loop_cpu_seconds: float
    """CPU time of an image, of all processes."""
    chain_cpu_seconds: float
    """The same, Ray's own processes included."""
    first_image_s: float
    """From the chain's start, Ray running, to its first image."""
    loop_first_image_s: float
    bytes_per_image: int
    """What crosses the object store."""
    early_mib: float
    """Memory of driver and actors after 50 images, what they share with the object store left out."""
    late_mib: float
    """The same after the last."""

    @property
    def ratio(self) -> float:
        return self.chain_images_per_s / self.loop_images_per_s


def measure(images: int, height: int, width: int) -> Comparison:
    """Compare on so many drawn scenes, with ResNet-18 of random weights and 19 classes. Ray must run."""
    with tempfile.TemporaryDirectory(prefix="deeplab-ray-predict-") as name:
        folder = Path(name)
        _prepare(folder, images, height, width)
        loop = _loop(folder)
        chain = _chain(folder)
    return Comparison(loop[0], chain[0], loop[1], chain[1], chain[2], loop[2], *chain[3:])


def table(found: Comparison) -> str:
    """Both in two lines, and what else was measured."""
    return "\n".join(
        [
            f"{'':<10}{'images/s':>10}{'CPU s/image':>13}{'first image s':>15}",
            f"{'bare loop':<10}{found.loop_images_per_s:>10.3f}{found.loop_cpu_seconds:>13.3f}"
            f"{found.loop_first_image_s:>15.1f}",
            f"{'chain':<10}{found.chain_images_per_s:>10.3f}{found.chain_cpu_seconds:>13.3f}{found.first_image_s:>15.1f}",
            f"chain / loop {found.ratio:.2f}; {found.bytes_per_image / 1e6:.2f} MB an image through the object store; "
            f"memory {found.early_mib:.0f} MiB after {_EARLY} images, {found.late_mib:.0f} at the end",
        ]
    )


def _prepare(folder: Path, images: int, height: int, width: int) -> None:
    """Draw the images, and write a checkpoint as an import gives it."""
    import torch

    from deeplab_ray.models import checkpoint
    from deeplab_ray.models.networks import create
    from deeplab_ray.runs import CheckpointMeta, Provenance
    from deeplab_ray.scenes import draw

    draw.draw(locate(folder / "scenes"), {"val": images}, height, width, seed=0)
    recipe = Recipe(DeepLabV2Config("resnet18", "largefov", weights="random"), crf=CRFParams())
    torch.manual_seed(0)
    network = create(recipe.network, _CLASSES)
    network.calibrate(torch.randint(0, 256, (4, 65, 65, 3), dtype=torch.uint8))
    names = tuple(f"class {number}" for number in range(_CLASSES))
    classes = ClassTable(names, tuple((number, number, number) for number in range(_CLASSES)), tuple(range(_CLASSES)))
    (folder / "checkpoint").mkdir()
    checkpoint.save(folder / "checkpoint", network, None, CheckpointMeta(Provenance(recipe), 0, classes, []))


def _request(folder: Path, output: str) -> predict.Request:
    place = str(folder / "checkpoint")
    return predict.check_request(place, str(folder / "scenes" / "leftImg8bit"), str(folder / output))


def _loop(folder: Path) -> tuple[float, float, float]:
    """Rate, CPU seconds of an image, seconds to the first image."""
    keys = open_inputs(str(folder / "scenes" / "leftImg8bit")).keys().to_pylist()
    cores = usable_cpus()
    context = multiprocessing.get_context("spawn")
    started = time.time()
    with context.Pool(cores) as pool:
        parts = pool.starmap(_work, [(folder, keys[part::cores]) for part in range(cores)], chunksize=1)
    first, last = min(part[0] for part in parts), max(part[1] for part in parts)
    # In the time from the first image of all on, the others' first ones are done as well.
    rate = (len(keys) - 1) / (last - first)
    return rate, sum(part[2] for part in parts) / (len(keys) - cores), first - started


def _work(folder: Path, keys: Sequence[str]) -> tuple[float, float, float]:
    """One process of the bare loop: when its first and its last image were done, and CPU seconds between."""
    import torch

    from deeplab_ray.on_ray.infer import steps
    from deeplab_ray.on_ray.infer.stages import Target

    request = _request(folder, "loop")
    scorer = Scorer.of(request.checkpoint, request.recipe, request.classes)
    read = steps.Read(request.order.inputs, request.max_pixels)
    network, crf = steps.Predict(scorer, "cpu"), steps.Refine(request.classes, request.crf)
    torch.set_num_threads(1)
    write = steps.Write(Target(locate(folder / "loop"), (make("index", _table(request)),)))
    first = spent = 0.0
    for key in keys:
        row = {"key": key, "id": key.rsplit(".", 1)[0]}
        for each in (read, network, crf, write):
            row = each.one(row)
        if not first:
            first, spent = time.time(), time.process_time()
    return first, time.time(), time.process_time() - spent


def _table(request: predict.Request) -> ClassTable:
    return ClassTable.from_json(request.order.record["classes"])


def _chain(folder: Path) -> tuple[float, float, float, int, float, float]:
    """Rate, CPU seconds of an image, seconds to the first image, bytes, memory after some images and at the end."""
    request = _request(folder, "chain")
    begun = begin(request.order)
    stages, unit = request.stages(begun, InferenceResources())
    me = psutil.Process()
    spent = early = late = 0.0
    with Work(stages) as work:
        for number, _ in enumerate(work.run(begun.todo, unit, begun.journal, keep=True), 1):
            if number == 1:
                spent = _cpu(me)
            if number == min(_EARLY, len(begun.todo)):
                early = _memory(me)
            if number == len(begun.todo):
                spent, late = _cpu(me) - spent, _memory(me)
    assert work.summary
    summary = work.summary
    bytes_per_image = summary.stages[0].bytes_per_image
    return summary.images_per_s, spent / (summary.images - 1), summary.first_image_s, bytes_per_image, early, late


def _cpu(me: psutil.Process) -> float:
    """CPU seconds of the driver, the actors and Ray's own processes."""
    return sum(sum(_ask(each, "cpu_times")[:4]) for each in (me, *me.children(recursive=True)))


def _memory(me: psutil.Process) -> float:
    """MiB of driver and actors, without what they share."""
    actors = [each for each in me.children(recursive=True) if "".join(_ask(each, "cmdline")).startswith(_TITLES)]
    held = [_ask(each, "memory_info") for each in (me, *actors)]
    return sum((each.rss - each.shared) / 2**20 for each in held if each)


def _ask(process: psutil.Process, what: str) -> Any:
    try:
        return getattr(process, what)()
    except psutil.Error:
        return ()
