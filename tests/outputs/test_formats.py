"""What is written of a prediction, format by format."""

import io
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from deeplab_ray.datasets import cityscapes, voc12
from deeplab_ray.errors import UserError
from deeplab_ray.images import decode_label
from deeplab_ray.labels import IGNORE, ClassTable
from deeplab_ray.local.s3_server import EmbeddedS3
from deeplab_ray.outputs.formats import NAMES, Format, Prediction, make
from deeplab_ray.outputs.journal import PROGRESS
from deeplab_ray.scenes.draw import render
from deeplab_ray.storage.location import Location, locate

CITYSCAPES, VOC = cityscapes.DATASET.table, voc12.DATASET.table
VOC_FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"


def scene(index: int = 0, id: str = "a") -> Prediction:
    """A drawn scene of 60×90 with Cityscapes' train ids."""
    image, raw = render(0, index, 60, 90)
    labels = cityscapes.DATASET.labels.decode(png(raw), *raw.shape, None)
    scores = np.random.default_rng(index).normal(size=(19, 9, 13)).astype(np.float16)
    return Prediction(id, image, labels, png(image), png(labels), scores, "corners 8")


def png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def flat(labels: NDArray[np.uint8], colour: tuple[int, int, int] = (0, 0, 0)) -> Prediction:
    image = np.broadcast_to(np.uint8(colour), (*labels.shape, 3))
    return Prediction("a", image, labels, png(image), None, np.zeros((1, 1, 1), np.float16), "corners 8")


