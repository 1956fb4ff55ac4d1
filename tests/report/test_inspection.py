"""What an inspection tells of a prepared set: counts, classes, sizes, samples, differences, damage."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import prepared
import pytest
from pages import HOSTILE, Page
from PIL import Image
from prepared import CLASSES, Row, flip, labelled

from deeplab_ray.errors import UserError
from deeplab_ray.labels import ClassTable
from deeplab_ray.report.inspection import format_text, inspect, write_page
from deeplab_ray.report.inspection import verification as verifying
from deeplab_ray.report.inspection.charts import share_scale
from deeplab_ray.report.inspection.columns import read_columns
from deeplab_ray.report.inspection.wording import size_of
from deeplab_ray.shards import Bad, open_split

TRAIN = [
    labelled("a", 20, 50, 10),
    labelled("b", 30, 40, 4, ignored=6),
    Row("c", None, 8, 10),
    labelled("d", 200, height=20, width=10),
    labelled("e", 0, 80),
]
"""250 pixels of sky, 170 of road, 14 of car, none of bus, 6 ignored; four of 8×10, one of 20×10."""
VAL = [labelled("x", 40, 20, 0, 20), labelled("a", 20, 60), labelled("y", 0, 0, 0, 60, height=6)]
TOTAL = 250 + 170 + 14


@pytest.fixture
def streets(tmp_path: Path) -> Path:
    """A set of two splits."""
    findings = [
        {"severity": "note", "code": "ignored", "message": "1.4 % are ignored", "fix": ""},
        {"severity": "warning", "code": "class-missing", "message": "bus never occurs", "fix": "leave it out"},
    ]
    prepared.write(tmp_path, "train", TRAIN, bad=[Bad("z", "its label is missing")], findings=findings)
    prepared.write(tmp_path, "val", VAL, changed={"16 bits to 8": 1}, options={"tiles": "8 10"})
    return tmp_path


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def pictures(page: Page, kind: str) -> dict[str, Image.Image]:
    """The page's pictures whose text begins with `kind`, by the id that follows."""
    found = {}
    for source, text in zip(page.values("img", "src"), page.values("img", "alt"), strict=True):
        if text.startswith(kind):
            found[text.removeprefix(kind)] = Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))
    return found


def test_the_text_tells_what_was_put_in(streets: Path) -> None:
    text = format_text(inspect(str(streets)))
    told = lines(text)
    assert told[0] == [f"{streets}:", "train,", "val"]
    for line in (
        ["images", "5", "3"],
        ["labelled", "4", "3"],
        ["labelled", "pixels", f"{TOTAL}", "220"],
        ["bad", "pairs,", "left", "out", "1", "0"],
        ["shards", "3", "2"],
        ["height", "8", "/", "8", "/", "20", "6", "/", "8", "/", "8"],
        ["sizes", "2", "2"],
        ["sky", "0", "#0000fa", f"{100 * 250 / TOTAL:.2f}", f"{100 * 60 / 220:.2f}"],
        ["bus", "3", "#00fa00", "0", f"{100 * 80 / 220:.2f}"],
    ):
        assert line in told
    assert "train: 10×8 (80.0 %), 10×20 (20.0 %)" in text
    assert "  z: its label is missing" in text
    assert "  warning class-missing (train): bus never occurs → leave it out" in text
    assert "\n  note ignored (train): 1.4 % are ignored\n" in text
    assert "val: prepared with tiles 8 10." in text
    assert "val: 1 image changed: 16 bits to 8." in text
    assert text.endswith("Checksums were not compared: --verify does.")


def test_the_page_tells_the_same(streets: Path) -> None:
    page = Page(write_page(inspect(str(streets), samples=2)))
    assert "Images 8 5 train, 3 val Classes 4 read by streets" in page.text
    assert re.search(rf"train 5 4 {TOTAL} 1 3 .* val 3 3 220 0 2 ", page.text)
    assert f"road 1 {100 * 170 / TOTAL:.2f} {100 * 80 / 220:.2f} car 2 " in page.text
    assert "z its label is missing" in page.text
    assert "warning bus never occurs (train; class-missing) leave it out" in page.text
    assert "Samples of train 2 of 5 images, drawn at random (seed 0) from those with a label." in page.text


