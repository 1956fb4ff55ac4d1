"""Batch prediction on a real cluster and S3: its files equal a plain loop's, each image's exactly once."""

import dataclasses
import io
import json
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official
from on_ray.infer import loop
from on_ray.infer.loop import ALL, PHOTOS, PREDICTED, photo, seen
from PIL import Image
from storage.forwarder import Forwarder

from deeplab_ray import datasets
from deeplab_ray.config.scoring import ScoringConfig
from deeplab_ray.errors import UserError
from deeplab_ray.images import decode_image, decode_label
from deeplab_ray.labels import ClassTable
from deeplab_ray.metrics import confusion_matrix, iou, mean_iou
from deeplab_ray.on_ray.infer import delivery, evaluate, evaluation, predict
from deeplab_ray.on_ray.infer.chain import Stage
from deeplab_ray.on_ray.infer.crf_search import search_crf, search_stored
from deeplab_ray.on_ray.infer.delivery import Delivery
from deeplab_ray.on_ray.infer.work import Allowance, Work
from deeplab_ray.on_ray.prepare import prepare
from deeplab_ray.outputs.formats import make, read_scores
from deeplab_ray.outputs.journal import Journal
from deeplab_ray.scenes import draw
from deeplab_ray.shards import Manifest, open_split, write_shard
from deeplab_ray.storage.claim import claimed
from deeplab_ray.storage.location import locate

CRF = tiny.recipe().crf
IDS = {
    "street.png": "street",
    "deep/er/tall.bmp": "deep/er/tall",
    "turned.jpg": "turned",
    "grey.PNG": "grey",
    "dot.png": "dot",
    "wide, very.webp": "wide, very",
}


def expected_files(predictions: list[Any], table: ClassTable, values: Any = "train-ids") -> dict[str, bytes]:
    """Every file that belongs to one image, by its path."""
    formats = [make(name, table, values) for name in ALL]
    return {each.path(what.id): each.encode(what) for what in predictions for each in formats}


def of_single_images(folder: str) -> dict[str, bytes]:
    """The files below an output, but for those of all images together."""
    together = {"predict.json", "errors.parquet", "results.tar", "overlay/legend.png"}
    found = loop.contents(locate(folder))
    assert together <= found.keys()
    return {name: content for name, content in found.items() if name not in together}


