"""Preparing a dataset: every pair is checked, what is bad is named, and nothing half-written stays."""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray
import tiny
from PIL import Image

from deeplab_ray.datasets import cityscapes
from deeplab_ray.errors import UserError
from deeplab_ray.images import decode_label
from deeplab_ray.labels import IGNORE, ClassTable
from deeplab_ray.local.s3_server import EmbeddedS3
from deeplab_ray.on_ray.infer.evaluate import evaluate
from deeplab_ray.on_ray.prepare import prepare
from deeplab_ray.shards import open_split
from deeplab_ray.storage.location import locate

JOB = Path(__file__).parents[2] / "jobs" / "prepare.py"
PACKAGE = Path(__file__).parents[2] / "deeplab_ray"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tiny.camvid(tmp_path / "camvid", train=5, val=3)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def with_77(file: Path) -> None:
    label = np.asarray(Image.open(file)).copy()
    label[0, 0] = 77
    tiny.write_png(file, label)


def other_size(file: Path) -> None:
    tiny.write_png(file, np.zeros((tiny.HEIGHT, tiny.WIDTH + 1), np.uint8))


SPOILT: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "truncated image": ("val/0001.png", truncate, r"0001: unreadable: .*truncated"),
    "truncated label": ("valannot/0001.png", truncate, r"0001: unreadable: .*truncated"),
    "not an image": ("val/0001.png", lambda f: f.write_bytes(b"<html>") and None, r"0001: not an image"),
    "label of another size": ("valannot/0001.png", other_size, r"0001: label is 21×12, image 20×12 pixels"),
    "label value 77": ("valannot/0001.png", with_77, r"0001: label value 77 \(1 pixels\) is not in camvid"),
    "no label": ("valannot/0001.png", Path.unlink, r"0001: it has no label file"),
    "no image": ("val/0001.png", Path.unlink, r"0001: .*val/0001\.png is missing"),
}


def what_lies_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")} if folder.exists() else set()


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("place", ["local", "s3"])
def test_every_image_arrives_unchanged_and_every_label_as_train_ids(
    source: Path, tmp_path: Path, place: str, s3: EmbeddedS3
) -> None:
    output = locate(tmp_path / "out")
    if place == "s3":
        s3.make_bucket("prepare")
        output = locate(f"s3://prepare/{tmp_path.name}")
    manifests = prepare("camvid", str(source), output.uri, rows_per_shard=2)
    assert {split: (m.images, len(m.shards), m.bad) for split, m in manifests.items()} == {
        "train": (5, 3, []),
        "val": (3, 2, []),
    }
    for name, manifest in manifests.items():
        split = open_split(output.uri, name)
        assert split.manifest == manifest
        assert split.manifest.reader == "camvid"
        labels = np.stack([np.asarray(Image.open(file)) for file in (source / f"{name}annot").iterdir()])
        assert manifest.pixels == [int((labels == train_id).sum()) for train_id in range(len(manifest.classes))]
        assert sum(manifest.pixels) > 0
        for index in range(len(split)):
            sample = split.read(index)
            assert sample.id == f"{index:04d}"
            assert sample.image == (source / name / f"{sample.id}.png").read_bytes()
            assert sample.label
            raw = np.asarray(Image.open(source / f"{name}annot" / f"{sample.id}.png"))
            np.testing.assert_array_equal(decode_label(sample.label), np.where(raw == 11, IGNORE, raw))
            assert (sample.height, sample.width) == (tiny.HEIGHT, tiny.WIDTH)


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("kind", SPOILT)
def test_a_bad_pair_refuses_the_whole_and_is_listed(source: Path, tmp_path: Path, kind: str) -> None:
    name, spoil, reason = SPOILT[kind]
    spoil(source / name)
    with pytest.raises(UserError, match=rf"1 of 3 pairs of camvid \(val\) are bad \({reason}") as caught:
        prepare("camvid", str(source), str(tmp_path / "out"), rows_per_shard=2)
    message = str(caught.value)
    assert "--skip-bad" in message
    assert "\n" not in message
    # The good training split was not published either.
    assert what_lies_in(tmp_path / "out") == {"val", "val/manifest.rejected.json"}
    listing = json.loads((tmp_path / "out/val/manifest.rejected.json").read_text())
    assert [bad["id"] for bad in listing["bad"]] == ["0001"]
    assert str(tmp_path / "out/val/manifest.rejected.json") in message


