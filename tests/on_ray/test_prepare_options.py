"""What may be asked for when a set is prepared, and what is said of it before anything is written."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from numpy.typing import NDArray
from PIL import Image

from deeplab_ray.errors import UserError
from deeplab_ray.images import decode_image, decode_label
from deeplab_ray.labels import IGNORE
from deeplab_ray.on_ray.prepare import prepare
from deeplab_ray.shards import Split, open_split

pytestmark = pytest.mark.usefixtures("ray_cluster")

ORIENTATION = 0x0112


def write(folder: Path, id: str, image: NDArray[np.uint8], label: NDArray[np.uint8], split: str = "val") -> None:
    tiny.write_png(folder / split / f"{id}.png", image)
    tiny.write_png(folder / f"{split}annot" / f"{id}.png", label)


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def label(height: int, width: int) -> NDArray[np.uint8]:
    """Every row a class of CamVid's own."""
    return np.repeat(np.arange(height, dtype=np.uint8)[:, None] % 12, width, axis=1)


def prepared(source: Path, out: Path, **options: Any) -> Split:
    prepare("camvid", str(source), str(out), ["val"], **options)
    return open_split(str(out), "val")


def test_large_images_are_cut_into_tiles_whose_pixels_are_the_images(tmp_path: Path) -> None:
    image, truth = noise(50, 70), label(50, 70)
    write(tmp_path / "in", "large", image, truth)
    write(tmp_path / "in", "small", noise(20, 32), label(20, 32))
    split = prepared(tmp_path / "in", tmp_path / "out", tiles=(20, 32), overlap=4, rows_per_shard=4)
    samples = {sample.id: sample for sample in map(split.read, range(len(split)))}
    starts = [(top, left) for top in (0, 16, 30) for left in (0, 28, 38)]
    assert list(samples) == [*(f"large_y{top}_x{left}" for top, left in starts), "small"]
    for top, left in starts:
        sample = samples[f"large_y{top}_x{left}"]
        assert (sample.height, sample.width) == (20, 32)
        part = (slice(top, top + 20), slice(left, left + 32))
        np.testing.assert_array_equal(decode_image(sample.image), image[part])
        assert sample.label
        raw = truth[part]
        np.testing.assert_array_equal(decode_label(sample.label), np.where(raw == 11, IGNORE, raw))
    assert samples["small"].image == (tmp_path / "in/val/small.png").read_bytes()
    assert split.manifest.options == {"tiles": {"height": 20, "width": 32, "overlap": 4}}
    ids = np.concatenate([decode_label(sample.label or b"").ravel() for sample in samples.values()])
    assert split.manifest.pixels == np.bincount(ids[ids != IGNORE], minlength=11).tolist()
    assert [shard.rows for shard in split.manifest.shards] == [4, 3, 3]


def test_shards_are_about_so_large_and_alike(tmp_path: Path) -> None:
    for number in range(13):
        write(tmp_path / "in", f"{number:02d}", noise(60, 80, number), label(60, 80))
    split = prepared(tmp_path / "in", tmp_path / "out", shard_mb=0.05)
    sizes = [shard.bytes for shard in split.manifest.shards]
    assert len(sizes) == 4
    assert max(sizes) < 1.4 * min(sizes)
    assert max(sizes) < 65_000
    assert len(prepared(tmp_path / "in", tmp_path / "one").manifest.shards) == 1


def test_images_that_exif_turns_stand_upright_or_as_they_are_stored(tmp_path: Path) -> None:
    # Turned by a quarter, it is 20 high and 30 wide.
    stored = noise(30, 20)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    (tmp_path / "in/val").mkdir(parents=True)
    Image.fromarray(stored).save(tmp_path / "in/val/a.png", exif=exif)
    upright = np.rot90(stored, -1)
    tiny.write_png(tmp_path / "in/valannot/a.png", label(20, 30))
    split = prepared(tmp_path / "in", tmp_path / "out")
    sample = split.read(0)
    np.testing.assert_array_equal(decode_image(sample.image, upright=False), upright)
    np.testing.assert_array_equal(decode_image(sample.image, upright=True), upright)
    assert (sample.height, sample.width) == (20, 30)
    assert list(split.manifest.changed.values()) == [1]
    assert "EXIF" in next(iter(split.manifest.changed))

    tiny.write_png(tmp_path / "in/valannot/a.png", label(30, 20))
    with pytest.raises(UserError, match="--exif ignore"):
        prepared(tmp_path / "in", tmp_path / "refused")
    split = prepared(tmp_path / "in", tmp_path / "stored", exif="ignore")
    np.testing.assert_array_equal(decode_image(split.read(0).image, upright=True), stored)
    assert split.manifest.options == {"exif": "ignore"}


