"""Training on Ray Train, on a real cluster and a real S3: what must not depend on workers, failures and restarts."""

import dataclasses
import functools
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import ray.train
import tiny
import torch
from ray import cloudpickle
from ray.util.state import list_actors

from deeplab_ray import runs
from deeplab_ray.config.io import from_json, to_json
from deeplab_ray.errors import JobError, UserError
from deeplab_ray.images import decode_image, decode_label
from deeplab_ray.local.s3_server import EmbeddedS3
from deeplab_ray.models import checkpoint
from deeplab_ray.models.networks.deeplab_v2 import resolve
from deeplab_ray.on_ray.prepare import prepare
from deeplab_ray.on_ray.train import driver as trainer
from deeplab_ray.on_ray.train.request import check_request
from deeplab_ray.scenes import draw as scenes
from deeplab_ray.shards import open_split
from deeplab_ray.storage.location import locate

pytestmark = pytest.mark.slow

# Validation at the end only; five images over two workers do not divide evenly.
RECIPE, RESOURCES = tiny.recipe(), tiny.resources(workers=2, validate_every=6)
JOB = Path(__file__).parents[3] / "jobs" / "train.py"


class KillWorker(ray.train.UserCallback):
    """Kills a worker of the run when iteration `at` was reported; notes reports and failures in `log`, one line each.

    It lives in the process of Ray Train's controller.
    """

    def __init__(self, at: int, log: Path) -> None:
        self.at, self.log = at, log

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        iteration = metrics[0]["iteration"]
        with self.log.open("a") as file:
            file.write(f"{iteration}\n")
        if iteration == self.at:
            # Our Ray's address: others may run on this machine.
            address = ray.get_runtime_context().gcs_address
            workers = list_actors(address, [("class_name", "=", "RayTrainWorker"), ("state", "=", "ALIVE")])
            os.kill(workers[-1].pid, signal.SIGKILL)

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        with self.log.open("a") as file:
            file.write("failed\n")

    def noted(self) -> list[str]:
        return self.log.read_text().split()


# Ray's processes cannot import this file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def reference(prepared_scenes: str) -> trainer.TrainingResult:
    """An uninterrupted run."""
    return trainer.train(RECIPE, RESOURCES, prepared_scenes, "s3://tests/runs/reference")


def weights(run: trainer.TrainingResult) -> dict[str, torch.Tensor]:
    return torch.load(io.BytesIO((locate(run.checkpoint) / "model.pt").read_bytes()), weights_only=True)


def assert_same_weights(run: trainer.TrainingResult, other: trainer.TrainingResult) -> None:
    ours, theirs = weights(run), weights(other)
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def digest(run: trainer.TrainingResult | str) -> tuple[int, str]:
    """Iterations of a run's last checkpoint, or of one at a URI, and the hash of weights and optimiser's state."""
    of = locate(run if isinstance(run, str) else run.checkpoint)
    weights, optimizer = (
        torch.load(io.BytesIO((of / name).read_bytes()), weights_only=True) for name in ("model.pt", "optimizer.pt")
    )
    found = hashlib.sha256()
    momenta = {(number, name): value for number, state in optimizer["state"].items() for name, value in state.items()}
    assert momenta
    for tensors in (weights, momenta):
        for name, tensor in sorted(tensors.items()):
            found.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
            found.update(tensor.contiguous().numpy().tobytes())
    found.update(repr(optimizer["param_groups"]).encode())
    return runs.read_meta(of).iteration, found.hexdigest()


def losses(run: trainer.TrainingResult) -> Iterator[tuple[float, float]]:
    for record in runs.read_meta(locate(run.checkpoint)).history:
        yield record["iteration"], record["loss"]