@pytest.mark.usefixtures("ray_cluster")
def test_a_refused_run_leaves_no_shard_on_s3(source: Path, tmp_path: Path, s3: EmbeddedS3) -> None:
    truncate(source / "val/0001.png")
    s3.make_bucket("prepare")
    output = locate(f"s3://prepare/{tmp_path.name}")
    with pytest.raises(UserError, match="1 of 3 pairs"):
        prepare("camvid", str(source), output.uri)
    assert output.files(recursive=True) == ["val/manifest.rejected.json"]


@pytest.mark.usefixtures("ray_cluster")
def test_skip_bad_leaves_out_what_it_lists(source: Path, tmp_path: Path) -> None:
    with_77(source / "trainannot/0001.png")
    truncate(source / "train/0002.png")
    (source / "trainannot/0003.png").unlink()
    with pytest.raises(UserError, match="3 of 5 pairs"):
        prepare("camvid", str(source), str(tmp_path / "out"))
    manifests = prepare("camvid", str(source), str(tmp_path / "out"), skip_bad=True, rows_per_shard=1)
    assert [bad.id for bad in manifests["train"].bad] == ["0001", "0002", "0003"]
    assert "77" in manifests["train"].bad[0].reason
    kept = np.stack([np.asarray(Image.open(source / f"trainannot/{i:04d}.png")) for i in (0, 4)])
    assert manifests["train"].pixels == [int((kept == i).sum()) for i in range(len(manifests["train"].classes))]
    split = open_split(str(tmp_path / "out"), "train")
    assert [split.read(i).id for i in range(len(split))] == ["0000", "0004"]
    assert not (tmp_path / "out/train/manifest.rejected.json").exists()


@pytest.mark.usefixtures("ray_cluster")
def test_a_split_of_bad_pairs_only_is_refused_even_when_they_may_be_skipped(source: Path, tmp_path: Path) -> None:
    for label in (source / "valannot").iterdir():
        with_77(label)
    with pytest.raises(UserError, match=r"3 of 3 pairs of camvid \(val\) are bad .*: fix them; all are listed"):
        prepare("camvid", str(source), str(tmp_path / "out"), skip_bad=True)
    assert what_lies_in(tmp_path / "out") == {"val", "val/manifest.rejected.json"}


