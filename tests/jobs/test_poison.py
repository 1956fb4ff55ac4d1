"""jobs/predict.py on a folder as people have them, with all that can be wrong with a file."""

import io
import json
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny
import torch
from on_ray.infer.loop import Loop, photo, seen
from PIL import Image

from deeplab_ray import datasets
from deeplab_ray.images import decode_image
from deeplab_ray.on_ray import session
from deeplab_ray.outputs.scores import read_scores
from deeplab_ray.scenes.draw import render

Run = Callable[..., subprocess.CompletedProcess[str]]
SCENE = render(7, 0, 48, 96)[0]


def file(image: Image.Image | np.ndarray, kind: str, **options: Any) -> bytes:
    content = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(content, kind, **options)
    return content.getvalue()


def header(width: int, height: int) -> bytes:
    """The beginning of a PNG file of this size."""
    size = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [struct.pack(">I", 13) + size + struct.pack(">I", zlib.crc32(size))]
    for name in (b"IDAT", b"IEND"):
        chunks.append(struct.pack(">I", 0) + name + struct.pack(">I", zlib.crc32(name)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


JPEG = file(SCENE, "JPEG", quality=95)
MOVING = {"save_all": True, "append_images": [Image.fromarray(SCENE[::-1])]}
GOOD = {
    "good.png": file(SCENE, "PNG"),
    "ä ö.JPG": JPEG,
    "a.png": file(SCENE[:, ::-1], "PNG"),
    "a.jpg": JPEG,
    "case/A.jpg": JPEG,
    "case/a.JPG": file(SCENE[::-1], "JPEG"),
    "dot.png": file(SCENE[:1, :1], "PNG"),
    "thin.png": file(np.tile(SCENE[:10], (1, 209, 1))[:, :20000], "PNG"),
    "high.png": file(np.tile(SCENE[:, :10], (417, 1, 1))[:20000], "PNG"),
    "grey16.png": file(SCENE[..., 0].astype(np.uint16) * 257, "PNG"),
    "cmyk.jpg": file(Image.fromarray(SCENE).convert("CMYK"), "JPEG"),
    "turned.jpg": photo(SCENE[:40, :70], "JPEG", orientation=8),
    "jpeg.png": JPEG,
}
BAD = {
    "truncated.jpg": (JPEG[: len(JPEG) // 2], "unreadable: image file is truncated"),
    "nothing.png": (b"\x89PNG\r\n\x1a\nnot at all", "not an image in a format that is read (18 bytes)"),
    "moving.gif": (file(SCENE, "GIF", **MOVING), "image is an animation of 2 frames, not a still picture"),
    "moving.webp": (file(SCENE, "WEBP", **MOVING), "image is an animation of 2 frames, not a still picture"),
    "bomb.png": (header(20_000, 20_000), "image is 20000×20000 = 400 megapixels, above the limit of 179: raise"),
    "empty.jpg": (b"", "not an image: the file is empty"),
    "text.jpg": (b"Dear all,\n", "not an image in a format that is read (10 bytes)"),
}


def listed(output: Path) -> dict[str, tuple[str, str]]:
    return {row["id"]: (row["stage"], row["reason"]) for row in pq.read_table(output / "errors.parquet").to_pylist()}


def result(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1].removeprefix("RESULT "))
    return found


def no_ray(*_: object) -> None:
    raise AssertionError("Ray was started")


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_folder_of_good_and_poisonous_files(tmp_path: Path, run_here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    table = datasets.get("cityscapes").table
    (tmp_path / "net").mkdir()
    checkpoint = tiny.checkpoint(tmp_path / "net", tiny.recipe(), table)
    folder, output = tmp_path / "in", tmp_path / "out"
    for name, content in (GOOD | {name: content for name, (content, _) in BAD.items()}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    words = ["predict", "--checkpoint", str(checkpoint), "--input", str(folder), "--output", str(output)]
    words += ["--format", "index", "overlay", "scores", "--predictors", "1", "--refiners", "1"]

    all_images = len(GOOD) + len(BAD)
    found = result(run_here(*words, "--max-errors", str(len(BAD))))
    assert (found["images"], found["errors"], found["done_before"]) == (all_images, len(BAD), 0)
    errors = listed(output)
    assert errors.keys() == {name.rsplit(".", 1)[0] if "moving" not in name else name for name in BAD}
    for name, (_, reason) in BAD.items():
        stage, said = errors.get(name) or errors[name.rsplit(".", 1)[0]]
        assert (stage, said[: len(reason)]) == ("read", reason)

    plain = Loop(str(checkpoint), tiny.recipe(), len(table))
    twins = {"a.png", "a.jpg", "case/A.jpg", "case/a.JPG"}
    for name, content in GOOD.items():
        id = name if name in twins else name.rsplit(".", 1)[0]
        # What Pillow makes of 16 bits is white.
        image = decode_image(content) if name == "grey16.png" else seen(content)
        expected = plain.predict(id, image, content, crf=tiny.recipe().crf)
        labels = np.asarray(Image.open(output / f"index/{id}.png"))
        assert np.array_equal(labels, expected.labels), name
        assert Image.open(output / f"overlay/{id}.jpg").size == labels.shape[::-1]
        assert np.array_equal(read_scores((output / f"scores/{id}.parquet").read_bytes()).scores, expected.scores), name
    assert len(list((output / "index").rglob("*.png"))) == len(GOOD)
    assert np.asarray(Image.open(output / "index/turned.png")).shape == (70, 40)

    # Nothing is left to do, however often it is asked for; one error too many is a failure.
    with monkeypatch.context() as patch:
        patch.setattr(session, "start_ray", no_ray)
        done = run_here(*words, "--max-errors", str(len(BAD) - 1))
        assert done.returncode == 1
        said = (
            f"error: 7 of {all_images} images failed, above --max-errors (6): see {output}/errors.parquet; the first: "
        )
        assert said in done.stderr
        assert result(run_here(*words, "--max-errors", "35%"))["done_before"] == all_images
        assert run_here(*words).returncode == 1

        # An image that is gone is no error any more.
        (folder / "empty.jpg").unlink()
        found = result(run_here(*words, "--max-errors", "6"))
        assert (found["images"], found["errors"]) == (all_images - 1, 6)
        assert "empty" not in listed(output)

    # A file that was put right, and was not.
    (folder / "truncated.jpg").write_bytes(JPEG)
    found = result(run_here(*words, "--retry-errors", "--max-errors", "5"))
    assert (found["errors"], found["done_before"], found["run"]["images"]) == (5, all_images - 7, 6)
    assert (output / "index/truncated.png").exists()
    with monkeypatch.context() as patch:
        patch.setattr(session, "start_ray", no_ray)
        found = result(run_here(*words, "--max-errors", "5"))
        assert (found["errors"], found["done_before"]) == (5, all_images - 1)
        assert len(listed(output)) == 5
        assert found["files"] == [f"{output}/overlay/legend.png"]


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_broken_checkpoint_fails_every_image(tmp_path: Path, run_here: Run) -> None:
    (tmp_path / "net").mkdir()
    checkpoint = tiny.checkpoint(tmp_path / "net", tiny.recipe(), datasets.get("cityscapes").table)
    weights = torch.load(checkpoint / "model.pt", weights_only=True)
    for tensor in weights.values():
        if tensor.is_floating_point():
            tensor.fill_(torch.nan)
    torch.save(weights, checkpoint / "model.pt")
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(GOOD["good.png"])
    words = ["predict", "--checkpoint", str(checkpoint), "--input", str(folder), "--output", str(output)]
    done = run_here(*words, "--format", "index", "scores", "--predictors", "1", "--refiners", "1", "--batch", "2")
    assert done.returncode == 1
    assert "error: 3 of 3 images failed, above --max-errors (0.03)" in done.stderr
    errors = listed(output)
    assert {stage for stage, _ in errors.values()} == {"predict"}
    assert {reason for _, reason in errors.values()} == {
        "scores are not finite: the checkpoint is broken, or the precision too low"
    }
    assert len(errors) == 3
    names = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    assert {name for name in names if not name.startswith(".progress/")} == {"predict.json", "errors.parquet"}
