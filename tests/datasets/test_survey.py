"""What is found out about pairs by looking at them once; what it means is the doctor's (test_doctor.py)."""

import io
import pickle
from functools import cache
from typing import Any

import broken
import numpy as np
import pytest
import tiny
from PIL import Image

from deeplab_ray import datasets
from deeplab_ray.datasets import Pair, survey
from deeplab_ray.datasets.alignment import find_offset
from deeplab_ray.datasets.facts import MOST_VALUES
from deeplab_ray.datasets.formats import Index
from deeplab_ray.datasets.survey import Facts, Options, look_at, merge
from deeplab_ray.datasets.texture import texture_of
from deeplab_ray.labels import IGNORE
from deeplab_ray.scenes.draw import render
from deeplab_ray.shards import Bad

CAMVID = broken.CAMVID.labels


@cache
def scene(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A drawn picture, uint8 96×128×3, and what is where on it, uint8 96×128."""
    return render(0, number, 96, 128)


def jpeg(pixels: np.ndarray, quality: int = 90, orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality, exif=exif)
    return stream.getvalue()


def look(image: bytes, label: bytes | None, labels: Any = CAMVID, **options: Any) -> Facts:
    pair = Pair("a", "a.png", None if label is None else "b.png")
    return look_at(labels, pair, image, label or b"", Options(**options))


NOISE = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
LABEL = np.kron(np.array([[0, 3], [11, 3]], np.uint8), np.ones((6, 10), np.uint8))
IMAGE = tiny.png(NOISE)


class TestCounts:
    def test_a_good_pair(self) -> None:
        facts = look(IMAGE, tiny.png(LABEL))
        assert (facts.ids, facts.sizes, facts.labels, facts.bad) == (["a"], [(12, 20)], 1, [])
        assert facts.bytes == [len(IMAGE) + len(tiny.png(LABEL))]
        assert facts.kinds == {"PNG of mode L": 1}
        assert facts.pixels == {0: 60, 3: 120, 11: 60}
        assert facts.images_with == {0: 1, 3: 1, 11: 1}
        assert facts.first_with == {0: "a", 3: "a", 11: "a"}
        assert set(facts.signs) == {"compared"}

    def test_merging_adds_up_and_keeps_the_order(self) -> None:
        parts = []
        for number, label in enumerate((LABEL, LABEL // 11, np.full_like(LABEL, 11))):
            pair = Pair(f"{number}", "a.png", "b.png")
            parts.append(look_at(CAMVID, pair, IMAGE, tiny.png(label), Options()))
        whole = merge([merge(parts[:1]), merge(parts[1:])])
        assert whole == merge(parts)
        assert whole.ids == ["0", "1", "2"]
        assert whole.pixels == {0: 60 + 180, 1: 60, 3: 120, 11: 60 + 240}
        assert whole.images_with == {0: 2, 1: 1, 3: 1, 11: 2}
        assert whole.first_with == {0: "0", 1: "1", 3: "0", 11: "0"}
        assert whole.sign("void").images == 1
        assert whole.sign("void").example == "2"
        assert len(set(whole.image_sha)) == 1
        assert len(set(whole.label_sha)) == 3
        assert merge([]) == Facts()

    def test_a_pair_takes_some_hundred_bytes(self) -> None:
        parts = [
            look_at(CAMVID, Pair(f"seq01/{n:08d}", "a", "b"), IMAGE, tiny.png(LABEL), Options()) for n in range(200)
        ]
        small, large = (len(pickle.dumps(merge(parts[:count]))) for count in (100, 200))
        assert (large - small) / 100 < 100

    def test_values_are_counted_as_long_as_there_are_not_too_many(self) -> None:
        parts = []
        for number in range(MOST_VALUES + 10):
            part = Facts(ids=[str(number)])
            part.pixels.update({number: 5 + number})
            part.images_with.update({number: 1})
            part.first_with = {number: str(number)}
            parts.append(part)
        whole = merge(parts)
        assert whole.capped
        assert set(whole.pixels) == set(whole.images_with) == set(whole.first_with) == set(range(10, MOST_VALUES + 10))
        assert not merge(parts[:MOST_VALUES]).capped

    def test_what_is_drawn_makes_a_label_of_its_own(self) -> None:
        shas = set()
        for drawn in (None, {"a": [1, 2]}, {"a": [1, 3]}):
            facts = look_at(CAMVID, Pair("a", "a.png", "b.png", drawn), IMAGE, tiny.png(LABEL), Options())
            shas |= set(facts.label_sha)
        assert len(shas) == 3


class TestBad:
    """A pair that is bad by itself, with its reason in one line."""

    @pytest.mark.parametrize(
        ("image", "label", "reason"),
        [
            (IMAGE, None, "it has no label file"),
            (b"<html>", tiny.png(LABEL), r"not an image in a format that is read \(6 bytes\)"),
            (tiny.png(NOISE)[:-30], tiny.png(LABEL), "unreadable"),
            (IMAGE, tiny.png(LABEL)[:-30], "unreadable"),
            (IMAGE, b"", "not an image: the file is empty"),
            (IMAGE, tiny.png(LABEL[:6]), "label is 20×6, image 20×12 pixels"),
            (IMAGE, tiny.png(LABEL + 1), r"label value 12 \(60 pixels\) is not in camvid's table$"),
            (IMAGE, tiny.png(LABEL * 20), r"label value 60 \(120 pixels\) is not in camvid's table, nor are 1 other"),
            (IMAGE, tiny.png(NOISE), "label is PNG of mode RGB, not an 8-bit single-channel or palette PNG"),
            (IMAGE, jpeg(LABEL), "label is JPEG of mode L, not an 8-bit"),
        ],
    )
    def test_its_reason(self, image: bytes, label: bytes | None, reason: str) -> None:
        (bad,) = (facts := look(image, label)).bad
        assert bad.id == "a"
        with pytest.raises(ValueError, match=reason):
            raise ValueError(bad.reason)
        assert facts.ids == ["a"]

    def test_an_image_that_is_broken_behind_its_header_shows_when_it_is_laid_under_its_label(self) -> None:
        broken = IMAGE[:-30]
        assert look(broken, tiny.png(LABEL), compared=0).bad == []
        assert "unreadable" in look(broken, tiny.png(LABEL)).bad[0].reason

    def test_a_label_that_nobody_has_is_not_missed(self) -> None:
        facts = look(IMAGE, None, needs_labels=False)
        assert (facts.bad, facts.labels, facts.sizes) == ([], 0, [(12, 20)])

    def test_a_larger_limit_is_for_labels_too(self) -> None:
        assert (
            "above the limit of 0.0: raise --max-megapixels" in look(IMAGE, tiny.png(LABEL), max_pixels=9).bad[0].reason
        )
        assert look(IMAGE, tiny.png(LABEL), max_pixels=240).bad == []

    def test_a_file_that_could_not_be_got(self) -> None:
        facts = merge([look(IMAGE, tiny.png(LABEL)), survey.of_bad(Pair("b", "b", "b"), "b is missing")])
        assert facts.ids == ["a", "b"]
        assert facts.bad == [Bad("b", "b is missing")]
        assert facts.bytes[1] == 0
        assert facts.labels == 2

    def test_while_classes_are_to_be_found_no_value_is_wrong(self) -> None:
        facts = look(IMAGE, tiny.png(LABEL * 20), knows_values=False)
        assert facts.bad == []
        assert facts.pixels == {0: 60, 60: 120, 220: 60}


class TestSigns:
    def test_a_photograph_as_a_label(self) -> None:
        image, label = scene(0)
        for photo in (image, image[..., 1], jpeg(image), jpeg(image[..., 1])):
            data = photo if isinstance(photo, bytes) else tiny.png(photo)
            facts = look(tiny.png(scene(1)[0]), data)
            assert facts.sign("photo").images == 1
            assert not facts.pixels
            assert look(tiny.png(label), data).sign("swapped").images == 1
        assert not look(tiny.png(image), tiny.png(label)).signs.keys() & {"photo", "swapped"}

    def test_lossy_labels_are_no_photographs(self) -> None:
        image, label = (np.kron(array, np.ones((4, 4), np.uint8)) for array in (scene(0)[0][..., 0], scene(0)[1]))
        palette = np.random.default_rng(1).integers(0, 256, (256, 3), np.uint8)
        for quality in (60, 95):
            for pixels in (label, palette[label]):
                facts = look(tiny.png(image), jpeg(pixels, quality))
                assert set(facts.signs) == {"lossy"}
                assert facts.sign("lossy").most > 12

    def test_smoothed_borders_are_told_from_values_that_are_none(self) -> None:
        """A mask that was scaled with smoothing, beside one with objects of a class too many."""
        image = tiny.png(np.zeros((96, 128, 3), np.uint8))
        known = Index({0: 0, 200: 1}, "mine")
        y, x = np.mgrid[:96, :128]
        disc = np.uint8(200) * (np.hypot(y - 48, x - 60) < 30)
        soft = np.asarray(Image.fromarray(disc).resize((64, 48)).resize((128, 96), Image.Resampling.BILINEAR))
        facts = look(image, tiny.png(soft), known)
        between = ~np.isin(soft, [0, 200])
        assert facts.sign("soft").pixels == between.sum() > 100
        assert facts.pixels == {0: (soft == 0).sum(), 200: (soft == 200).sum()}
        assert "is not in mine's table" in facts.bad[0].reason

        others = disc.copy()
        for number in range(8):
            others[4 + 8 * number : 9 + 8 * number, 4:9] = 10 + number
        facts = look(image, tiny.png(others), known)
        assert set(facts.signs) == {"unknown"}
        assert facts.sign("unknown").pixels == 8 * 25
        assert facts.pixels[17] == 25

    def test_borders_are_told_while_classes_are_not_known(self) -> None:
        y, x = np.mgrid[:96, :128]
        disc = np.uint8(200) * (np.hypot(y - 48, x - 60) < 30)
        soft = np.asarray(Image.fromarray(disc).resize((64, 48)).resize((128, 96), Image.Resampling.BILINEAR))
        image = tiny.png(np.zeros((96, 128, 3), np.uint8))
        facts = look(image, tiny.png(soft), Index({}, "unknown"), knows_values=False)
        assert set(facts.pixels) == {0, 200}
        assert facts.sign("soft").images == 1

    @pytest.mark.parametrize(
        ("pixels", "kind"),
        [
            (np.dstack([LABEL] * 3), "PNG of mode RGB with three equal channels"),
            (np.dstack([LABEL, LABEL, LABEL + 1]), "PNG of mode RGB"),
            (LABEL.astype(np.uint16) * 1000, "PNG of mode I;16"),
        ],
    )
    def test_labels_of_another_kind(self, pixels: np.ndarray, kind: str) -> None:
        facts = look(IMAGE, tiny.png(pixels))
        assert facts.unread.keys() == {kind}
        assert facts.unread[kind].example == "a"

    @pytest.mark.parametrize(
        ("height", "width", "how"),
        [
            (12, 20, None),
            (20, 12, "are turned by 90° against their images"),
            (6, 10, "are 1/2 as large as their images"),
            (24, 40, "are 2 times as large as their images"),
            (3, 5, "are 1/4 as large as their images"),
            (12, 28, "differ from their images by +8 pixels in width and +0 in height"),
            (11, 20, "differ from their images by +0 pixels in width and -1 in height"),
            (12, 90, "have other sizes than their images"),
        ],
    )
    def test_how_a_size_differs(self, height: int, width: int, how: str | None) -> None:
        facts = look(IMAGE, tiny.png(np.zeros((height, width), np.uint8)))
        assert set(facts.misfits) == ({how} if how else set())
        if how:
            assert facts.misfits[how].detail == f"label {width}×{height}, image 20×12"


class TestPlaces:
    def test_labels_that_lie_on_their_images(self) -> None:
        for number in range(4):
            image, label = scene(number)
            facts = look(jpeg(image), tiny.png(label), datasets.get("scenes").labels)
            assert facts.offsets == {(0, 0, 1): 1}

    @pytest.mark.parametrize(("right", "down"), [(8, 0), (-5, 12), (0, -9)])
    def test_labels_that_lie_beside_them(self, right: int, down: int) -> None:
        for number in range(4):
            image, label = scene(number)
            shifted = np.roll(label, (down, right), (0, 1))
            assert find_offset(image, shifted) == (right, down, 1)

    def test_large_pictures_are_measured_in_their_own_pixels(self) -> None:
        image, label = render(0, 0, 320, 1040)
        assert find_offset(image, np.roll(label, (24, -42), (0, 1))) == (-42, 24, 3)

    def test_of_other_pictures_labels_and_of_noise_nothing_is_said(self) -> None:
        random = np.random.default_rng(0)
        for number in range(6):
            image, label = scene(number)
            assert find_offset(image, scene(number + 1)[1][:, ::-1]) is None
            assert find_offset(image, label[::-1, ::-1]) is None
            assert find_offset(image, random.integers(0, 12, label.shape)) is None
            assert find_offset(random.integers(0, 256, image.shape, np.uint8), label) is None
        assert find_offset(image, np.zeros_like(label)) is None
        assert find_offset(np.zeros_like(image), label) is None
        assert find_offset(image[:40, :40], label[:40, :40]) is None

    def test_only_a_sample_is_laid_over_and_always_the_same(self) -> None:
        pairs = [(tiny.png(NOISE + number), tiny.png(LABEL)) for number in range(60)]
        for share in (0.0, survey.share_compared(128), 1.0):
            compared = [bool(look(*pair, compared=share).sign("compared").images) for pair in pairs]
            assert compared == [bool(look(*pair, compared=share).sign("compared").images) for pair in pairs]
            assert abs(sum(compared) - share * 60) <= (14 if share == 0.5 else 0)
        assert survey.share_compared(128) == 0.5
        assert survey.share_compared(3) == survey.share_compared(0) == 1


class TestOrientation:
    @pytest.mark.parametrize("exif", [True, False])
    def test_by_its_size_a_label_tells_on_which_picture_it_was_drawn(self, exif: bool) -> None:
        image, label = scene(0)
        data = jpeg(np.rot90(image), orientation=6)
        upright = look(data, tiny.png(label), datasets.get("scenes").labels, exif=exif)
        stored = look(data, tiny.png(np.rot90(label)), datasets.get("scenes").labels, exif=exif)
        right, wrong = (upright, stored) if exif else (stored, upright)
        assert right.bad == []
        assert right.sign("fits").images == 1
        assert wrong.sign("not upright" if exif else "not stored").detail
        assert len(wrong.bad) == 1
        assert right.sizes == wrong.sizes == [(96, 128) if exif else (128, 96)]

    @pytest.mark.parametrize("orientation", [2, 3, 4])
    def test_where_sizes_do_not_tell_outlines_do(self, orientation: int) -> None:
        back = {2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1]}[orientation]
        labels = datasets.get("scenes").labels
        for number in range(4):
            image, label = scene(number)
            data = jpeg(back(image), orientation=orientation)
            for exif in (True, False):
                upright = look(data, tiny.png(label), labels, exif=exif)
                stored = look(data, tiny.png(back(label)), labels, exif=exif)
                right, wrong = (upright, stored) if exif else (stored, upright)
                assert right.sign("fits").images == 1
                assert wrong.sign("aligned stored" if exif else "aligned upright").images == 1
                assert not wrong.sign("fits").images


def test_real_labels_have_even_areas() -> None:
    for number in range(6):
        image, label = scene(number)
        photo, areas = texture_of(tiny.png(image)), texture_of(tiny.png(label))
        assert photo
        assert areas
        assert photo.is_photo
        assert not areas.is_photo
        assert areas.flat > 0.9
    assert texture_of(b"<html>") is None
    assert Index({5: IGNORE}).train_id(5) == IGNORE