def voc(prediction: Prediction) -> Prediction:
    """The same with labels of 21 classes."""
    return replace(prediction, labels=(np.arange(60 * 90, dtype=np.uint64).reshape(60, 90) // 7 % 21).astype(np.uint8))


def test_an_unknown_name_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match=r"no format 'png'.*cityscapes, voc, index, overlay, scores"):
        make("png", VOC)


@pytest.mark.parametrize("name", NAMES)
def test_formats_are_small_and_give_the_same_bytes_in_any_process(name: str) -> None:
    format = make(name, CITYSCAPES)
    assert format.name == name
    content = format.encode(scene())
    assert format.encode(scene()) == content
    sent = pickle.dumps(format)
    assert len(sent) < 20_000
    assert pickle.loads(sent).encode(scene()) == content


@pytest.mark.parametrize("name", NAMES)
def test_formats_have_a_folder_of_their_own(name: str) -> None:
    ids = ["a", "../../x", ".progress/journal", "", "legend", "A"]
    paths = [make(name, VOC).path(id) for id in ids]
    folder = "results" if name == "voc" else name
    assert all(path.startswith(f"{folder}/") and ".." not in path.split("/") for path in paths)
    assert len(set(paths)) == len(ids)


@pytest.mark.parametrize("name", ["cityscapes", "index", "scores"])
def test_most_have_nothing_to_finish(name: str, tmp_path: Path) -> None:
    assert make(name, VOC).finish(locate(str(tmp_path))) is None
    assert not list(tmp_path.iterdir())


def test_index_holds_train_ids_or_the_sets_own_values() -> None:
    prediction = scene()
    trained, own = make("index", CITYSCAPES), make("index", CITYSCAPES, "own")
    assert np.array_equal(decode_label(trained.encode(prediction)), prediction.labels)
    assert np.array_equal(decode_label(own.encode(prediction)), CITYSCAPES.to_values(prediction.labels))
    assert trained.path("val/a") == own.path("val/a") == "index/val/a.png"


@pytest.mark.parametrize("format", [make("index", VOC, "own"), make("voc", VOC), make("cityscapes", VOC)])
def test_a_train_id_that_the_table_lacks_is_refused(format: Format) -> None:
    with pytest.raises(ValueError, match="train id 40 is none of the 21 classes"):
        format.encode(flat(np.full((4, 4), 40, np.uint8)))  # type: ignore[attr-defined]


# VOC


def test_voc_is_a_palette_png_in_vocs_colours() -> None:
    labels = np.arange(24, dtype=np.uint8).reshape(4, 6) % 21
    labels[0, 0] = IGNORE
    image = Image.open(io.BytesIO(make("voc", VOC).encode(flat(labels))))
    assert (image.format, image.mode) == ("PNG", "P")
    assert np.array_equal(np.asarray(image), labels)
    colours = np.asarray(image.convert("RGB"))
    assert colours[0, 1].tolist() == [128, 0, 0]
    assert colours[3, 2].tolist() == list(VOC.colours[20])
    assert colours[0, 0].tolist() == [224, 224, 192]
    again = voc12.DATASET.labels.decode(make("voc", VOC).encode(flat(labels)), *labels.shape, None)
    assert np.array_equal(again, labels)


def test_voc_of_another_set_holds_its_values_in_its_colours() -> None:
    table = ClassTable(("road", "sky"), ((1, 2, 3), (4, 5, 6)), (7, 255), ignore_value=0)
    content = make("voc", table).encode(flat(np.uint8([[0, 1, IGNORE]])))
    image = Image.open(io.BytesIO(content))
    assert np.asarray(image).tolist() == [[7, 255, 0]]
    assert np.asarray(image.convert("RGB")).tolist() == [[[1, 2, 3], [4, 5, 6], [0, 0, 0]]]
    assert content[24] == 8, "bits of a sample"


def write(output: Location, ids: list[str]) -> dict[str, bytes]:
    format, contents = make("voc", VOC), {}
    for number, id in enumerate(ids):
        contents[format.path(id)] = format.encode(voc(scene(number, id)))
    for path, content in contents.items():
        (output / path).write_bytes(content)
    return contents


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_the_tar_holds_the_files(where: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if where == "s3":
        server: EmbeddedS3 = request.getfixturevalue("s3")
        server.make_bucket("tar")
    output = locate("s3://tar/out" if where == "s3" else str(tmp_path))
    contents = write(output, ["2008_000002", "2008_000001", "é/ü", "../x", "long" * 40])
    (output / VOC_FOLDER / "2008_000001.png.0123.part").write_bytes(b"left by a process that was killed")
    assert make("voc", VOC).finish(output) == f"{output}/results.tar"
    first = (output / "results.tar").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        members = tar.getmembers()
        assert [member.name for member in members] == sorted(contents)
        assert all(member.isfile() and member.name.startswith(f"{VOC_FOLDER}/") for member in members)
        assert {(member.mtime, member.uid, member.gid, member.uname, member.mode) for member in members} == {
            (0, 0, 0, "", 0o644)
        }
        assert {member.name: tar.extractfile(member).read() for member in members} == contents  # type: ignore[union-attr]
    assert make("voc", VOC).finish(output) == f"{output}/results.tar"
    assert (output / "results.tar").read_bytes() == first
    assert not (output / PROGRESS).files(recursive=True)


def test_many_files_go_into_the_tar_in_their_order(tmp_path: Path) -> None:
    contents = {f"{VOC_FOLDER}/{number:04d}.png": f"{number}".encode() for number in range(200)}
    for path, content in contents.items():
        (locate(str(tmp_path)) / path).write_bytes(content)
    make("voc", VOC).finish(locate(str(tmp_path)))
    with tarfile.open(tmp_path / "results.tar") as tar:
        assert [(m.name, tar.extractfile(m).read()) for m in tar] == list(contents.items())  # type: ignore[union-attr]


def test_without_images_there_is_no_tar(tmp_path: Path) -> None:
    assert make("voc", VOC).finish(locate(str(tmp_path))) is None
    assert not list(tmp_path.iterdir())


def test_a_tar_that_fails_leaves_the_one_before(tmp_path: Path) -> None:
    output = locate(str(tmp_path))
    write(output, ["a"])
    make("voc", VOC).finish(output)
    before = (tmp_path / "results.tar").read_bytes()
    unreadable = tmp_path / VOC_FOLDER / "b.png"
    unreadable.write_bytes(b"never read")
    with pytest.MonkeyPatch.context() as patch:
        read = Location.read_bytes
        patch.setattr(Location, "read_bytes", lambda self: _fail() if self.path == str(unreadable) else read(self))
        with pytest.raises(OSError, match="storage is gone"):
            make("voc", VOC).finish(output)
    assert (tmp_path / "results.tar").read_bytes() == before
    assert not (output / PROGRESS).files(recursive=True)


def _fail() -> bytes:
    raise OSError("storage is gone")


# For people


def decoded(content: bytes) -> NDArray[np.int16]:
    image = Image.open(io.BytesIO(content))
    assert (image.format, image.mode) == ("JPEG", "RGB")
    return np.asarray(image).astype(np.int16)


def test_an_overlay_is_half_the_image_and_half_the_class() -> None:
    labels = np.zeros((96, 160), np.uint8)
    labels[:, 64:] = 15
    labels[:48, 112:] = IGNORE
    pixels = decoded(make("overlay", VOC).encode(flat(labels, (200, 100, 40))))
    assert pixels.shape == (96, 160, 3)
    expected = {(48, 30): (100, 50, 20), (80, 90): (196, 114, 84), (20, 140): (200, 100, 40)}
    for place, colour in expected.items():
        # Beyond rounding, what is off is JPEG's.
        assert np.abs(pixels[place] - colour).max() <= 3, place


@pytest.mark.parametrize(("height", "bright"), [(96, [64]), (704, [63, 64])])
def test_an_overlay_shows_borders(height: int, bright: list[int]) -> None:
    labels = np.zeros((height, 128), np.uint8)
    labels[:, 64:] = 15
    row = decoded(make("overlay", VOC).encode(flat(labels)))[height // 2].mean(axis=1)
    assert np.flatnonzero(row > 200).tolist() == bright
    assert (row[:48] < 10).all()


def test_an_overlay_of_a_scene_has_its_size() -> None:
    prediction = scene()
    assert decoded(make("overlay", CITYSCAPES).encode(prediction)).shape == prediction.image.shape


def test_an_overlay_needs_an_image_of_the_labels_size() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        make("overlay", VOC).encode(replace(scene(), labels=np.zeros((9, 9), np.uint8)))
    with pytest.raises(ValueError, match="too large for a JPEG"):
        make("overlay", VOC).encode(flat(np.zeros((1, 70_000), np.uint8)))


def test_the_legend_has_every_class(tmp_path: Path) -> None:
    output = locate(str(tmp_path))
    overlay = make("overlay", CITYSCAPES)
    assert overlay.path("legend") == "overlay/legend.jpg"
    assert overlay.path("legend.png/x") == "overlay/legend%2Epng/x.jpg"
    assert overlay.finish(output) == str(tmp_path / "overlay" / "legend.png")
    content = (tmp_path / "overlay" / "legend.png").read_bytes()
    image = Image.open(io.BytesIO(content))
    counted = {colour: count for count, colour in image.getcolors(100_000) or []}
    pixels = np.asarray(image)
    assert all(counted[colour] >= 500 for colour in CITYSCAPES.colours)
    # Beside every patch of colour something dark is written.
    for colour in CITYSCAPES.colours:
        rows = np.flatnonzero((pixels == colour).all(axis=2).sum(axis=1) > 20)
        assert (pixels[rows, 55:].max(axis=2) < 60).sum() > 30
    overlay.finish(output)
    assert (tmp_path / "overlay" / "legend.png").read_bytes() == content


def test_a_legend_of_many_classes_is_no_ribbon(tmp_path: Path) -> None:
    count = 150
    names = tuple(f"class\n{number}" for number in range(count))
    table = ClassTable(names, tuple((number, 255 - number, 99) for number in range(count)), tuple(range(count)))
    make("overlay", table).finish(locate(str(tmp_path)))
    with Image.open(tmp_path / "overlay" / "legend.png") as image:
        assert 0.5 < image.width / image.height < 3
        colours = {colour for _, colour in image.getcolors(100_000)}  # type: ignore[union-attr]
    assert set(table.colours) <= colours