def test_the_page_needs_nothing_but_itself_and_runs_nothing(streets: Path) -> None:
    html = write_page(inspect(str(streets), samples=5))
    page = Page(html)
    assert not {"script", "iframe", "object", "embed"} & set(page.tags)
    assert "http" not in html.replace("http-equiv", "")
    assert "url(" not in html
    links = [value for _, name, value in page.attributes if name in ("src", "href", "srcset")]
    assert len(links) == 1 + 2 * (4 + 3)
    assert all(link.startswith("data:") for link in links)


def test_bars_stand_for_the_shares(streets: Path) -> None:
    page = Page(write_page(inspect(str(streets))))
    bars = [style for style in page.values("i", "style") if style.startswith("width")]
    found = [
        re.fullmatch(r"width: ([\d.]+)%; background: color-mix\(in srgb, (rgb\(.*\)) \d+%, .*", bar) for bar in bars
    ]
    widths = np.array([float(each[1]) for each in found if each]).reshape(4, 2)
    shares = np.array([[250, 60], [170, 80], [14, 0], [0, 80]]) / [TOTAL, 220]
    assert widths / widths.max() == pytest.approx(shares / shares.max(), abs=1e-3)
    assert [each[2] for each in found if each][::2] == [f"rgb({r} {g} {b})" for r, g, b in CLASSES.colours]


def test_scales_are_logarithmic_where_bars_would_vanish() -> None:
    even = share_scale([0.5, 0.01, 0.0, None])
    assert not even.logarithmic
    assert even.at(0.25) == pytest.approx(even.at(0.5) / 2)
    wide = share_scale([0.5, 0.002, 0.0, None])
    assert wide.logarithmic
    assert [tick.text for tick in wide.ticks] == ["0.1", "1", "10", "100"]
    assert [tick.at for tick in wide.ticks] == pytest.approx([wide.at(share) for share in (0.001, 0.01, 0.1, 1)])
    assert wide.at(0.002) > 5
    assert wide.at(0.0) == wide.at(None) == 0
    assert share_scale([]).at(0) == 0


def test_samples_show_the_image_and_its_labels_over_it(tmp_path: Path) -> None:
    label = np.repeat([0, 2, 255], 40).astype(np.uint8)[None].repeat(60, axis=0)
    prepared.write(tmp_path, "train", [Row("a/b", label, 60, 120)])
    page = Page(write_page(inspect(str(tmp_path), samples=3)))
    image, overlay = (np.asarray(pictures(page, kind)["a/b"]) for kind in ("image ", "labels of "))
    colour = np.array([100, 120, 140])
    middles = [overlay[30, x].astype(int) for x in (20, 60, 100)]
    for pixel, other in zip(middles, (CLASSES.colours[0], CLASSES.colours[2], colour), strict=True):
        assert pixel == pytest.approx((colour + other) / 2, abs=6)
    assert image[30, 60].astype(int) == pytest.approx(colour, abs=3)
    assert overlay[30, 40].min() > 180  # the line between sky and car
    assert "a/b 120×60 sky 50 % car 50 % not counted 33 %" in page.text
    assert "Classes" in page.text
    legend = page.text.split("Samples of train")[1].split("a/b")[0]
    assert "sky car" in legend
    assert "road" not in legend


def test_samples_are_drawn_by_their_seed(tmp_path: Path) -> None:
    prepared.write(tmp_path, "train", [labelled(f"id{i:02d}", 80) for i in range(40)], per_shard=7)
    drawn = [[look.id for look in inspect(str(tmp_path), samples=9, seed=seed).facts[0].looks] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] == sorted(set(drawn[0]))
    assert len(drawn[0]) == 9
    assert drawn[2] != drawn[0]
    assert len(inspect(str(tmp_path), samples=100).facts[0].looks) == 40