def test_images_above_the_limit_are_bad_and_the_limit_can_be_moved(tmp_path: Path) -> None:
    write(tmp_path / "in", "small", noise(20, 30), label(20, 30))
    write(tmp_path / "in", "large", noise(60, 80), label(60, 80))
    with pytest.raises(UserError, match=r"large: image is 80×60 = .* megapixels, above the limit"):
        prepared(tmp_path / "in", tmp_path / "out", max_megapixels=0.002)
    assert len(prepared(tmp_path / "in", tmp_path / "out", max_megapixels=0.0048)) == 2


VOC_OBJECTS = {"much": 40, "little": 9, "none": 0}


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """VOC images of 10×10 pixels, whose labels are background but for so many pixels of a cat, and five of void."""
    folder = tmp_path / "voc"
    (folder / "ImageSets/Segmentation").mkdir(parents=True)
    (folder / "JPEGImages").mkdir()
    (folder / "ImageSets/Segmentation/val.txt").write_text("\n".join(VOC_OBJECTS))
    for id, count in VOC_OBJECTS.items():
        file = io.BytesIO()
        Image.fromarray(noise(10, 10, count)).save(file, "JPEG")
        (folder / f"JPEGImages/{id}.jpg").write_bytes(file.getvalue())
        truth = np.zeros(100, np.uint8)
        truth[:count], truth[-5:] = 8, 255
        tiny.write_png(folder / f"SegmentationClass/{id}.png", truth.reshape(10, 10))
    return folder


def test_images_that_show_too_little_of_any_object_are_left_out(
    voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def kept(out: str, least: int) -> list[str]:
        manifest = prepare("voc12", str(voc), str(tmp_path / out), ["val"], min_object_pixels=least)["val"]
        assert manifest.dropped == 3 - manifest.images
        split = open_split(str(tmp_path / out), "val")
        return [split.read(index).id for index in range(len(split))]

    assert kept("all", 0) == ["little", "much", "none"]
    assert kept("nine", 9) == ["little", "much"]
    assert kept("ten", 10) == ["much"]
    assert "val: 2 of 3 images are left out: fewer than 10 pixels of objects" in capsys.readouterr().out
    assert open_split(str(tmp_path / "ten"), "val").manifest.options == {"min_object_pixels": 10}
    with pytest.raises(UserError, match=r"no image of voc12 \(val\) is left"):
        kept("none", 41)
    assert not (tmp_path / "none").exists()


def test_what_the_doctor_finds_is_told_first_kept_and_strictly_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Classes 6 to 10 occur nowhere, and two images are the same.
    for id, seed in (("a", 0), ("b", 1), ("c", 0)):
        write(tmp_path / "in", id, noise(6, 8, seed), label(6, 8))
    with pytest.raises(UserError, match=r"^camvid is not prepared as it is \(as --strict asks\): .*\bc\b") as refused:
        prepared(tmp_path / "in", tmp_path / "out", strict=True)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()
    told = capsys.readouterr().out
    split = prepared(tmp_path / "in", tmp_path / "out")
    findings = split.manifest.findings
    assert {"warning"} <= {finding["severity"] for finding in findings}
    for finding in findings:
        fix = f" → {finding['fix']}" if finding["fix"] else ""
        assert f"{finding['severity']} (val): {finding['message']}{fix}\n" in told


def test_a_set_that_would_be_useless_is_refused_with_what_to_do(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / "in", str(number), noise(6, 8, number), np.full((6, 8), 11, np.uint8))
    with pytest.raises(UserError, match=r"^camvid is not prepared as it is: 100 % of the pixels of val are.* → "):
        prepared(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_that_are_passed_over_are_told(tmp_path: Path) -> None:
    for id in "ab":
        write(tmp_path / "in", id, noise(6, 8, ord(id)), label(6, 8))
    (tmp_path / "in/val/c.tif").write_bytes(b"")
    (finding,) = (
        each for each in prepared(tmp_path / "in", tmp_path / "out").manifest.findings if each["code"] == "passed-over"
    )
    assert finding["severity"] == "warning"
    assert finding["message"] == "1 file is passed over in val: 1 .tif, such as c.tif"
