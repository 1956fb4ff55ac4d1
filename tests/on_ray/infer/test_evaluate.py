"""Evaluation on a real cluster: what comes out equals what a plain loop without Ray computes."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from deeplab_ray import datasets
from deeplab_ray.config.resources import InferenceResources
from deeplab_ray.config.scoring import ScoringConfig
from deeplab_ray.crf import CRFParams, DenseCRF
from deeplab_ray.errors import UserError
from deeplab_ray.images import decode_image, decode_label
from deeplab_ray.labels import ClassTable
from deeplab_ray.metrics import mean_iou
from deeplab_ray.models.checkpoint import load_model
from deeplab_ray.models.scoring import score_images
from deeplab_ray.on_ray.infer.crf_search import coarse_grid, format_crf_search, search_crf, spread
from deeplab_ray.on_ray.infer.evaluate import check_request, run
from deeplab_ray.on_ray.infer.evaluate import evaluate as evaluate_with
from deeplab_ray.on_ray.infer.evaluation import Evaluation, publish_report
from deeplab_ray.on_ray.infer.stage import Row
from deeplab_ray.on_ray.infer.work import Work
from deeplab_ray.outputs.journal import Done, Journal
from deeplab_ray.report import format_table
from deeplab_ray.shards import Manifest, Split, open_split, write_shard
from deeplab_ray.storage.location import locate

RECIPE = tiny.recipe()


ONE_EACH = InferenceResources(predictors=1, refiners=1)
"""More actors than the machine has cores only take longer to start."""


def evaluate(*arguments: Any, resources: InferenceResources = ONE_EACH, **options: Any) -> Evaluation:
    return evaluate_with(*arguments, resources=resources, **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint of a network for scenes, whose random scores differ from place to place."""
    return str(tiny.checkpoint(tmp_path_factory.mktemp("checkpoint"), RECIPE, datasets.get("scenes").table))


def count(truth: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (truth[truth != 255], prediction[truth != 255]), 1)
    return matrix


def directly(checkpoint: str, data: str) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """Confusion matrices of the split "val" before and after the CRF, and each image's mean IoU, without Ray."""
    split = open_split(data, "val")
    classes = len(split.classes)
    model = load_model(locate(checkpoint), RECIPE.network, classes)
    before, after, each = np.zeros((classes, classes), int), np.zeros((classes, classes), int), {}
    for sample in map(split.read, range(len(split))):
        assert sample.label
        image, truth = decode_image(sample.image), decode_label(sample.label)
        with torch.inference_mode():
            scores = model(torch.from_numpy(image.copy())[None])
            probabilities = model.grid.to_image(scores, *truth.shape).softmax(1)[0].numpy()
        matrix = count(truth, probabilities.argmax(0), classes)
        each[sample.id] = of_truth(matrix)
        before += matrix
        after += count(truth, DenseCRF(RECIPE.crf).refine(image, probabilities).argmax(0), classes)
    return before, after, each


def of_truth(matrix: np.ndarray) -> float:
    """Mean IoU over the classes of the truth."""
    hits, true, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    return float(np.mean([h / (t + p - h) for h, t, p in zip(hits, true, predicted, strict=True) if t]))


def assert_nearly_equal(found: np.ndarray, expected: np.ndarray) -> None:
    """Scores travel as float16: a pixel in a thousand may fall to the other of two classes."""
    assert found.dtype == np.int64
    assert found.sum() == expected.sum()
    assert (found.sum(axis=1) == expected.sum(axis=1)).all()
    assert np.abs(found - expected).sum() / 2 <= expected.sum() / 1000