def test_a_split_without_labels_shows_its_images(tmp_path: Path) -> None:
    prepared.write(tmp_path, "test", [Row("a", None, 8, 10)])
    found = inspect(str(tmp_path), samples=1)
    page = Page(write_page(found))
    assert list(pictures(page, "image ")) == ["a"]
    assert not pictures(page, "labels")
    assert "None of the images has a labelled pixel." in page.text
    assert ["sky", "0", "#0000fa", "–"] in lines(format_text(found))


def test_a_split_of_no_images(tmp_path: Path) -> None:
    prepared.write(tmp_path, "train", [])
    found = inspect(str(tmp_path), samples=3)
    assert ["images", "0"] in lines(format_text(found))
    assert "Samples" not in Page(write_page(found)).text


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (Row("a", np.full((8, 10), 7, np.uint8), 8, 10), "the label holds 7, which is none of the 4 classes"),
        (Row("a", np.zeros((8, 11), np.uint8), 8, 10), "the label is 11×8, its row says 10×8"),
        (Row("a", None, 8, 10, told={"height": 9}), "the image is 10×8, its row says 10×9"),
        (Row("a", None, 8, 10, told={"image": b"GIF?"}), "not an image in a format that is read (4 bytes)"),
    ],
    ids=["value", "label", "row", "image"],
)
def test_a_sample_that_cannot_be_shown_tells_why(tmp_path: Path, row: Row, said: str) -> None:
    prepared.write(tmp_path, "train", [row])
    found = inspect(str(tmp_path), samples=1)
    assert found.odd_samples == [f"a: {said}"]
    assert not found.problems
    for text in (format_text(found), Page(write_page(found)).text):
        assert said in text


def test_sizes_of_a_large_split_are_those_of_shards_drawn_by_the_seed(tmp_path: Path) -> None:
    rows = [labelled(f"{i}", 10 * (i + 1), height=i + 1) for i in range(30)]
    prepared.write(tmp_path, "train", rows, per_shard=3)
    split = open_split(str(tmp_path), "train")
    all_of_it = read_columns(split, seed=0)
    assert all_of_it.sizes == {(i + 1, 10): 1 for i in range(30)}
    assert all_of_it.ids.to_pylist() == [f"{i}" for i in range(30)]
    part = read_columns(split, seed=0, at_most=10)
    assert (part.images, part.shards) == (9, 3)
    assert part.ids.to_pylist() == read_columns(split, seed=0, at_most=10).ids.to_pylist()
    assert part.ids.to_pylist() != read_columns(split, seed=1, at_most=10).ids.to_pylist()
    assert read_columns(split, seed=0, at_most=1).images == 3


def test_what_was_not_read_is_not_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in ("train", "val"):
        prepared.write(tmp_path, split, [labelled(f"{split}{i}", 80) for i in range(12)], per_shard=3)
    monkeypatch.setattr("deeplab_ray.report.inspection.columns.READ_AT_MOST", {False: 6, True: 6})
    found = inspect(str(tmp_path), "train", "val")
    for text in (format_text(found), Page(write_page(found)).text):
        assert "train: ids and sizes of 6 of 12 images, those in 2 of 4 shards." in text
        assert "No id in both, among those that were read: there may be more." in text


def test_many_sizes_are_drawn_in_cells_and_none_is_lost(tmp_path: Path) -> None:
    sizes = [(10 + i, 900 - i) for i in range(700)]
    rows = [Row(f"{i}", None, 4, 4, told={"height": h, "width": w}) for i, (h, w) in enumerate(sizes)]
    prepared.write(tmp_path, "train", rows, per_shard=700)
    page = Page(write_page(inspect(str(tmp_path))))
    assert page.values("svg", "aria-label") == ["Sizes of train: 201 to 900 pixels wide, 10 to 709 high"]
    titles = re.findall(r"about \d+×\d+: (\d+)", page.text)
    assert len(titles) < 200
    assert sum(map(int, titles)) == 700