def test_two_workers_leave_the_weights_that_one_leaves_on_the_same_global_batch(
    prepared_scenes: str, reference: trainer.TrainingResult
) -> None:
    alone = dataclasses.replace(RESOURCES, workers=1, validate_every=0)
    single = trainer.train(RECIPE, alone, prepared_scenes, "s3://tests/runs/single")
    assert_same_weights(single, reference)
    assert list(losses(single)) == [(i, pytest.approx(loss, rel=1e-3)) for i, loss in losses(reference)]
    assert single.miou is None
    # Training did change them: equal weights are no accident of a standstill.
    earlier = weights(dataclasses.replace(single, checkpoint="s3://tests/runs/single/ckpt_000004"))
    name = "head.classifiers.0.weight"
    assert not torch.allclose(earlier[name], weights(single)[name], rtol=1e-2, atol=1e-3)


def test_a_run_whose_worker_is_killed_goes_on_from_its_checkpoint_to_the_same_bits(
    prepared_scenes: str, reference: trainer.TrainingResult, tmp_path: Path
) -> None:
    killer = KillWorker(at=4, log=tmp_path / "reported")
    result = trainer.train(RECIPE, RESOURCES, prepared_scenes, "s3://tests/runs/killed", callbacks=(killer,))
    # The last report may have been on its way when the worker died.
    assert killer.noted() in (["2", "4", "failed", "6"], ["2", "4", "6", "failed"])
    assert digest(result) == digest(reference)
    assert list(losses(result)) == list(losses(reference))
    # Training goes on to change them: equal hashes are no accident of a standstill.
    assert digest("s3://tests/runs/killed/ckpt_000004")[1] != digest(reference)[1]


def test_a_run_whose_driver_is_killed_and_that_is_resumed_leaves_the_same_bits(
    prepared_scenes: str, reference: trainer.TrainingResult, tmp_path: Path
) -> None:
    output, config = locate("s3://tests/runs/killed-driver"), tmp_path / "recipe.json"
    config.write_text(to_json(RECIPE), encoding="utf-8")
    command = [sys.executable, str(JOB), "--config", str(config), "--data", prepared_scenes, "--output", output.uri]
    command += ["--workers", "2", "--checkpoint-every", "2", "--validate-every", "0"]
    environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    job = subprocess.Popen(command, env=environment)
    deadline = time.monotonic() + 300
    while not runs.latest(output):
        assert job.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    job.kill()
    job.wait()
    assert not (output / "ckpt_000006").exists()
    subprocess.run([*command, "--resume"], env=environment, check=True, timeout=300)
    assert digest(f"{output}/ckpt_000006") == digest(reference)


def test_an_aborted_run_is_refused_without_resume_and_goes_on_with_it(
    prepared_scenes: str,
    reference: trainer.TrainingResult,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    s3: EmbeddedS3,
) -> None:
    output = "s3://tests/runs/aborted"
    with pytest.raises(UserError, match=f"there is no run to resume at {output}: leave --resume out"):
        trainer.train(RECIPE, RESOURCES, prepared_scenes, output, resume=True)
    once = dataclasses.replace(RESOURCES, max_failures=0)
    killer = KillWorker(at=2, log=tmp_path / "reported")
    with pytest.raises(JobError, match=r"^the training stopped \(\w+: .*\): fix the cause, then go on with --resume$"):
        trainer.train(RECIPE, once, prepared_scenes, output, callbacks=(killer,))
    assert killer.noted() in (["2", "failed"], ["2", "4", "failed"])
    with pytest.raises(UserError, match=f"{output} already holds a training run: pass --resume"):
        trainer.train(RECIPE, RESOURCES, prepared_scenes, output)
    result = trainer.train(RECIPE, RESOURCES, prepared_scenes, output, resume=True)
    assert result.iterations == 6
    assert_same_weights(result, reference)
    assert list(losses(result)) == [(i, pytest.approx(loss, rel=1e-3)) for i, loss in losses(reference)]
    again = trainer.train(RECIPE, RESOURCES, prepared_scenes, output, resume=True)
    assert again == result

    printed = "".join(capfd.readouterr())
    assert "iteration 6/6" in printed
    assert s3.environment["AWS_SECRET_ACCESS_KEY"] not in printed


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"network": {"head": "aspp-s"}}, ["network.head largefov, not aspp-s"]),
        ({"solver": {"batch": 8}}, ["solver.batch 4, not 8"]),
        ({"solver": {"classifier_factor": 1.0}}, ["solver.classifier_factor 10.0, not 1.0"]),
        ({"augment": {"crop": 41, "mirror": False}}, ["augment.crop 33, not 41", "augment.mirror True, not False"]),
        ({"augment": {"scale_max": 2.0}}, ["augment.scale_max 1.5, not 2.0"]),
        ({"scoring": {"test_mirror": True}}, ["scoring.test_mirror False, not True"]),
        ({"seed": 1, "precision": "bfloat16"}, ["precision float32, not bfloat16", "seed 0, not 1"]),
        ({"train_split": "val"}, ["train_split train, not val", "train data of digest"]),
    ],
)
def test_a_run_does_not_go_on_as_another_one_and_each_difference_is_named(
    prepared_scenes: str, reference: trainer.TrainingResult, changes: dict[str, Any], named: list[str]
) -> None:
    longer = dataclasses.replace(RECIPE, solver=dataclasses.replace(RECIPE.solver, iterations=8))
    parts = {
        part: dataclasses.replace(getattr(longer, part), **value) if isinstance(value, dict) else value
        for part, value in changes.items()
    }
    output = locate("s3://tests/runs/reference")
    before = (output / "run.json").read_bytes()
    with pytest.raises(UserError, match=f"the run at {output} has .*: go on with that, or start another") as refusal:
        trainer.train(dataclasses.replace(longer, **parts), RESOURCES, prepared_scenes, output.uri, resume=True)
    assert all(difference in str(refusal.value) for difference in named)
    assert (output / "run.json").read_bytes() == before


