"""A user's mistakes, made with the real jobs: exit code 2, one `error: …` line at the end of stderr, no RESULT."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import ray
import tiny

from deeplab_ray import datasets
from deeplab_ray.on_ray import session
from deeplab_ray.shards import Manifest
from deeplab_ray.storage.location import locate

Job = subprocess.CompletedProcess[str]
Mistake = Callable[..., str]

JOBS = Path(__file__).parents[2] / "jobs"
PRESET = "scenes-resnet18-largefov"


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    return tiny.camvid(tmp_path / "camvid", val=3)


def told(done: Job, *secrets: str) -> str:
    """What a job says of its user's mistake."""
    assert done.returncode == 2, done.stderr
    assert "RESULT" not in done.stdout
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert errors == done.stderr.splitlines()[-1:]
    assert "Traceback" not in done.stderr
    for secret in (*secrets, os.environ.get("AWS_SECRET_ACCESS_KEY"), os.environ.get("RAY_AUTH_TOKEN")):
        assert not secret or secret not in done.stdout + done.stderr
    return errors[0].removeprefix("error: ")


@pytest.fixture
def mistake(run_here: Callable[..., Job]) -> Callable[..., str]:
    """Run a job in this process; returns what it says of the mistake."""
    return lambda job, *arguments: told(run_here(job, *arguments))


def mistake_apart(job: str, *arguments: str, **environment: str) -> str:
    """The same in a process of its own, as a user runs it, on the tests' Ray."""
    if ray.is_initialized():
        environment["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    line = [sys.executable, str(JOBS / f"{job}.py"), *arguments]
    done = subprocess.run(line, capture_output=True, text=True, env={**os.environ, **environment}, timeout=300)
    return told(done, *environment.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scenes-resnet19"], "unknown preset 'scenes-resnet19': choose from scenes-resnet18-largefov, "),
        ([PRESET, "--data", "d", "--output", "o", "--crop", "320"], "crop 320 does not fit the stride-8 grid"),
        ([PRESET, "--data", "d", "--output", "o", "--speed", "9"], "unrecognized options: --speed"),
        ([PRESET, "--data", "d", "--output", "o", "--workers", "3"], "batch 8 is not divisible by workers"),
        ([PRESET, "--data", "d"], "missing from train.py: --output"),
        ([], "name a preset first, or give --config FILE"),
    ],
    ids=["preset", "crop", "flag", "workers", "output", "nothing"],
)
def test_usage(arguments: list[str], message: str, mistake: Mistake) -> None:
    assert message in mistake("train", *arguments)


def test_a_bucket_that_does_not_exist(prepared_scenes: str, mistake: Mistake) -> None:
    said = mistake("train", PRESET, "--data", "s3://no-such-bucket/scenes", "--output", "s3://tests/runs/errors")
    assert said.startswith("S3 bucket 'no-such-bucket' does not exist at http://127.0.0.1:")


@pytest.mark.slow
def test_a_wrong_s3_key(prepared_scenes: str) -> None:
    arguments = ("--data", prepared_scenes, "--output", "s3://tests/runs/errors")
    said = mistake_apart("train", PRESET, *arguments, AWS_SECRET_ACCESS_KEY="not-the-secret-key")
    assert "refuses these keys for bucket 'tests' (HTTP 403): check AWS_ACCESS_KEY_ID" in said


def test_data_that_was_not_prepared(prepared_scenes: str, mistake: Mistake) -> None:
    said = mistake("train", PRESET, "--data", "s3://tests/nothing", "--output", "s3://tests/runs/errors")
    assert (
        said == "no prepared split 'train' at s3://tests/nothing: run jobs/prepare.py with --output s3://tests/nothing"
    )