@pytest.mark.slow
def test_a_split_in_all_formats_at_once(
    prepared_scenes: str,
    network: str,
    plain: loop.Loop,
    table: ClassTable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, output = "s3://tests/streets", "s3://tests/streets-predicted"
    draw.draw(locate(tmp_path), {"train": 1, "val": 5}, 48, 96, seed=1)
    prepare("cityscapes", str(tmp_path), data, rows_per_shard=2)
    done = loop.run(predict.check_request(network, data, output, split="val", formats=ALL))
    assert (done.images, done.done_before, done.errors) == (5, 0, [])
    assert done.files == [f"{output}/results.tar", f"{output}/overlay/legend.png"]

    split = open_split(data, "val")
    samples = [split.read(index) for index in range(5)]
    predictions = [plain.predict(s.id, decode_image(s.image), s.image, s.label, CRF) for s in samples]
    files = of_single_images(output)
    assert files == expected_files(predictions, table)
    with tarfile.open(fileobj=io.BytesIO(locate(f"{output}/results.tar").read_bytes())) as tar:
        packed = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    assert packed == {name: content for name, content in files.items() if name.startswith("results/")}

    # Our figures, those of a plain loop, and those of the benchmark's own script on the files.
    truths = [decode_label(s.label) for s in samples if s.label]
    confusion = np.zeros((19, 19), np.int64)
    for truth, prediction in zip(truths, predictions, strict=True):
        confusion += confusion_matrix(truth, prediction.labels, 19)
    measured = evaluate.evaluate(network, data, "val", resources=loop.ONE_EACH)
    assert measured.confusion_crf is not None
    assert measured.miou_crf == pytest.approx(mean_iou(confusion), abs=1e-9)
    for name in ("cityscapes", "gtFine"):
        (tmp_path / "results" / name).mkdir(parents=True)
    for name, content in files.items():
        if name.startswith("cityscapes/"):
            (tmp_path / "results" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "results" / name).write_bytes(content)
    monkeypatch.setenv("CITYSCAPES_RESULTS", str(tmp_path / "results" / "cityscapes"))
    for option, value in {"evalInstLevelScore": False, "JSONOutput": False, "quiet": True}.items():
        monkeypatch.setattr(official.args, option, value)
    monkeypatch.setattr(official.args, "predictionPath", None)
    monkeypatch.setattr(official.args, "predictionWalk", None)
    wanted = sorted(str(path) for path in (tmp_path / "gtFine/val").rglob("*_labelIds.png"))
    found = [official.getPrediction(official.args, path) for path in wanted]
    scores = official.evaluateImgLists(found, wanted, official.args)
    theirs = [scores["classScores"][name] for name in table.names]
    np.testing.assert_allclose(theirs, iou(measured.confusion_crf), rtol=0, atol=1e-6)
    assert scores["averageScoreClasses"] == pytest.approx(measured.miou_crf, abs=1e-6)

    # The search on stored scores is that on the checkpoint, without a network.
    searched = search_crf(network, data, "val", 5, loop.ONE_EACH)
    stages: list[Stage] = []
    started = Work.__init__

    def spied(work: Work, given: list[Stage], price: float | None = None) -> None:
        stages.extend(given)
        started(work, given, price)

    monkeypatch.setattr(Work, "__init__", spied)
    assert search_stored(output, CRF, 5, loop.ONE_EACH) == searched
    assert [(stage.name, len(stage.steps)) for stage in stages] == [("try CRFs", 2)]
    assert len({trial.miou for trial in searched.trials}) > 1


@pytest.mark.slow
def test_images_of_all_sizes_below_a_prefix(
    photos: Mapping[str, bytes], predicted: Delivery, plain: loop.Loop, table: ClassTable
) -> None:
    assert (predicted.images, predicted.errors) == (6, [])
    files = of_single_images(PREDICTED)
    upright = {name: tiny.png(seen(photos[name])) for name in ("turned.jpg", "wide, very.webp")}
    predictions = [
        plain.predict(id, seen(photos[name]), upright.get(name, photos[name]), None, CRF) for name, id in IDS.items()
    ]
    expected = expected_files(predictions, table, "own")
    turned = {"scores/turned.parquet", "scores/wide, very.parquet"}
    assert {name: content for name, content in files.items() if name not in turned} == {
        name: content for name, content in expected.items() if name not in turned
    }
    # Their images are stored upright, so that whoever refines the scores sees what they were made of.
    for what in predictions:
        stored = read_scores(files[f"scores/{what.id}.parquet"])
        assert np.array_equal(decode_image(stored.image), what.image)
        assert np.array_equal(stored.scores, what.scores)
    labels = np.asarray(Image.open(io.BytesIO(files["index/turned.png"])))
    assert labels.shape == (60, 40)
    assert set(np.unique(labels)) <= set(table.values)


def copy_of(output: str, to: str) -> str:
    """A copy of an output on S3, its journal and all."""
    for name in locate(output).files(recursive=True):
        (locate(to) / name).write_bytes((locate(output) / name).read_bytes())
    return to


@pytest.mark.slow
def test_a_finished_prediction_reads_no_image_and_needs_no_ray(
    photos: Mapping[str, bytes], predicted: Delivery, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_plan(begun: delivery.Begun) -> Any:
        raise AssertionError("there is nothing to plan")

    before = loop.contents(locate(PREDICTED))
    with Forwarder(os.environ["AWS_ENDPOINT_URL"].removeprefix("http://")) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
        request = predict.check_request(network, PHOTOS, PREDICTED, formats=ALL, values="own")
        again = delivery.run(delivery.begin(request.order), no_plan)
        asked = [(each.method, each.target) for each in server.requests]
    assert (again.images, again.done_before, again.errors, again.figures) == (6, 6, [], {})
    assert again.files == predicted.files
    of_images = [
        (method, target) for method, target in asked if target.startswith("/tests/photos/") and "manifest" not in target
    ]
    # One HEAD, of whether the input can be read at all.
    assert [method for method, _ in of_images if method != "HEAD"] == []
    assert len(of_images) <= 1
    assert not [target for method, target in asked if method == "PUT" and "/.deeplab-ray-access" not in target]
    assert loop.contents(locate(PREDICTED)) == before


@pytest.mark.slow
def test_a_second_job_into_the_same_place_is_told_who_writes_there(
    photos: Mapping[str, bytes], predicted: Delivery, network: str
) -> None:
    request = predict.check_request(network, PHOTOS, PREDICTED, formats=ALL, values="own")
    with (
        claimed(locate(PREDICTED), "predict"),
        pytest.raises(UserError, match=rf"{PREDICTED} is being written by predict \(process {os.getpid()} on .*: wait"),
    ):
        delivery.deliver(request, loop.ONE_EACH, Allowance.parse("0"))
    result = delivery.deliver(request, loop.ONE_EACH, Allowance.parse("0"))
    assert (result["images"], result["done_before"]) == (6, 6)


@pytest.mark.slow
def test_only_what_is_missing_is_done(
    photos: Mapping[str, bytes], predicted: Delivery, network: str, plain: loop.Loop, table: ClassTable
) -> None:
    output, grown = copy_of(PREDICTED, "s3://tests/again"), "s3://tests/photos-grown"
    for name, content in photos.items():
        (locate(grown) / name).write_bytes(content)
    record = json.loads((locate(output) / "predict.json").read_bytes()) | {"input": grown}
    (locate(output) / "predict.json").write_bytes(json.dumps(record).encode())
    expected = of_single_images(PREDICTED)

    # Half of the journal is gone, a file of it is cut off, and so is an image's file; and there is a new image.
    journal = Journal(locate(output))
    rows = sorted(journal.read(), key=lambda done: done.key)
    journal.clear()
    for done in rows[:3]:
        journal.add(done)
    journal.flush()
    whole = (journal.folder / journal.folder.files()[0]).read_bytes()
    (journal.folder / "20200101-000000-cutoff00.parquet").write_bytes(whole[: len(whole) // 2])
    lost = "results/VOC2012/Segmentation/comp6_test_cls/street.png"
    assert [done.key for done in rows[3:]] == ["street.png", "turned.jpg", "wide, very.webp"]
    file = locate(output) / lost
    file.filesystem.delete_file(file.path)
    new = photo(seen(photos["street.png"])[:, ::-1], "PNG")
    (locate(grown) / "new.png").write_bytes(new)

    request = predict.check_request(network, grown, output, formats=ALL, values="own")
    done = loop.run(request)
    assert (done.images, done.done_before, done.errors) == (7, 3, [])
    read, refined = done.figures["stages"]
    assert (read["computed"], refined["computed"]) == (4, 2), "files that are there were made again"
    extra = plain.predict("new", seen(new), new, None, CRF)
    assert of_single_images(output) == expected | expected_files([extra], table, "own")
    with tarfile.open(fileobj=io.BytesIO((locate(output) / "results.tar").read_bytes())) as tar:
        assert len(tar.getnames()) == 7

    # Killed after the last image, before what belongs to all together: that is written.
    for name in ("results.tar", "errors.parquet"):
        (locate(output) / name).write_bytes(b"of before")
    (locate(output) / ".progress/finished.json").write_bytes(b'{"images": 6, "errors": 0, "files": []}')
    again = loop.run(request)
    assert (again.done_before, again.files) == (7, done.files)
    assert (locate(output) / "results.tar").read_bytes() != b"of before"

    # The record is gone: nothing of the old journal counts.
    (locate(output) / "predict.json").filesystem.delete_file((locate(output) / "predict.json").path)
    begun = delivery.begin(request.order)
    assert (len(begun.todo), begun.resumed) == (7, False)
    assert len(delivery.begin(request.order).todo) == 7


@pytest.mark.slow
def test_another_request_into_the_same_place_is_refused(
    photos: Mapping[str, bytes], predicted: Delivery, network: str, table: ClassTable, tmp_path: Path
) -> None:
    usual: dict[str, Any] = {"formats": ALL, "values": "own"}

    def refusal(checkpoint: str = network, data: str = PHOTOS, output: str = PREDICTED, **options: Any) -> str:
        with pytest.raises(UserError) as caught:
            predict.check_request(checkpoint, data, output, **usual | options)
        return str(caught.value)

    start = f"{PREDICTED} holds results of another run ("
    w1 = dataclasses.replace(CRF, w1=CRF.w1 + 1)
    assert refusal(crf=w1).startswith(f"{start}crf.w1 {CRF.w1}, not {w1.w1}): ask for the same, or")
    assert "crf.w1 4" in refusal(crf=None)
    assert "scoring.test_scales [1.0], not [1.0, 1.5]" in refusal(scoring=ScoringConfig((1.0, 1.5)))
    assert "not ['index']" in refusal(formats=["index"])
    assert "index_values own, not train-ids" in refusal(values="train-ids")
    assert "precision float32, not bfloat16" in refusal(precision="bfloat16")
    assert "pattern nothing, not *.png" in refusal(pattern="*.png")
    other = tiny.checkpoint(tmp_path, tiny.recipe(iterations=7), table)
    assert f"checkpoint {network}, not {other}; checkpoint_sha256 " in refusal(str(other))
    assert refusal(data=PREDICTED) == f"--output {PREDICTED} is the input: give a folder of its own"
    (locate("s3://tests/refined-here") / "refine.json").write_bytes(b"{}")
    assert "holds results of another job (refine.json)" in refusal(output="s3://tests/refined-here")
    with pytest.raises(UserError, match="holds results of another job"):
        evaluation.check_output(PREDICTED)


HOSTILE = ["../../escaped", "/etc/escaped", "", "a/../b", "Name", "name", "twice", "twice", "s", "g", "l", "good"]


@pytest.mark.slow
def test_a_split_of_hostile_names_and_broken_samples(
    prepared_scenes: str, network: str, plain: loop.Loop, table: ClassTable, tmp_path: Path
) -> None:
    image, raw = draw.render(5, 0, 48, 96)
    label = datasets.get("cityscapes").labels.decode(tiny.png(raw), *raw.shape, None)
    row = {"image": tiny.png(image), "label": tiny.png(label), "height": 48, "width": 96}
    rows = [{"id": id, **row} for id in HOSTILE]
    rows[8]["label"] = tiny.png(label[1:])
    rows[9]["image"] = b"garbage"
    rows[10]["label"] = None
    place = locate(tmp_path / "data/deep/val")
    shard = write_shard(place / "shards-1", "00000.parquet", rows)
    assert shard
    pixels = np.bincount(label[label != 255], minlength=19) * 10
    manifest = Manifest("cityscapes", "val", table, pixels.tolist(), [shard], [])
    (place / "manifest.json").write_bytes(manifest.to_json().encode())
    data, output = str(tmp_path / "data/deep"), tmp_path / "out/put"
    (tmp_path / "empty").mkdir()

    request = predict.check_request(network, data, str(output), split="val", formats=ALL)
    done = loop.run(request)
    assert {(each.id, each.stage) for each in done.errors} == {("g", "read"), ("twice", "read")}
    assert len(done.errors) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "empty", "out"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["put"]
    assert not Path("/etc/escaped.png").exists()
    written = sorted(path.relative_to(output / "index").as_posix() for path in (output / "index").rglob("*.png"))
    names = ["%2E./%2E./escaped", "%_", "%_/etc/escaped", "a/%2E./b", "Name", "name", "twice", "s", "l", "good"]
    assert written == sorted(f"{name}.png" for name in names)
    labels = plain.predict("good", image, row["image"], row["label"], CRF).labels
    for name in names:
        assert np.array_equal(np.asarray(Image.open(output / f"index/{name}.png")), labels)

    # A second image of the same id stays a failed one when what failed is done again.
    again = loop.run(request, retry_errors=True)
    assert {(each.id, each.stage) for each in again.errors} == {("g", "read"), ("twice", "read")}

    result = evaluate.evaluate(network, data, "val", resources=loop.ONE_EACH)
    assert {(each.id, each.stage) for each in result.errors} == {("g", "read"), ("twice", "read"), ("s", "measure")}
    assert result.images == 8
    assert result.confusion_crf is not None
    assert (result.confusion_crf == 8 * confusion_matrix(label, labels, 19)).all()