def test_a_run_does_not_go_on_with_other_data(
    prepared_scenes: str, reference: trainer.TrainingResult, tmp_path: Path
) -> None:
    scenes.draw(locate(tmp_path / "scenes"), {"train": 12, "val": 5}, 48, 96, seed=1)
    prepare("scenes", str(tmp_path / "scenes"), str(tmp_path / "data"))
    longer = dataclasses.replace(RECIPE, solver=dataclasses.replace(RECIPE.solver, iterations=8))
    with pytest.raises(UserError, match=r"has train data of digest \w+ .*; validation data of digest \w+ "):
        trainer.train(longer, RESOURCES, str(tmp_path / "data"), "s3://tests/runs/reference", resume=True)


def test_a_run_that_stopped_before_its_first_checkpoint_goes_on_as_it_began(
    prepared_scenes: str, tmp_path: Path
) -> None:
    output = str(tmp_path / "run")
    begun = trainer.goes_on_as(check_request(RECIPE, RESOURCES, prepared_scenes, output, resume=False))[0]
    (locate(output) / "run.json").write_bytes(to_json(begun).encode())
    request = check_request(RECIPE, RESOURCES, prepared_scenes, output, resume=True)
    assert trainer.goes_on_as(request) == (begun, [])
    other = dataclasses.replace(RECIPE, seed=7)
    with pytest.raises(UserError, match="has seed 0, not 7: go on with that"):
        trainer.goes_on_as(check_request(other, RESOURCES, prepared_scenes, output, resume=True))


def test_a_run_goes_on_with_another_schedule_and_other_resources_and_says_so(
    prepared_scenes: str, reference: trainer.TrainingResult, capfd: pytest.CaptureFixture[str]
) -> None:
    output = locate("s3://tests/runs/prolonged")
    for name in (files := locate("s3://tests/runs/reference")).files(recursive=True):
        (output / name).write_bytes((files / name).read_bytes())
    longer = dataclasses.replace(RECIPE, solver=dataclasses.replace(RECIPE.solver, iterations=8))
    other = dataclasses.replace(RESOURCES, workers=1, log_every=1, validate_every=0)
    result = trainer.train(longer, other, prepared_scenes, output.uri, resume=True)
    assert result.iterations == 8
    assert "going on with another schedule: it had solver.iterations 6, not 8" in capfd.readouterr().out