BAD = {
    "truncated": ("val/0001.png", None, "0001: unreadable: "),
    "size": (
        "valannot/0002.png",
        np.zeros((tiny.HEIGHT, tiny.WIDTH + 1), np.uint8),
        "0002: label is 21×12, image 20×12",
    ),
    "value": (
        "valannot/0000.png",
        np.full((tiny.HEIGHT, tiny.WIDTH), 77, np.uint8),
        "0000: label value 77 (240 pixels)",
    ),
}


def spoil(camvid: Path, kind: str) -> str:
    """Spoil a pair; returns what will be said of it."""
    name, pixels, message = BAD[kind]
    file = camvid / name
    if pixels is None:
        file.write_bytes(file.read_bytes()[:200])
    else:
        tiny.write_png(file, pixels)
    return message


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("kind", ["size", "value"])
def test_bad_pairs(camvid: Path, tmp_path: Path, kind: str, mistake: Mistake) -> None:
    message = spoil(camvid, kind)
    said = mistake("prepare", "camvid", "--source", str(camvid), "--output", str(tmp_path / "out"))
    assert said.startswith("1 of 3 pairs of camvid (val) are bad")
    assert message in said


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_bad_pair_in_a_process_of_its_own(camvid: Path, tmp_path: Path) -> None:
    message = spoil(camvid, "truncated")
    said = mistake_apart("prepare", "camvid", "--source", str(camvid), "--output", str(tmp_path / "out"))
    assert said.startswith("1 of 3 pairs of camvid (val) are bad")
    assert message in said


@pytest.mark.slow
def test_a_checkpoint_for_other_classes(prepared_scenes: str, tmp_path: Path) -> None:
    stranger = tiny.checkpoint(tmp_path, tiny.recipe(), datasets.get("camvid").table)
    said = mistake_apart("evaluate", "--checkpoint", str(stranger), "--data", prepared_scenes)
    assert said.startswith(f"the checkpoint {stranger} predicts 11 classes")
    assert "has 12 (scenes): evaluate on data of the same dataset" in said
    assert not list(tmp_path.glob("evaluation*"))


def test_a_checkpoint_whose_network_is_cut_off(prepared_scenes: str, tmp_path: Path, mistake: Mistake) -> None:
    own = tiny.checkpoint(tmp_path, tiny.recipe(), datasets.get("scenes").table)
    (own / "model.pt").write_bytes((own / "model.pt").read_bytes()[:1000])
    said = mistake("evaluate", "--checkpoint", str(own), "--data", prepared_scenes, "--output", str(tmp_path / "out"))
    assert said.startswith(f"{own}/model.pt cannot be read (")
    assert said.endswith("the checkpoint is broken, take another")


def test_an_output_that_cannot_be(prepared_scenes: str, tmp_path: Path, mistake: Mistake) -> None:
    own = tiny.checkpoint(tmp_path, tiny.recipe(), datasets.get("scenes").table)
    arguments = ("--checkpoint", str(own), "--data", prepared_scenes, "--output", str(own / "model.pt"))
    assert mistake("evaluate", *arguments) == f"{own}/model.pt is a file: --output is a folder"


@pytest.fixture
def early(tmp_path: Path) -> dict[str, str]:
    """An environment in which neither Ray nor PyTorch can be imported: what is told in it is told at once."""
    for package in ("ray", "torch"):
        (tmp_path / f"{package}.py").write_text(f"raise ImportError('{package} was imported')")
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}


