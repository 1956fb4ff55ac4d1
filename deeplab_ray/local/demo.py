"""The demo: runs every part once, on one machine, with nothing but what the package brings."""

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from deeplab_ray import cli
from deeplab_ray.config.recipe import Recipe
from deeplab_ray.config.resources import TrainingResources
from deeplab_ray.crf import CRFParams, DenseCRF
from deeplab_ray.errors import UserError
from deeplab_ray.local.s3_server import EmbeddedS3
from deeplab_ray.machine import usable_cpus
from deeplab_ray.on_ray import session
from deeplab_ray.presets import lookup as presets
from deeplab_ray.scenes import draw as scenes
from deeplab_ray.storage.access import check_folder
from deeplab_ray.storage.location import Location, locate

PRESET = "scenes-resnet18-largefov"
WORKERS = 2
SCENES = {"train": 200, "val": 40}
# Not a seed with which the preset was tuned.
SEED = 31
HEIGHT, WIDTH = 128, 256
_STRIP_ROWS = 3
_ARTISTS = 2
# Variables of a user's shell or of `ray job submit` that must not reach the demo's own Ray and S3.
_NOT_OURS = ("RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR", "AWS_PROFILE")


def run(output: str, iterations: int) -> dict[str, Any]:
    """Draw, prepare, train, evaluate, and write a report into the local folder `output`; return the job's result.

    Starts an S3 server and a Ray of its own, and ends both, even if it is interrupted. Raises UserError if `output` is
    on S3 or cannot be created.
    """
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:4.0f} s] {text}", flush=True)

    preset = presets.get(PRESET)
    recipe = replace(preset.recipe, solver=replace(preset.recipe.solver, iterations=iterations))
    resources = replace(preset.resources, workers=WORKERS)
    place = locate(output)
    if place.is_s3:
        raise UserError(f"--output {output} is on S3, and the demo's S3 server ends with the demo: give a local folder")
    check_folder(place)
    for name in _NOT_OURS:
        os.environ.pop(name, None)
    try:
        with EmbeddedS3() as s3, tempfile.TemporaryDirectory(prefix="deeplab-ray-demo-") as folder:
            os.environ.update(s3.environment)
            s3.make_bucket("demo")
            say(f"S3 server is up at {s3.environment['AWS_ENDPOINT_URL']}")
            try:
                with _beside(_compile, len(preset.classes)):
                    result = _steps(Path(folder), place, recipe, resources, say)
            finally:
                # Without an import statement: Ctrl-C may have come in the middle of importing Ray.
                if "ray" in sys.modules and hasattr(sys.modules["ray"], "shutdown"):
                    sys.modules["ray"].shutdown()
    finally:
        say("Ray and the S3 server are shut down")
    return result | {"seconds": round(time.monotonic() - started)}


@contextlib.contextmanager
def _beside(work: Callable[..., None], *arguments: Any) -> Iterator[BaseProcess]:
    """Run `work(*arguments)` in another process while the block runs; kill that process at the block's end."""
    process = multiprocessing.get_context("spawn").Process(target=work, args=arguments, daemon=True)
    # Ctrl-C reaches that process, too, but only the parent is to end it: so it inherits a blocked SIGINT. Until the
    # block is lifted here, a Ctrl-C waits.
    resource_tracker.ensure_running()  # started now, because it unblocks SIGINT when it starts
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        yield process
    finally:
        process.kill()
        process.join()


def _draw(folder: Path, part: int) -> None:
    """Draw every _ARTISTS-th scene."""
    for split, count in SCENES.items():
        for number in range(part, count, _ARTISTS):
            scenes.write_scene(locate(folder), split, number, HEIGHT, WIDTH, SEED)


def _compile(classes: int) -> None:
    """Compile the CRF's kernels, using only CPU time that is idle.

    Evaluation's actors need them much later; if they are not compiled by then, the actors wait.
    """
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(19)
    DenseCRF(CRFParams()).warm(classes)


def _steps(
    folder: Path, output: Location, recipe: Recipe, resources: TrainingResources, tell: Callable[[str], None]
) -> dict[str, Any]:
    def say(text: str) -> None:
        cli.check_interrupted()
        tell(text)

    say("drawing street scenes, starting Ray")
    with contextlib.ExitStack() as drawing:
        artists = [drawing.enter_context(_beside(_draw, folder, part)) for part in range(_ARTISTS)]
        session.start_ray(cpus=max(2, usable_cpus()))
        from deeplab_ray.on_ray.infer.evaluate import evaluate
        from deeplab_ray.on_ray.infer.evaluation import publish_report
        from deeplab_ray.on_ray.prepare import prepare
        from deeplab_ray.on_ray.train import driver as trainer
        from deeplab_ray.report import format_table, gallery_strip

        cli.check_interrupted()
        for artist in artists:
            artist.join()
            if artist.exitcode:
                raise RuntimeError(f"drawing the scenes ended with exit code {artist.exitcode}")
    say(f"drew {SCENES['train']} scenes to train on and {SCENES['val']} to validate on; preparing shards")
    prepare("scenes", str(folder), "s3://demo/scenes", rows_per_shard=100)

    say(f"training {PRESET} with {WORKERS} DDP workers for {recipe.solver.iterations} iterations")
    trained = trainer.train(recipe, resources, "s3://demo/scenes", "s3://demo/runs/demo")
    say(f"trained; evaluating {trained.checkpoint}")
    result = evaluate(trained.checkpoint, "s3://demo/scenes", "val")
    report = publish_report(result, output.uri)
    strip = gallery_strip(result.worst[-_STRIP_ROWS:], result.classes)
    strip.save(Path(output.path) / "strip.png")
    print(format_table(result.classes.names, result.confusion, result.confusion_crf))
    say(f"open {report}")
    return {
        "miou": result.miou,
        "miou_crf": result.miou_crf,
        "images": result.images,
        "workers": WORKERS,
        "report": report,
    }