def test_two_splits_are_compared(streets: Path) -> None:
    found = inspect(str(streets), "train", "val")
    comparison = found.comparison
    assert comparison is not None
    assert (comparison.first_alone, comparison.second_alone, comparison.nowhere) == (["car"], ["bus"], [])
    shares = np.array([[250, 170, 14, 0], [60, 80, 0, 80]]) / [[TOTAL], [220]]
    assert comparison.distance == pytest.approx(np.abs(shares[0] - shares[1]).sum() / 2)
    factors = [60 / 220 / (250 / TOTAL), 80 / 220 / (170 / TOTAL), None, None]
    assert [each.factor for each in comparison.classes] == pytest.approx(factors)
    assert [each.notable for each in comparison.classes] == [True, False, False, False]
    text = format_text(found)
    assert ["sky", "0", "#0000fa", "57.60", "27.27", "0.47", "!"] in lines(text)
    for sentence in (
        "1 class in train alone: car.",
        "1 class in val alone: bus.",
        "1 of the 3 images of val have a size that no image of train has.",
        "1 id in both (a).",
    ):
        assert sentence in text
        assert sentence in Page(write_page(found)).text


def test_splits_of_other_classes_are_compared_by_name(tmp_path: Path) -> None:
    prepared.write(tmp_path, "train", TRAIN)
    other = ClassTable(("road", "tram"), ((1, 2, 3), (4, 5, 6)), (7, 8))
    prepared.write(tmp_path, "val", [labelled("v", 60, 20)], classes=other)
    found = inspect(str(tmp_path), "train", "val")
    assert found.comparison is not None
    assert not found.comparison.same_table
    assert found.comparison.second_alone == ["tram"]
    told = lines(format_text(found))
    assert ["road", "1", "#5a5a5a", f"{100 * 170 / TOTAL:.2f}", "75.00", f"{0.75 / (170 / TOTAL):.2f}"] in told
    assert ["tram", "8", "#040506", "–", "25.00", "–"] in told
    assert "train and val have other classes" in Page(write_page(found)).text


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    table = ClassTable((HOSTILE, "b", "c", "d"), CLASSES.colours, CLASSES.values)
    finding = dict.fromkeys(("code", "message", "fix"), HOSTILE) | {"severity": "note"}
    prepared.write(
        tmp_path, "train", [labelled(HOSTILE, 80)], classes=table, bad=[Bad(HOSTILE, HOSTILE)], findings=[finding]
    )
    page = Page(write_page(inspect(str(tmp_path), samples=1)))
    assert "script" not in page.tags
    assert page.tags.count("img") == 2
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]