@pytest.mark.parametrize("job", ["evaluate", "search_crf"])
def test_a_checkpoint_or_data_that_is_not_there_is_told_at_once(
    tmp_path: Path, early: dict[str, str], job: str
) -> None:
    nowhere = tmp_path / "nowhere"
    output = ("--output", str(tmp_path / "out"))
    said = mistake_apart(job, "--checkpoint", str(nowhere), "--data", str(tmp_path), *output, **early)
    assert said == f"no checkpoint at {nowhere}: give the folder of a checkpoint (ckpt_…) or of a training run"
    meta = {"run": {"recipe": {"scoring": {}}}}
    (tmp_path / "checkpoint.json").write_text(json.dumps(meta))
    said = mistake_apart(job, "--checkpoint", str(tmp_path), "--data", str(nowhere), *output, **early)
    assert said.startswith("no prepared split '")
    for split in ("train", "val"):
        manifest = Manifest("scenes", split, tiny.classes(2), [0, 0], [], [])
        (locate(tmp_path) / split / "manifest.json").write_bytes(manifest.to_json().encode())
    said = mistake_apart(job, "--checkpoint", str(tmp_path), "--data", str(tmp_path), *output, **early)
    assert " has no labelled pixel " in said


def test_a_search_on_no_images_is_told_at_once(tmp_path: Path, early: dict[str, str]) -> None:
    arguments = ("--checkpoint", str(tmp_path), "--data", str(tmp_path), "--output", str(tmp_path / "crf.json"))
    said = mistake_apart("search_crf", *arguments, "--images", "0", **early)
    assert said == "--images 0 leaves nothing to search on: take at least 1, such as 100"


def test_scenes_over_the_labels_of_somebody_else(tmp_path: Path, mistake: Mistake) -> None:
    label = tmp_path / "gtFine/train/bochum/1_gtFine_labelIds.png"
    tiny.write_png(label, np.zeros((4, 4), np.uint8))
    said = mistake("draw_scenes", "--output", str(tmp_path), "--height", "9999")
    assert said == f"{tmp_path}/gtFine already exists: give another --output, or remove it"
    assert label.exists()


def test_an_overlap_of_tiles_without_tiles(prepared_scenes: str, tmp_path: Path, mistake: Mistake) -> None:
    own = tiny.checkpoint(tmp_path, tiny.recipe(), datasets.get("scenes").table)
    said = mistake("evaluate", "--checkpoint", str(own), "--data", prepared_scenes, "--tile-overlap", "64")
    assert said == "--tile-overlap is for tiles: pass --tile, too, such as --tile 513"


@pytest.fixture
def predicting(tmp_path: Path) -> dict[str, str]:
    """Flags of jobs/predict.py that are right, on a folder of one image."""
    (tmp_path / "net").mkdir()
    tiny.write_png(tmp_path / "photos/1.png", np.zeros((9, 9, 3), np.uint8))
    own = tiny.checkpoint(tmp_path / "net", tiny.recipe(), tiny.classes(3))
    return {"--checkpoint": str(own), "--input": str(tmp_path / "photos"), "--output": str(tmp_path / "out")}


def flags(change: dict[str, str | None]) -> str:
    return " ".join(f"{name}={value}" for name, value in change.items())


def no_ray(*_: object) -> None:
    raise AssertionError("Ray was started")


