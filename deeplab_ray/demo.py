"""The demo: every part once, on one machine, with nothing but what the package brings."""

import contextlib
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from deeplab_ray import cli, datasets, presets
from deeplab_ray.crf import CRFParams, DenseCRF
from deeplab_ray.datasets import scenes
from deeplab_ray.embedded_s3 import EmbeddedS3
from deeplab_ray.storage import locate

PRESET = "scenes-resnet18-largefov"
WORKERS = 2
SCENES = {"train": 200, "val": 40}
# No seed on which the preset was found.
SEED = 11
HEIGHT, WIDTH = 128, 256
_STRIP_ROWS = 3


def run(output: str, iterations: int) -> dict[str, Any]:
    """Draw, prepare, train, evaluate and report into the folder `output`; returns what the job prints as RESULT.

    Starts an S3 server and a Ray of its own, and ends both, also when it is interrupted.
    """
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:4.0f} s] {text}", flush=True)

    with EmbeddedS3() as s3, tempfile.TemporaryDirectory(prefix="deeplab-ray-demo-") as folder:
        os.environ.update(s3.environment)
        os.environ.pop("RAY_ADDRESS", None)
        s3.make_bucket("demo")
        say(f"S3 server is up at {s3.environment['AWS_ENDPOINT_URL']}")
        try:
            with _compiling(len(datasets.get("scenes").classes)):
                result = _steps(Path(folder), output, iterations, say)
            return result | {"seconds": round(time.monotonic() - started)}
        finally:
            _stop_ray()
            say("Ray and the S3 server are shut down")


def _stop_ray() -> None:
    import ray

    ray.shutdown()


@contextlib.contextmanager
def _drawing(folder: Path) -> Iterator[None]:
    """Draw the scenes into the folder in another process, beside what the block does; they are there at its end."""
    process = multiprocessing.get_context("spawn").Process(target=_draw, args=(folder,))
    process.start()
    try:
        yield
        process.join()
        if process.exitcode:
            raise RuntimeError(f"drawing the scenes ended with exit code {process.exitcode}")
    finally:
        process.kill()
        process.join()


def _draw(folder: Path) -> None:
    # Ctrl-C reaches this process, too; it is the parent that ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    scenes.draw(locate(folder), SCENES, HEIGHT, WIDTH, SEED)


@contextlib.contextmanager
def _compiling(classes: int) -> Iterator[None]:
    """Compile the CRF's kernels in another process, which takes only time that nobody else wants, beside the block.

    It is long done when evaluation's actors want them; if it is not, they wait for it.
    """
    process = multiprocessing.get_context("spawn").Process(target=_compile, args=(classes,), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def _compile(classes: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(19)
    DenseCRF(CRFParams()).warm(classes)


def _steps(folder: Path, output: str, iterations: int, say: Any) -> dict[str, Any]:
    say("drawing street scenes, starting Ray")
    with _drawing(folder):
        cli.start_ray(cpus=max(2, os.cpu_count() or 1))
        from deeplab_ray import evaluation
        from deeplab_ray.prepare import prepare
        from deeplab_ray.report import format_table, gallery_strip
        from deeplab_ray.training import trainer

    say(f"drew {SCENES['train']} scenes to train on and {SCENES['val']} to validate on; preparing shards")
    prepare("scenes", str(folder), "s3://demo/scenes", rows_per_shard=100)

    config = presets.get(PRESET).config
    config = replace(
        config,
        solver=replace(config.solver, iterations=iterations),
        runtime=replace(config.runtime, workers=WORKERS),
    )
    say(f"training {PRESET} with {WORKERS} DDP workers for {iterations} iterations")
    trained = trainer.run(config, "s3://demo/scenes", "s3://demo/runs/demo")
    say(f"trained; evaluating {trained.checkpoint}")
    result = evaluation.evaluate(trained.checkpoint, "s3://demo/scenes", "val")
    report = evaluation.publish_report(result, output)
    strip = gallery_strip(result.worst[-_STRIP_ROWS:], result.dataset)
    strip.save(Path(output) / "strip.png")
    print(format_table(result.dataset.classes, result.confusion, result.confusion_crf))
    say(f"open {report}")
    return {
        "miou": result.miou,
        "miou_crf": result.miou_crf,
        "images": result.images,
        "workers": WORKERS,
        "report": report,
    }
