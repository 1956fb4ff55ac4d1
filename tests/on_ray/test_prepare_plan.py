"""Which rows make which shard, and which tiles an image: by what the files hold alone."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from deeplab_ray import datasets
from deeplab_ray.datasets import Pair
from deeplab_ray.datasets.survey import Facts
from deeplab_ray.errors import UserError
from deeplab_ray.on_ray.prepare.plan import SplitPlan, plan, share_out
from deeplab_ray.on_ray.prepare.request import Options
from deeplab_ray.on_ray.prepare.tiles import Box, Tiling


@pytest.mark.parametrize("seed", range(20))
def test_parts_are_as_few_and_as_equal_as_can_be(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 100, rng.integers(1, 200)).astype(float)
    most = float(rng.integers(50, 3000))
    cuts = share_out(sizes, most, None)
    parts = [sizes[first:last] for first, last in itertools.pairwise(cuts)]
    assert sum(map(len, parts)) == len(sizes)
    assert all(len(part) for part in parts)
    assert len(parts) == min(len(sizes), math.ceil(sizes.sum() / most))
    if most > 200:
        for part in parts:
            assert abs(part.sum() - sizes.sum() / len(parts)) <= sizes.max()


def test_there_is_no_small_rest() -> None:
    assert share_out(np.full(130, 1.0), 64, None) == [0, 43, 87, 130]


@pytest.mark.parametrize("seed", range(20))
def test_no_part_has_more_rows_than_allowed_nor_none(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Sizes so different that the sizes alone would give parts of very different lengths.
    sizes = np.exp(rng.normal(0, 3, rng.integers(1, 100)))
    rows = int(rng.integers(1, 9))
    cuts = share_out(sizes, 1e9, rows)
    assert len(cuts) - 1 == math.ceil(len(sizes) / rows)
    assert all(1 <= count <= rows for count in np.diff(cuts))


def split(count: int, options: Options, left_out: set[str] = frozenset(), **facts: object) -> SplitPlan:  # type: ignore[assignment]
    """The plan of `count` images of 10 kB and 100×100 pixels."""
    ids = [f"{number:03d}" for number in range(count)]
    known = Facts(ids, [b"i"] * count, [b"l"] * count, [10_000] * count, [(100, 100)] * count)
    pairs = [Pair(id, f"{id}.png", f"{id}-label.png") for id in ids]
    weights = [10_000] * count
    return plan(datasets.get("camvid"), "val", pairs, replace(known, **facts), weights, left_out, options)


def test_shards_hold_all_that_is_not_left_out_in_order() -> None:
    found = split(10, Options(shard_mb=0.03), {"000", "004", "009"})
    shards = list(found)
    assert [[part.pair.id for part in shard.parts] for shard in shards] == [
        ["001", "002"],
        ["003", "005", "006"],
        ["007", "008"],
    ]
    assert [shard.name for shard in shards] == ["00000.parquet", "00001.parquet", "00002.parquet"]
    assert {shard.folder for shard in shards} == {found.folder}


def test_the_tiles_of_an_image_may_lie_in_several_shards() -> None:
    found = split(2, Options(tiles=(50, 50), rows_per_shard=3))
    assert [[(part.pair.id, part.first, part.last) for part in shard.parts] for shard in found] == [
        [("000", 0, 3)],
        [("000", 3, 4), ("001", 0, 1)],
        [("001", 1, 4)],
    ]


def test_the_folders_name_tells_what_lies_in_it() -> None:
    names = [
        split(3, Options()).folder,
        split(4, Options()).folder,
        split(3, Options(), image_sha=[b"i", b"j", b"i"]).folder,
        split(3, Options(), label_sha=[b"l", None, b"l"]).folder,
        split(3, Options(), {"001"}).folder,
        split(3, Options(tiles=(50, 50))).folder,
        split(3, Options(tiles=(50, 50), overlap=10)).folder,
        split(3, Options(exif="ignore")).folder,
        split(3, Options(shard_mb=1)).folder,
    ]
    assert len(set(names)) == len(names)
    for name in names:
        assert name.startswith("shards-")
        assert len(name) == len("shards-") + 12
    assert split(3, Options(skip_bad=True, overwrite=True, strict=True)).folder == names[0]


def test_tiles_cover_an_image_have_one_size_and_overlap() -> None:
    tiling = Tiling(40, 60, 10)
    boxes = tiling.boxes(100, 130)
    seen = np.zeros((100, 130), int)
    for top, left, height, width in boxes:
        assert (height, width) == (40, 60)
        assert top + height <= 100
        assert left + width <= 130
        seen[top : top + height, left : left + width] += 1
    assert seen.min() == 1
    # Rows from 0, 30 and, moved back, 60; columns from 0, 50 and, moved back, 70.
    assert [box[:2] for box in boxes] == [(top, left) for top in (0, 30, 60) for left in (0, 50, 70)]
    assert boxes[4].name("a") == "a_y30_x50"


def test_small_images_stay_whole_and_narrow_ones_are_cut_along_one_side() -> None:
    tiling = Tiling(40, 60)
    assert tiling.boxes(40, 60) == []
    assert tiling.boxes(10, 20) == []
    assert tiling.boxes(20, 90) == [Box(0, 0, 20, 60), Box(0, 30, 20, 60)]
    assert tiling.boxes(41, 60) == [Box(0, 0, 40, 60), Box(1, 0, 40, 60)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rows_per_shard": 0}, "rows per shard must be at least 1"),
        ({"shard_mb": 0}, "--shard-mb 0 must be a number above 0"),
        ({"shard_mb": float("nan")}, "--shard-mb nan must be"),
        ({"max_megapixels": -1}, "--max-megapixels -1 must be a number above 0"),
        ({"min_object_pixels": -1}, "--min-object-pixels -1 must not be negative"),
        ({"overlap": 5}, "--overlap 5 is that of tiles: give --tiles"),
        ({"tiles": (0, 5)}, "--tiles 0 5: a tile has at least one pixel"),
        ({"tiles": (9, 5), "overlap": 5}, "--overlap 5 must be at least 0 and below --tiles 9 5"),
        ({"tiles": (9, 5), "overlap": -1}, "--overlap -1 must be at least 0"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=f"^{said}"):
        Options(**options)  # type: ignore[arg-type]


def test_progress_tells_rate_and_time_left_of_what_this_run_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from deeplab_ray.on_ray.prepare import tasks

    now = [0.0]
    monkeypatch.setattr(tasks.time, "monotonic", lambda: now[0])
    progress = tasks.Progress("written", {"train": 100, "val": 10})
    progress.add("train", 50, before=True)
    # Workers start for eight seconds.
    for seconds, images in ((8, 10), (11, 6), (17, 12), (18, 22)):
        now[0] = seconds
        progress.add("train", images)
    progress.add("val", 10)
    assert capsys.readouterr().out.splitlines() == [
        "train: 66/100 images written, 2.0 images/s, 22 s left",
        "train: 78/100 images written, 2.0 images/s, 16 s left",
        "train: 100/100 images written",
        "val: 10/10 images written",
    ]