PREDICTING: list[tuple[dict[str, str | None], str]] = [
    ({"--format": "png"}, "invalid"),
    ({"--format": ""}, "invalid"),
    ({"--index-values": "labelIds"}, "invalid"),
    ({"--checkpoint": "{tmp}/nowhere"}, "no checkpoint at {tmp}/nowhere: give the folder of a checkpoint"),
    ({"--checkpoint": "{tmp}/photos"}, "no checkpoint at {tmp}/photos: give the folder of a checkpoint"),
    ({"--checkpoint": None}, "missing from predict.py: --checkpoint"),
    ({"--input": "{tmp}/nowhere"}, "there is no folder {tmp}/nowhere: give a folder of images, an image, or"),
    ({"--input": "{tmp}/empty"}, "there is no file below {tmp}/empty: give a folder of images"),
    ({"--input": "{tmp}/set"}, "{tmp}/set is a prepared set: name one of its splits (val) by --split"),
    ({"--split": "val"}, "no prepared split 'val' at {tmp}/photos"),
    ({"--input": "{tmp}/set", "--split": "test"}, "no prepared split 'test' at {tmp}/set"),
    ({"--input": "{tmp}/set", "--split": "val", "--pattern": "*"}, "--pattern '*' is for a folder of images"),
    ({"--input": "{tmp}/set", "--split": "val"}, "there is no image in {tmp}/set/val"),
    ({"--pattern": "*.jpg"}, "of 1 files below {tmp}/photos none matches --pattern '*.jpg'"),
    ({"--max-errors": "many"}, "--max-errors many is neither a number of images, such as 5, nor a share"),
    ({"--max-errors": "-1"}, "--max-errors"),
    ({"--max-errors": "101%"}, "--max-errors 101% is neither"),
    ({"--max-errors": "nan"}, "--max-errors nan is neither"),
    ({"--output": "{tmp}/photos/1.png"}, "{tmp}/photos/1.png is a file: --output is a folder"),
    ({"--output": "{tmp}/photos"}, "--output {tmp}/photos is the input: give a folder of its own"),
    ({"--crf": "{tmp}/none.json"}, "none.json"),
    ({"--crf": "{tmp}/bad.json"}, "bad.json"),
    ({"--max-megapixels": "0"}, "--max-megapixels 0 must be a number above 0"),
    ({"--max-megapixels": "nan"}, "--max-megapixels nan must be a number above 0"),
    ({"--max-megapixels": "inf"}, "--max-megapixels inf must be a number above 0"),
    ({"--predictors": "0"}, "predictors 0 must be at least 1"),
    ({"--test-scales": "0"}, "scale"),
    ({"--price-per-node-hour": "cheap"}, "error parsing --price-per-node-hour"),
    ({"--price-per-node-hour": "nan"}, "--price-per-node-hour nan must be a number, 0 or above"),
    ({"--price-per-node-hour": "-1"}, "--price-per-node-hour"),
    ({"--scores": "{tmp}"}, "unrecognized options: --scores"),
]


@pytest.mark.parametrize(("change", "message"), PREDICTING, ids=[flags(change) for change, _ in PREDICTING])
def test_mistakes_of_a_prediction(
    change: dict[str, str | None],
    message: str,
    predicting: dict[str, str],
    tmp_path: Path,
    mistake: Mistake,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "start_ray", no_ray)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.json").write_text('{"w1": "strong"}')
    manifest = Manifest("scenes", "val", tiny.classes(3), [0, 0, 0], [], [])
    (locate(tmp_path) / "set/val/manifest.json").write_bytes(manifest.to_json().encode())
    pairs = [(name, value) for name, value in (predicting | change).items() if value is not None]
    said = mistake("predict", *(word.format(tmp=tmp_path) for pair in pairs for word in pair))
    assert message.format(tmp=tmp_path) in said
    assert not (tmp_path / "out").exists()


REFINING: list[tuple[dict[str, str | None], str]] = [
    ({}, "there are no scores below {tmp}/photos: write them by jobs/predict.py --format scores"),
    ({"--input": "{tmp}/nowhere"}, "there are no scores below {tmp}/nowhere"),
    ({"--input": "{tmp}/broken"}, "none of the first scores in {tmp}/broken can be read (a.parquet: "),
    ({"--input": "{tmp}/labels"}, "there are no scores below {tmp}/labels: write them by"),
    ({"--probabilities": "{tmp}/nowhere"}, "there is no folder {tmp}/nowhere: --probabilities is a folder of"),
    ({"--probabilities": "{tmp}/photos"}, "none of the first maps in {tmp}/photos can be read (1.png: there is no"),
    ({"--input": "{tmp}/empty", "--probabilities": "{tmp}/maps"}, "there is no file below {tmp}/empty"),
    ({"--input": "{tmp}/set/val", "--probabilities": "{tmp}/maps"}, "is a prepared set: --probabilities go with"),
    ({"--probabilities": "{tmp}/maps", "--classes": "{tmp}/photos"}, "--classes {tmp}/photos is no prepared split"),
    ({"--probabilities": "{tmp}/maps", "--classes": "{tmp}/set/val"}, "maps are of 2 classes, the table of 3"),
    ({"--probabilities": "{tmp}/maps", "--kind": "energies"}, "invalid"),
    ({"--probabilities": "{tmp}/maps", "--format": "scores"}, "invalid"),
    ({"--probabilities": "{tmp}/maps", "--max-errors": "5.0"}, "--max-errors 5.0 is neither"),
    ({"--probabilities": "{tmp}/maps", "--output": "{tmp}/photos"}, "--output {tmp}/photos is the input"),
    ({"--probabilities": "{tmp}/maps", "--output": "{tmp}/labels"}, "labels holds results of another job"),
    ({"--probabilities": "{tmp}/maps", "--output": "{tmp}/photos/1.png"}, "1.png is a file: --output is a folder"),
    ({"--checkpoint": "{tmp}/net"}, "unrecognized options: --checkpoint"),
]