@pytest.mark.usefixtures("ray_cluster")
def test_a_split_whose_labels_are_not_public_is_prepared_without(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split, names in (("test", "abc"), ("val", "d")):
        for name in names:
            image = rng.integers(0, 256, (tiny.HEIGHT, tiny.WIDTH, 3), np.uint8)
            tiny.write_png(tmp_path / f"city/leftImg8bit/{split}/ulm/{name}_leftImg8bit.png", image)
    label = np.full((tiny.HEIGHT, tiny.WIDTH), 7, np.uint8)
    tiny.write_png(tmp_path / "city/gtFine/test/ulm/b_gtFine_labelIds.png", label)
    source, out = str(tmp_path / "city"), str(tmp_path / "out")
    # Its own reader takes no labels of test.
    dataset = replace(cityscapes.DATASET, pairs=cityscapes.read_pairs)
    with pytest.raises(UserError, match=r"1 of 1 pairs of cityscapes \(val\) are bad \(d: it has no label file\)"):
        prepare(dataset, source, out, ["test", "val"])
    manifest = prepare(dataset, source, out, ["test"])["test"]
    assert (manifest.images, manifest.labelled, manifest.bad) == (3, 1, [])
    assert manifest.pixels == [label.size, *[0] * 18]
    split = open_split(out, "test")
    labels = [split.read(index).label for index in range(3)]
    assert [each is None for each in labels] == [True, False, True]
    assert list(split.labelled()) == [1]
    assert labels[1]
    assert (decode_label(labels[1]) == 0).all()


TWO = """
\"\"\"Masks: images/*.png beside masks/*.png, 0 and 255.\"\"\"

from deeplab_ray.datasets.base import Dataset, Pair, MissingSplitError
from deeplab_ray.storage.location import Location


def _pairs(source: Location, split: str) -> list[Pair]:
    names = (source / split / "images").files()
    if not names:
        raise MissingSplitError(f"no {split}/images/*.png below {source}: --source is the folder that holds {split}/")
    return [Pair(name, f"{split}/images/{name}", f"{split}/masks/{name}") for name in names]


DATASET = Dataset(
    name="masks",
    title="masks of one thing",
    classes=("background", "thing"),
    palette=((0, 0, 0), (255, 0, 0)),
    splits=("train", "val"),
    label_values={0: 0, 255: 1},
    pairs=_pairs,
)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_set_of_a_dataset_that_nobody_here_knows_is_measured(tmp_path: Path) -> None:
    """Its module, and the one line that names it, are in a copy of the package; what is prepared there is used here."""
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        image, mask = rng.integers(0, 256, (40, 56, 3), np.uint8), rng.integers(0, 2, (40, 56), np.uint8)
        tiny.write_png(tmp_path / "source/val/images" / name, image)
        tiny.write_png(tmp_path / "source/val/masks" / name, 255 * mask)
    copy = tmp_path / "copy"
    shutil.copytree(PACKAGE, copy / "deeplab_ray", ignore=shutil.ignore_patterns("__pycache__"))
    assert TWO.strip().count("\n") < 40
    (copy / "deeplab_ray/datasets/masks.py").write_text(TWO.strip() + "\n")
    registry = copy / "deeplab_ray/datasets/__init__.py"
    registry.write_text(registry.read_text().replace('    "camvid",\n', '    "camvid",\n    "masks",\n'))
    out = str(tmp_path / "out")
    done = subprocess.run(
        [sys.executable, str(JOB), "masks", "--source", str(tmp_path / "source"), "--output", out],
        capture_output=True,
        text=True,
        cwd=copy,  # where Ray's workers look first
        env={
            **os.environ,
            "PYTHONPATH": str(copy),
            "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
        },
        timeout=300,
    )
    assert done.returncode == 0, done.stderr

    with pytest.raises(UserError, match="unknown dataset 'masks'"):
        prepare("masks", str(tmp_path / "source"), out)
    split = open_split(out, "val")
    assert split.classes == ClassTable(("background", "thing"), ((0, 0, 0), (255, 0, 0)), (0, 255), ignore_value=254)
    (tmp_path / "checkpoint").mkdir()
    trained = tiny.checkpoint(tmp_path / "checkpoint", tiny.recipe(), split.classes)
    result = evaluate(str(trained), out, "val")
    assert result.confusion.sum(axis=1).tolist() == split.manifest.pixels
    assert [row.id for row in result.worst] == [row.id for row in sorted(result.worst, key=lambda row: row.miou)]
    masks = {row.id: np.asarray(Image.open(tmp_path / "source/val/masks" / row.id)) // 255 for row in result.worst}
    assert set(masks) == {"a.png", "b.png"}
    for row in result.worst:
        np.testing.assert_array_equal(row.truth, masks[row.id])


def test_wrong_arguments_are_refused_before_any_work(source: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    for arguments, match in (
        (("camvid", str(tmp_path / "nowhere"), out), "there is no folder .*nowhere: --source"),
        (("camvid", str(source), out, ["night"]), "camvid has no split 'night': take some of train, val, test"),
        (("camvid", str(source), out, ["test"]), r"no test/\*\.png below"),
        (("voc12", str(source), out), r"no ImageSets/Segmentation/train\.txt below"),
        (("camvid", str(source), str(source / "val/0000.png")), "is a file: --output is a folder"),
    ):
        with pytest.raises(UserError, match=match):
            prepare(*arguments)
    with pytest.raises(UserError, match="rows per shard must be at least 1"):
        prepare("camvid", str(source), out, rows_per_shard=0)
    assert what_lies_in(tmp_path / "out") == set()


@pytest.mark.usefixtures("ray_cluster")
def test_voc_jpegs_are_prepared_and_unlisted_images_left_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "voc/ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "voc/ImageSets/Segmentation/val.txt").write_text("a\n")
    for name in ("a", "b"):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).save(file, "JPEG")
        (tmp_path / "voc/JPEGImages").mkdir(exist_ok=True)
        (tmp_path / f"voc/JPEGImages/{name}.jpg").write_bytes(file.getvalue())
        tiny.write_png(tmp_path / f"voc/SegmentationClass/{name}.png", np.full((9, 9), 15, np.uint8))
    manifests = prepare("voc12", str(tmp_path / "voc"), str(tmp_path / "out"))
    assert list(manifests) == ["val"]
    assert open_split(str(tmp_path / "out"), "val").read(0).id == "a"
