"""The format "cityscapes": its names, and what the benchmark's own script makes of its files."""

import io
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as script
from PIL import Image

from deeplab_ray.datasets.cityscapes import DATASET
from deeplab_ray.labels import IGNORE
from deeplab_ray.metrics import confusion_matrix, iou
from deeplab_ray.outputs.formats import Prediction, make
from deeplab_ray.scenes.draw import render

FORMAT = make("cityscapes", DATASET.table)
FRAME = "frankfurt_000000_000294"


@pytest.mark.parametrize(
    ("id", "path"),
    [
        (f"val/frankfurt/{FRAME}_leftImg8bit", f"val/frankfurt/{FRAME}_pred_labelIds.png"),
        (f"leftImg8bit/val/frankfurt/{FRAME}_leftImg8bit", f"val/frankfurt/{FRAME}_pred_labelIds.png"),
        (FRAME, f"frankfurt/{FRAME}_pred_labelIds.png"),
        (f"frankfurt/{FRAME}_leftImg8bit", f"frankfurt/{FRAME}_leftImg8bit_pred_labelIds.png"),
        (f"val/frankfurt/{FRAME}", f"val/frankfurt/{FRAME}_labelIds.png"),
        ("camera 1/0042", "camera 1/0042_pred_labelIds.png"),
        ("../x", "%2E./x_pred_labelIds.png"),
        ("", "%__pred_labelIds.png"),
    ],
)
def test_paths(id: str, path: str) -> None:
    assert FORMAT.path(id) == f"cityscapes/{path}"


def test_no_two_ids_share_a_path_unless_it_is_one_image() -> None:
    folders = ["", "/", "frankfurt/", "/frankfurt/", "val/", "val/frankfurt/", "a/val/frankfurt/", "val/bonn/", "../"]
    frames = [
        FRAME,
        "bonn_1_2",
        "a%_1_2",
        "..\n_1_2",
        "_1_2",
        "frankfurt_000000",
        "x",
        "",
        "a.png_1_2",
        "b" * 300 + "_1_2",
    ]
    endings = [
        "",
        "_leftImg8bit",
        "_leftImg8bit_leftImg8bit",
        "_pred",
        "_pred_labelIds",
        "_labelIds",
        "_pred_labelIds.png",
    ]
    trees = ["", "leftImg8bit/", "leftImg8bit/leftImg8bit/", "cityscapes/"]
    ids = {"".join(parts) for parts in itertools.product(trees, folders, frames, endings)}
    one_image = re.compile(r"leftImg8bit/([^/]+/([^/_]+)/\2_\d+_\d+_leftImg8bit)")
    shared = {id for id in ids if (match := one_image.fullmatch(id)) and match[1] in ids}
    assert 0 < len(shared) < 20
    assert len({FORMAT.path(id) for id in ids - shared}) == len(ids - shared)
    for id in shared:
        assert FORMAT.path(id) == FORMAT.path(id.removeprefix("leftImg8bit/"))


def test_the_official_script_finds_the_files_and_gives_our_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    confusion = np.zeros((19, 19), np.int64)
    names = [
        "{}",
        "val/scenes/{}_leftImg8bit",
        "leftImg8bit/val/scenes/{}_leftImg8bit",
        "scenes/{}_leftImg8bit",
        "v/{}",
    ]
    truths, results = [], tmp_path / "output"
    for number, name in enumerate(names):
        frame = f"scenes_{number:06d}_000000"
        image, raw = render(1, number, 96, 192)
        file = io.BytesIO()
        Image.fromarray(raw).save(file, "PNG")
        truth = DATASET.labels.decode(file.getvalue(), 96, 192, None)
        # Errors in patches, and in ignored places, too.
        wrong = np.kron(rng.random((12, 24)) < 0.3, np.ones((8, 8), np.bool_))
        guess = np.kron(rng.integers(0, 19, (12, 24)), np.ones((8, 8), np.int64)).astype(np.uint8)
        labels = np.where(wrong | (truth == IGNORE), guess, truth)
        confusion += confusion_matrix(truth, labels, 19)
        id = name.format(frame)
        prediction = Prediction(id, image, labels, b"", None, np.zeros((19, 1, 1), np.float16), "corners 8")
        path = results / FORMAT.path(id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(FORMAT.encode(prediction))
        truths.append(tmp_path / "gtFine" / "val" / "scenes" / f"{frame}_gtFine_labelIds.png")
        truths[-1].parent.mkdir(parents=True, exist_ok=True)
        truths[-1].write_bytes(file.getvalue())

    monkeypatch.setenv("CITYSCAPES_RESULTS", str(results))
    # Scores of instances need instances, which no semantic segmentation has.
    for option, value in {"evalInstLevelScore": False, "JSONOutput": False, "quiet": True}.items():
        monkeypatch.setattr(script.args, option, value)
    monkeypatch.setattr(script.args, "predictionPath", None)
    monkeypatch.setattr(script.args, "predictionWalk", None)
    found = [script.getPrediction(script.args, str(truth)) for truth in truths]
    scores = script.evaluateImgLists(found, [str(truth) for truth in truths], script.args)
    official = [scores["classScores"][name] for name in DATASET.classes]
    assert np.allclose(official, iou(confusion), rtol=0, atol=1e-6, equal_nan=True)
    assert 0.1 < scores["averageScoreClasses"] < 0.9