@pytest.mark.parametrize(("change", "message"), REFINING, ids=[flags(change) for change, _ in REFINING])
def test_mistakes_of_refining(
    change: dict[str, str | None],
    message: str,
    tmp_path: Path,
    mistake: Mistake,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "start_ray", no_ray)
    tiny.write_png(tmp_path / "photos/1.png", np.zeros((9, 9, 3), np.uint8))
    for folder in ("empty", "broken", "labels", "maps"):
        (tmp_path / folder).mkdir()
    (tmp_path / "broken/a.parquet").write_bytes(b"no scores")
    # As a prediction without scores leaves it.
    (tmp_path / "labels/predict.json").write_text("{}")
    (tmp_path / "labels/errors.parquet").write_bytes(b"no scores either")
    np.save(tmp_path / "maps/1.npy", np.full((2, 9, 9), 0.5))
    manifest = Manifest("scenes", "val", tiny.classes(3), [0, 0, 0], [], [])
    (locate(tmp_path) / "set/val/manifest.json").write_bytes(manifest.to_json().encode())
    right = {"--input": "{tmp}/photos", "--output": "{tmp}/out"}
    said = mistake("refine", *(str(word).format(tmp=tmp_path) for pair in (right | change).items() for word in pair))
    assert message.format(tmp=tmp_path) in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("job", "flags", "message"),
    [
        ("search_crf", ["--scores", "s", "--checkpoint", "c"], "--scores takes the place of --checkpoint and --data"),
        ("search_crf", ["--checkpoint", "c"], "give --checkpoint and --data, or --scores"),
        ("search_crf", ["--scores", "{tmp}"], "there are no scores below {tmp}: write them by jobs/predict.py"),
    ],
    ids=["both", "neither", "none"],
)
def test_mistakes_of_a_search(job: str, flags: list[str], message: str, tmp_path: Path, mistake: Mistake) -> None:
    said = mistake(job, "--output", str(tmp_path / "crf.json"), *(word.format(tmp=tmp_path) for word in flags))
    assert message.format(tmp=tmp_path) in said


def test_belief_maps_of_no_class_or_without_the_crf(prepared_scenes: str, tmp_path: Path, mistake: Mistake) -> None:
    own = tiny.checkpoint(tmp_path, tiny.recipe(), datasets.get("scenes").table)
    words = ("--checkpoint", str(own), "--data", prepared_scenes, "--output", str(tmp_path / "out"))
    said = mistake("evaluate", *words, "--figure5", "unicorn")
    assert said.startswith("--figure5 'unicorn' is no class: take one of road, ")
    said = mistake("evaluate", *words, "--figure5", "road", "--crf", "none")
    assert said == "--figure5 shows the CRF at work: leave out --crf none"
    (tmp_path / "out").mkdir()
    (tmp_path / "out/predict.json").write_text("{}")
    assert "holds results of another job (predict.json)" in mistake("evaluate", *words)