class TestVerify:
    def test_a_flipped_byte_and_a_missing_shard_are_named(self, streets: Path) -> None:
        whole = inspect(str(streets), verified=True)
        assert whole.verification is not None
        assert (whole.verification.shards, whole.problems) == (5, [])
        flip(streets / "train/shards-1/00002.parquet")
        (streets / "val/shards-1/00000.parquet").unlink()
        found = inspect(str(streets), samples=9, verified=True)
        assert [(each.shard, each.kind) for each in found.problems] == [
            (f"{streets}/train/shards-1/00002.parquet", "damaged"),
            (f"{streets}/val/shards-1/00000.parquet", "missing"),
        ]
        for text in (format_text(found), Page(write_page(found)).text):
            assert f"{streets}/train/shards-1/00002.parquet is damaged: its sha256 is not the manifest's" in text
            assert f"{streets}/val/shards-1/00000.parquet is missing" in text
            assert "2 of 5 shards are not what the manifests say" in text

    def test_a_shard_cut_short(self, streets: Path) -> None:
        file = streets / "train/shards-1/00000.parquet"
        size = file.stat().st_size
        file.write_bytes(file.read_bytes()[:-9])
        (problem,) = inspect(str(streets), verified=True).problems
        assert str(problem) == f"{file} is damaged: it has {size - 9:,} bytes, not {size:,}"

    def test_what_is_damaged_shows_without_it_where_it_is_read(self, streets: Path) -> None:
        (streets / "train/shards-1/00000.parquet").write_bytes(b"damaged")
        flip(streets / "val/shards-1/00000.parquet")
        (streets / "val/shards-1/00002.parquet").unlink()
        found = inspect(str(streets), samples=9)
        kinds = {each.shard.removeprefix(f"{streets}/"): each.kind for each in found.problems}
        assert kinds == {
            "train/shards-1/00000.parquet": "damaged",
            "val/shards-1/00000.parquet": "damaged",
            "val/shards-1/00002.parquet": "missing",
        }
        assert not found.odd_samples

    def test_files_that_nobody_reads_are_named(self, streets: Path) -> None:
        for name in ("shards-0/00000.parquet", "shards-1/old.parquet", "notes.txt"):
            (streets / "train" / name).parent.mkdir(exist_ok=True)
            (streets / "train" / name).write_bytes(b"old")
        text = format_text(inspect(str(streets), verified=True))
        assert f"  {streets}/train/shards-0/00000.parquet\n  {streets}/train/shards-1/old.parquet\n" in text
        assert "notes.txt" not in text

    def test_it_says_how_far_it_is(self, streets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(verifying, "_PROGRESS_EVERY_S", 0.0)
        said: list[str] = []
        inspect(str(streets), verified=True, say=said.append)
        assert re.fullmatch(r"verified 5 of 5 shards, 0\.0 of 0\.0 GB, [\d,]+ MB/s", said[-1])

    def test_a_shard_is_never_held_whole(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        prepared.write(tmp_path, "train", TRAIN, per_shard=5)
        monkeypatch.setattr(verifying, "_CHUNK", 100)
        parts: list[int] = []
        split = open_split(str(tmp_path), "train")
        (shard,) = split.manifest.shards
        assert verifying.check_shard(split.folder, shard, parts.append) is None
        assert sum(parts) == shard.bytes
        assert max(parts) == 100


class TestWhichSplits:
    def names(self, *words: str | None) -> list[str]:
        return [each.name for each in inspect(*words).facts]  # type: ignore[arg-type]

    def test_all_of_a_set_the_largest_first_or_one(self, streets: Path) -> None:
        assert self.names(str(streets)) == ["train", "val"]
        assert self.names(str(streets), "val") == self.names(str(streets / "val")) == ["val"]

    def test_the_one_to_compare_with(self, streets: Path) -> None:
        assert self.names(str(streets), None, "train") == ["val", "train"]
        assert self.names(str(streets / "train"), None, "val") == ["train", "val"]
        assert self.names(str(streets), "val", "train") == ["val", "train"]
        prepared.write(streets, "test", VAL)
        with pytest.raises(UserError, match=r"--against val: which split .* Name one by --split \(train, test\)"):
            self.names(str(streets), None, "val")

    @pytest.mark.parametrize(
        ("place", "words", "said"),
        [
            ("", ("tarin",), "there is no split 'tarin' at {streets}: it has train, val"),
            ("", ("train", "tset"), "there is no split 'tset' at {streets}: it has train, val"),
            ("", ("val", "val"), "--against val is the split itself: name another one of train, val"),
            ("/val", ("train",), "{streets}/val holds the split 'val', not 'train'"),
            ("/none", (), "{streets}/none is no prepared set: give the folder that jobs/prepare.py wrote"),
            ("/val/shards-1", (), "{streets}/val/shards-1 is no prepared set"),
            ("/val/manifest.json", (), "{streets}/val/manifest.json is a file: give the folder"),
        ],
    )
    def test_mistakes(self, streets: Path, place: str, words: tuple[str, ...], said: str) -> None:
        with pytest.raises(UserError, match=f"^{re.escape(said.format(streets=streets))}") as refused:
            self.names(f"{streets}{place}", *words)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (128_400_000, "128 MB"), (2_345_000_000, "2.35 GB")],
)
def test_bytes_as_people_say_them(number: int, text: str) -> None:
    assert size_of(number) == text