@pytest.mark.slow
def test_matrices_equal_a_plain_loop_and_the_report_lands_on_s3(
    prepared_scenes: str, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    came: list[set[str]] = []
    through = Work.run

    def spied(*arguments: Any, **options: Any) -> Iterator[tuple[Done, Row]]:
        for done, row in through(*arguments, **options):
            came.append(set(row))
            yield done, row

    monkeypatch.setattr(Work, "run", spied)
    before, after, each = directly(trained, prepared_scenes)
    result = evaluate(trained, prepared_scenes, "val", gallery=2)
    assert result.images == 5
    assert_nearly_equal(result.confusion, before)
    assert result.confusion_crf is not None
    assert_nearly_equal(result.confusion_crf, after)
    assert np.abs(before - after).sum() > before.sum() / 100, "the CRF changed nothing: the test shows nothing"
    assert (result.crf, result.checkpoint) == (RECIPE.crf, trained)

    # The driver gets labels of no more images than the report shows: the two worst, and those that lost most by the
    # CRF, be they among them or not.
    counts, labels = {"key", "id", "measured"}, {"network", "network_crf"}
    shown = {row.id for row in (*result.worst, *result.losses)}
    assert came == 5 * [counts] + len(shown) * [counts | labels]
    assert [row.id for row in result.worst] == sorted(each, key=lambda name: each[name])[:2]
    truth, split = {}, open_split(prepared_scenes, "val")
    for sample in map(split.read, range(len(split))):
        truth[sample.id] = (decode_image(sample.image), decode_label(sample.label or b""))
    for row in result.worst:
        assert row.crf is not None
        assert row.miou == pytest.approx(each[row.id], abs=0.01)
        assert row.network.shape == row.truth.shape == row.image.shape[:2] == (48, 96)
        np.testing.assert_array_equal(row.image, truth[row.id][0])
        np.testing.assert_array_equal(row.truth, truth[row.id][1])
        assert of_truth(count(row.truth, row.network, 12)) == pytest.approx(row.miou)
        assert of_truth(count(row.truth, row.crf, 12)) == pytest.approx(row.miou_crf)
    assert publish_report(result, "s3://tests/evaluation") == "s3://tests/evaluation/report.html"
    page = locate("s3://tests/evaluation/report.html").read_bytes().decode()
    assert f"{100 * result.miou:.1f}" in page
    assert f"{100 * mean_iou(result.confusion_crf):.1f}" in page
    assert all(row.id in page for row in result.worst)
    assert locate("s3://tests/evaluation").files() == ["recipe.json", "report.html"]


def partly_labelled(prepared: str, folder: Path, without: tuple[int, ...], shards: int = 1) -> Split:
    """A copy of the scenes' split "val" in which some images have no label."""
    split, place = open_split(prepared, "val"), locate(folder / "val")
    rows = [dataclasses.asdict(split.read(index)) for index in range(len(split))]
    for index in without:
        rows[index]["label"] = None
    pixels = np.zeros(12, int)
    for label in (row["label"] for row in rows if row["label"]):
        pixels += np.bincount(decode_label(label).ravel(), minlength=256)[:12]
    each = -(-len(rows) // shards)
    parts = [rows[start : start + each] for start in range(0, len(rows), each)]
    written = [write_shard(place / "shards-1", f"{i:05d}.parquet", part) for i, part in enumerate(parts)]
    manifest = Manifest("scenes", "val", split.classes, pixels.tolist(), [shard for shard in written if shard], [])
    (place / "manifest.json").write_bytes(manifest.to_json().encode())
    return open_split(str(folder), "val")


@pytest.mark.slow
def test_images_without_a_label_are_not_measured_and_those_of_a_damaged_shard_fail_with_its_name(
    prepared_scenes: str, trained: str, tmp_path: Path
) -> None:
    split = partly_labelled(prepared_scenes, tmp_path, without=(0, 3), shards=2)
    file = Path(split.paths()[1])
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    result = evaluate(trained, str(tmp_path), "val", crf=None)
    # Labelled are 1 and 2 in the first shard, and 4 in the second.
    assert (result.images, len(result.errors)) == (2, 1)
    assert [error.stage for error in result.errors] == ["read"]
    assert f"shard {file} is damaged" in str(result.errors[0].reason)
    pixels = np.zeros(12, int)
    for index in (1, 2):
        pixels += np.bincount(decode_label(split.read(index).label or b"").ravel(), minlength=256)[:12]
    assert result.confusion.sum(axis=1).tolist() == pixels.tolist()
    assert sorted(row.id for row in result.worst) == sorted(split.read(index).id for index in (1, 2))
    publish_report(result, str(tmp_path / "report"))
    assert f"shard {file} is damaged" in (tmp_path / "report/report.html").read_text()
    assert search_crf(trained, str(tmp_path), "val", images=100, resources=ONE_EACH).images == 2


@pytest.mark.slow
def test_an_interrupted_evaluation_goes_on_where_it_was(
    prepared_scenes: str, trained: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A CRF that blurs all shapes, so that there is a loss to be told.
    blur = CRFParams(w1=30, sigma_alpha=60, sigma_beta=60, w2=30, sigma_gamma=9, iterations=3)
    request = check_request(trained, prepared_scenes, "val", blur, figure5="road")
    whole = run(request, ONE_EACH)

    through = Work.run

    def interrupted(*arguments: Any, **options: Any) -> Iterator[tuple[Done, Row]]:
        for number, each in enumerate(through(*arguments, **options)):
            if number == 3:
                raise KeyboardInterrupt
            yield each

    output = str(tmp_path / "report")
    with monkeypatch.context() as patch:
        patch.setattr(Work, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(request, ONE_EACH, output=output)
    measured = [done.key for done in Journal(locate(output)).read()]
    assert 3 <= len(measured) < 5
    result = run(request, ONE_EACH, output=output)
    computed = [stage["computed"] for stage in result.figures["stages"]]
    assert computed == 2 * [5 - len(measured)]

    assert result.images == whole.images == 5
    for name in ("confusion", "confusion_crf", "trimap", "trimap_crf"):
        np.testing.assert_array_equal(getattr(result, name), getattr(whole, name))
    assert {gain.id: gain for gain in result.gains} == {gain.id: gain for gain in whole.gains}
    for ours, theirs in zip(result.worst + result.losses, whole.worst + whole.losses, strict=True):
        assert (ours.id, ours.miou, ours.miou_crf) == (theirs.id, theirs.miou, theirs.miou_crf)
        assert np.array_equal(ours.network, theirs.network)
        assert ours.crf is not None
        assert theirs.crf is not None
        assert np.array_equal(ours.crf, theirs.crf)
    assert [maps.id for maps in result.maps] == [maps.id for maps in whole.maps]
    assert len(result.maps) == 3

    assert result.miou_crf is not None
    assert result.miou_crf < result.miou
    table = format_table(result.classes.names, result.confusion, result.confusion_crf)
    assert table.startswith("The CRF lowered mean IoU")
    publish_report(result, output)
    page = (tmp_path / "report/report.html").read_text()
    assert "The CRF lowered mean IoU" in page
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["recipe.json", "report.html"]


def test_a_split_without_a_labelled_pixel_is_refused_at_the_start(
    prepared_scenes: str, trained: str, tmp_path: Path
) -> None:
    partly_labelled(prepared_scenes, tmp_path, without=(0, 1, 2, 3, 4))
    with pytest.raises(UserError, match=r"/val has no labelled pixel \(images with a label: 0 of 5\)"):
        evaluate(trained, str(tmp_path), "val")
    with pytest.raises(UserError, match=r"/val has no labelled pixel"):
        search_crf(trained, str(tmp_path), "val", images=3)


@pytest.mark.slow
def test_without_the_crf_there_are_no_figures_of_it_and_bfloat16_is_another_arithmetic(
    prepared_scenes: str, trained: str, tmp_path: Path
) -> None:
    exact = directly(trained, prepared_scenes)[0]
    result = evaluate(trained, prepared_scenes, "val", crf=None, precision="bfloat16")
    assert (result.crf, result.confusion_crf, result.miou_crf) == (None, None, None)
    assert all(row.crf is None and row.miou_crf is None for row in result.worst)
    assert result.confusion.sum() == exact.sum()
    assert 0 < np.abs(result.confusion - exact).sum() / 2 < exact.sum() / 10
    publish_report(result, str(tmp_path / "report"))
    assert f"{100 * result.miou:.1f}" in (tmp_path / "report/report.html").read_text()


def test_a_cluster_that_grows_must_be_told_whether_its_nodes_will_have_gpus(prepared_scenes: str, trained: str) -> None:
    growing = InferenceResources(autoscaling=True)
    with pytest.raises(UserError, match=r"no GPU yet, .*: pass --gpus-per-predictor 1 to wait for them, or --gpus"):
        evaluate(trained, prepared_scenes, "val", resources=growing)
    with pytest.raises(UserError, match="pass --gpus-per-predictor 1"):
        search_crf(trained, prepared_scenes, "val", images=3, resources=growing)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (datasets.get("voc12").table, r"predicts 21 classes, but .* has 12 \(scenes\)"),
        (tiny.classes(12), r"predicts other classes than .* has \(scenes\)"),
    ],
)
def test_a_checkpoint_for_other_classes_is_refused(
    prepared_scenes: str, tmp_path: Path, classes: ClassTable, message: str
) -> None:
    stranger = tiny.checkpoint(tmp_path, RECIPE, classes)
    with pytest.raises(UserError, match=message) as caught:
        evaluate(str(stranger), prepared_scenes, "val")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no checkpoint at"):
        evaluate(str(tmp_path / "nowhere"), prepared_scenes, "val")


@pytest.mark.slow
def test_scales_mirror_images_and_tiles_are_as_asked_for(prepared_scenes: str, trained: str) -> None:
    options = ScoringConfig((1.0, 1.5), test_mirror=True, tile=49, tile_overlap=16)
    result = evaluate(trained, prepared_scenes, "val", crf=None, scoring=options)
    split = open_split(prepared_scenes, "val")
    model = load_model(locate(trained), RECIPE.network, 12)
    expected = np.zeros((12, 12), int)
    for sample in map(split.read, range(len(split))):
        assert sample.label
        truth = decode_label(sample.label)
        with torch.inference_mode():
            scores, grid = score_images(model, torch.from_numpy(decode_image(sample.image).copy())[None], options)
        expected += count(truth, grid.to_image(scores, *truth.shape)[0].argmax(0).numpy(), 12)
    assert_nearly_equal(result.confusion, expected)
    assert result.recipe.scoring == options


@pytest.mark.slow
def test_a_search_of_crf_parameters_finds_what_a_plain_loop_finds(prepared_scenes: str, trained: str) -> None:
    search = search_crf(trained, prepared_scenes, "val", images=3, resources=ONE_EACH)
    assert search.images == 3

    split = open_split(prepared_scenes, "val")
    model = load_model(locate(trained), RECIPE.network, 12)
    grid = coarse_grid(RECIPE.crf)
    totals = {params: np.zeros((12, 12), int) for params in grid}
    for sample in map(split.read, [0, 1, 3]):
        assert sample.label
        image, truth = decode_image(sample.image), decode_label(sample.label)
        with torch.inference_mode():
            scores = model(torch.from_numpy(image.copy())[None])
            probabilities = model.grid.to_image(scores, *truth.shape).softmax(1)[0]
        for params, total in totals.items():
            total += count(truth, DenseCRF(params).refine(image, probabilities.numpy()).argmax(0), 12)
    expected = {params: of_truth(total) for params, total in totals.items()}
    assert len(set(expected.values())) > 1, "all parameters do the same: the test shows nothing"
    assert {trial.params: trial.miou for trial in search.trials} == pytest.approx(expected, abs=0.005)
    scores = [trial.miou for trial in search.trials]
    assert scores == sorted(scores, reverse=True)
    assert f"{100 * scores[0]:.2f}" in format_crf_search(search).splitlines()[2]


def test_images_of_a_search_are_spread_over_the_split() -> None:
    assert spread(range(367), 3) == [0, 122, 244]
    assert spread(range(5), 100) == [0, 1, 2, 3, 4]
    assert spread([2, 3, 7, 9], 2) == [2, 7]
