"""The CRF alone: on stored scores it gives what batch prediction gave, on maps what a plain loop gives."""

import io
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from on_ray.infer import loop
from on_ray.infer.loop import ALL, PHOTOS, PREDICTED, seen
from PIL import Image
from torch.nn.functional import interpolate

from deeplab_ray import datasets
from deeplab_ray.crf import DenseCRF
from deeplab_ray.crf.params import CRFParams
from deeplab_ray.errors import UserError
from deeplab_ray.images import decode_image
from deeplab_ray.on_ray.infer import predict, refine
from deeplab_ray.on_ray.infer.delivery import Delivery
from deeplab_ray.outputs.formats import make, read_scores
from deeplab_ray.outputs.prediction import Prediction
from deeplab_ray.outputs.stored import anonymous
from deeplab_ray.shards import Manifest
from deeplab_ray.storage.location import locate

LABELS = tuple(name for name in ALL if name != "scores")
CRF = CRFParams(iterations=2)


@pytest.mark.slow
def test_stored_scores_give_the_files_that_the_prediction_gave(
    photos: Mapping[str, bytes], predicted: Delivery, network: str, tmp_path: Path
) -> None:
    own: dict[str, Any] = {"formats": LABELS, "values": "own"}
    names = ("predict.json", "refine.json", "errors.parquet")

    def files(folder: Any) -> dict[str, bytes]:
        return {name: content for name, content in loop.contents(folder).items() if name not in names}

    done = loop.run(refine.check_request(PREDICTED, "s3://tests/photos-refined", **own))
    assert (done.images, done.errors) == (6, [])
    theirs = files(locate(PREDICTED))
    assert files(locate("s3://tests/photos-refined")) == {
        name: content for name, content in theirs.items() if not name.startswith("scores/")
    }
    again = loop.run(refine.check_request(PREDICTED, "s3://tests/photos-refined", **own))
    assert (again.done_before, again.figures) == (6, {})

    # Without the CRF; and beside scores that are broken, or of another network.
    bare, scores, output = tmp_path / "bare", tmp_path / "scores", tmp_path / "scores/out"
    loop.run(predict.check_request(network, PHOTOS, str(bare), crf=None, **own))
    # Of scores alone no labels are made; the files are the same.
    loop.run(predict.check_request(network, PHOTOS, str(tmp_path / "alone"), formats=["scores"]))
    alone = files(tmp_path / "alone")
    assert alone == {name: content for name, content in theirs.items() if name.startswith("scores/")}
    for name, content in alone.items():
        (locate(tmp_path) / name).write_bytes(content)
    whole = theirs["scores/street.parquet"]
    street = read_scores(whole)
    image = decode_image(street.image)
    few = Prediction("few", image, image[..., 0], street.image, None, street.scores[:7], street.grid)
    lost = Prediction("lost", image, image[..., 0], street.image, None, street.scores, "corners of nothing")
    wrong = {"x-few": make("scores", anonymous(7)).encode(few), "x-lost": make("scores", anonymous(7)).encode(lost)}
    wrong |= {"x-cut": whole[:-300], "x-empty": b"", "x-twice": whole}
    for name, content in wrong.items():
        (scores / f"{name}.parquet").write_bytes(content)
    request = refine.check_request(str(scores), str(output), crf=None, **own)
    done = loop.run(request)
    reasons = {each.id or each.key: (each.stage, each.reason) for each in done.errors}
    assert reasons["few"] == ("read", "its scores are of 7 classes, others of 19")
    assert reasons["x-cut.parquet"][0] == reasons["x-empty.parquet"][0] == "read"
    assert reasons["lost"][0] == "refine"
    assert reasons["street"] == ("read", "its id is that of another image, too (street.parquet): give each its own")
    assert len(reasons) == 5
    index = {name: content for name, content in files(output).items() if name.startswith("index/")}
    # Their classes are known by number alone, which is their train id.
    assert {name: np.asarray(Image.open(io.BytesIO(content))).tolist() for name, content in index.items()} == {
        name: to_train_ids(content) for name, content in files(bare).items() if name.startswith("index/")
    }
    begun = loop.delivery.begin(request.order)
    assert (len(begun.todo), begun.todo.total) == (0, 11), "the output below the input was taken for input"


def to_train_ids(content: bytes) -> list[list[int]]:
    """A label file of Cityscapes' own values."""
    values = np.asarray(Image.open(io.BytesIO(content)))
    return np.searchsorted(datasets.get("cityscapes").table.values, values).tolist()


def saved(array: Any, compressed: bool = False, **more: Any) -> bytes:
    file = io.BytesIO()
    if compressed:
        np.savez_compressed(file, array, **more)
    else:
        np.save(file, array)
    return file.getvalue()