def test_a_run_that_diverges_ends_with_a_mistake_and_keeps_no_broken_checkpoint(prepared_scenes: str) -> None:
    steep = dataclasses.replace(RECIPE, solver=dataclasses.replace(RECIPE.solver, learning_rate=1e30))
    alone = dataclasses.replace(RESOURCES, workers=1, validate_every=0)
    with pytest.raises(UserError, match=r"the training diverged: its loss is no longer finite.*lower --learning-rate"):
        trainer.train(steep, alone, prepared_scenes, "s3://tests/runs/diverged")
    assert runs.latest(locate("s3://tests/runs/diverged")) is None


def test_an_output_that_is_a_checkpoint_itself_is_not_trained_into(
    prepared_scenes: str, reference: trainer.TrainingResult
) -> None:
    with pytest.raises(
        UserError, match=f"is a checkpoint: give another --output, and --weights {reference.checkpoint}"
    ):
        trainer.train(RECIPE, RESOURCES, prepared_scenes, reference.checkpoint)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C interrupts, also where a shell has started the tests in the background."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_leaves_what_ray_would_finish() -> None:
    threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        trainer.until_interrupted(lambda: time.sleep(20))
    with pytest.raises(ValueError, match="told on"):
        trainer.until_interrupted(functools.partial(int, "told on"))
    assert trainer.until_interrupted(lambda: 7) == 7


def test_validation_counts_every_image_once(prepared_scenes: str, reference: trainer.TrainingResult) -> None:
    place = locate(reference.checkpoint)
    meta = runs.read_meta(place)
    model = checkpoint.load_model(place, meta.recipe.network, len(meta.classes))
    split = open_split(prepared_scenes, "val")
    confusion = np.zeros((len(meta.classes), len(meta.classes)))
    for sample in map(split.read, range(len(split))):
        assert sample.label
        truth = decode_label(sample.label)
        with torch.inference_mode():
            scores = model(torch.from_numpy(decode_image(sample.image).copy())[None])
        prediction = model.grid.to_image(scores, *truth.shape)[0].argmax(0).numpy()
        np.add.at(confusion, (truth[truth != 255], prediction[truth != 255]), 1)
    union = confusion.sum(0) + confusion.sum(1) - confusion.diagonal()
    expected = (confusion.diagonal()[union > 0] / union[union > 0]).mean()
    assert reference.miou == pytest.approx(expected, abs=1e-4)
    assert meta.history[-1]["miou"] == reference.miou
    assert 0 < expected < 1


def test_an_output_holds_the_config_and_tensorboard_events_and_no_secret(
    reference: trainer.TrainingResult, s3: EmbeddedS3
) -> None:
    output = locate("s3://tests/runs/reference")
    run = from_json((output / "run.json").read_bytes().decode(), runs.Provenance)
    # With the conventions that go with the weights.
    assert run.recipe == dataclasses.replace(RECIPE, network=resolve(RECIPE.network))
    assert run.resources == RESOURCES
    assert run.train
    assert run.validation
    assert (run.train.reader, run.train.split, run.train.images) == ("scenes", "train", 12)
    manifest = json.loads(locate("s3://tests/scenes/val/manifest.json").read_bytes())
    assert run.validation.digest == manifest["digest"]
    assert run.software
    assert f"torch=={metadata.version('torch')}" in run.software.packages
    assert runs.read_meta(locate(reference.checkpoint)).run == run
    files = output.files(recursive=True)
    events = [name for name in files if name.startswith("tensorboard/events.out.tfevents.")]
    assert len(events) == 1
    assert b"validation/miou" in (output / events[0]).read_bytes()
    kept = {name.split("/")[0] for name in files if name.startswith("ckpt_")}
    assert kept == {"ckpt_000004", "ckpt_000006"}
    assert locate(reference.checkpoint).uri == f"{output}/ckpt_000006"
    secret = s3.environment["AWS_SECRET_ACCESS_KEY"].encode()
    assert not [name for name in files if secret in (output / name).read_bytes()]