def full_size(planes: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Interpolated bilinearly, pixel centres aligned."""
    size = image.shape[:2]
    return interpolate(torch.from_numpy(planes)[None], size, mode="bilinear", align_corners=False)[0].numpy()


@pytest.mark.slow
def test_maps_of_other_people(photos: Mapping[str, bytes], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = {name: seen(content) for name, content in photos.items()}
    sizes = {name: image.shape[:2] for name, image in images.items()}
    sizes |= {"street.png": (7, 13), "turned.jpg": (60, 40), "deep/er/tall.bmp": (48, 17)}
    scores = {name: (3 * rng.normal(size=(5, *size))).astype(np.float32) for name, size in sizes.items()}
    exponents = {name: np.exp(each.astype(np.float64)) for name, each in scores.items()}
    maps = {name: each / each.sum(0) for name, each in exponents.items()}
    folder, logits = tmp_path / "maps", tmp_path / "logits"
    for number, name in enumerate(maps):
        stem = Path(name).with_suffix("")
        for place in (folder, logits):
            (place / stem).parent.mkdir(parents=True, exist_ok=True)
        # .npz of float16, whose sums are off by less than a hundredth, and .npy of float64, in Fortran's order.
        half = number % 2 == 1
        content = maps[name].astype(np.float16) if half else np.asfortranarray(maps[name])
        (folder / f"{stem}{'.npz' if half else '.npy'}").write_bytes(saved(content, compressed=half))
        (logits / f"{stem}.npy").write_bytes(saved(scores[name]))
        maps[name] = content.astype(np.float32) / content.astype(np.float32).sum(0)

    good = maps["street.png"]
    negative, unknown = good.copy(), good.copy()
    negative[:2, 0, 0], unknown[0, 0, 0] = (-0.5, 1.5), np.nan
    bad: dict[str, tuple[bytes | None, str]] = {
        "classes": (saved(good[:4] / good[:4].sum(0)), "its map is of 4 classes, others of 5"),
        "negative": (saved(negative), "its map is not of probabilities, which sum to one at each pixel"),
        "scores": (saved(scores["street.png"]), "its map is not of probabilities, which sum to one at each pixel"),
        "nan": (saved(unknown), "the map is not finite"),
        "huge": (saved(np.full((5, 3, 3), 1e300)), "the map is not finite"),
        "pickle": (
            saved(np.array([{"a": 1}, None], object)),
            "not a .npy or .npz file: Object arrays cannot",
        ),
        "whole": (saved(np.zeros((5, 3, 3), int)), "a map of int64, not of floating-point numbers"),
        "flat": (saved(good[0]), "a map of shape (7, 13); it must be classes × rows × columns"),
        "none": (saved(good[:, :0]), "a map of shape (5, 0, 13); it must be"),
        "two": (saved(good, compressed=True, b=good), "a .npz file of 2 arrays, not one"),
        "cut": (saved(good)[:-9], "not a .npy or .npz file: "),
        "text": (b"hello", "not a .npy or .npz file: "),
        "zip": (zip_of("a.txt", b"hello"), "a map of shape ()"),
        "empty": (b"", "not a .npy or .npz file: "),
        "missing": (None, f"there is no z/missing.npy or .npz below {folder}"),
    }
    pictures = tmp_path / "pictures"
    for name, content in photos.items():
        (pictures / name).parent.mkdir(parents=True, exist_ok=True)
        (pictures / name).write_bytes(content)
    (folder / "z").mkdir()
    (pictures / "z").mkdir()
    for name, (broken, _) in bad.items():
        (pictures / f"z/{name}.png").write_bytes(photos["street.png"])
        if broken is not None:
            (folder / f"z/{name}.npz").write_bytes(broken)
    (pictures / "z/picture.png").write_bytes(b"no picture")
    (folder / "z/picture.npy").write_bytes(saved(good))

    # The output lies below the images.
    output = pictures / "refined"
    request = refine.check_request(str(pictures), str(output), str(folder), formats=("index", "overlay"), crf=CRF)
    done = loop.run(request)
    reasons = {each.id: str(each.reason) for each in done.errors}
    assert (done.images, len(done.errors)) == (len(images) + len(bad) + 1, len(bad) + 1)
    assert reasons.pop("z/picture").startswith("not an image in a format that is read")
    assert {name for name, (_, reason) in bad.items() if not reasons[f"z/{name}"].startswith(reason)} == set()
    crf = DenseCRF(CRF)
    for name, image in images.items():
        labels = np.asarray(Image.open(output / "index" / Path(name).with_suffix(".png")))
        assert np.array_equal(labels, crf.labels(image, full_size(maps[name], image))), name
    assert len(list(output.rglob("*.png"))) == len(images) + 1
    assert len(loop.delivery.begin(request.order).todo) == 0

    shutil.rmtree(output)
    # The first one is wrong, but somebody tells the classes.
    (pictures / "0.png").write_bytes(photos["street.png"])
    (logits / "0.npy").write_bytes(saved(good[:4]))
    manifest = Manifest("five", "val", tiny.classes(5), [0] * 5, [], [])
    (locate(tmp_path) / "set/val/manifest.json").write_bytes(manifest.to_json().encode())
    asked: tuple[Any, ...] = (str(pictures), str(tmp_path / "out"), str(logits), "scores", str(tmp_path / "set/val"))
    done = loop.run(refine.check_request(*asked, crf=CRF))
    assert len(done.errors) == len(bad) + 2
    assert {each.id: each.reason for each in done.errors}["0"] == "its map is of 4 classes, others of 5"
    for name, image in images.items():
        labels = np.asarray(Image.open(tmp_path / "out/index" / Path(name).with_suffix(".png")))
        probabilities = torch.from_numpy(full_size(scores[name], image)).softmax(0).numpy()
        assert np.array_equal(labels, crf.labels(image, probabilities)), name

    with pytest.raises(UserError, match=r"^none of the first maps in .* can be read \(.*there is no "):
        refine.check_request(str(pictures), str(tmp_path / "other"), str(tmp_path))


def zip_of(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()
