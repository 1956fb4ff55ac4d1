"""What the page and the table say of the CRF: gains and losses, boundaries, single images, Fig. 5."""

import io
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from pages import AFTER, BEFORE, CAMVID, HISTORY, HOSTILE, REPORT, ROWS, C, Page
from PIL import Image

from deeplab_ray.metrics import (
    WIDTHS,
    frequency_weighted_iou,
    mean_class_accuracy,
    mean_iou,
    mean_iou_of_truth,
    trimap_counts,
    trimap_iou,
)
from deeplab_ray.report import BeliefMaps, GalleryRow, ImageGain, format_table, loss_by_crf, write_report
from deeplab_ray.report.comparison import summarise_gains, trimap_plot

LOST = replace(REPORT, confusion=AFTER, confusion_crf=BEFORE)
TRIMAPS = [
    np.sum([trimap_counts(row.truth, getattr(row, labels), C) for row in ROWS], axis=0) for labels in ("network", "crf")
]
STRAY = np.array([[90, 10, 0], [10, 90, 0], [0, 0, 0]])
"""Counts whose third class is neither true nor predicted."""


def png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("P", (width, height)).save(file, "PNG")
    return file.getvalue()


def points(text: str) -> np.ndarray:
    return np.array([point.split(",") for point in text.split()], float).T


def test_loss_is_said_first_on_the_page_and_in_the_terminal() -> None:
    before, after = 100 * mean_iou(AFTER), 100 * mean_iou(BEFORE)
    said = f"The CRF lowered mean IoU by {before - after:.1f} points"
    text = Page(write_report(LOST)).text
    assert f"{LOST.title} {said} ({before:.1f} → {after:.1f} %). 11 classes" in text
    table = format_table(CAMVID.names, AFTER, BEFORE)
    assert table.splitlines()[:2] == [f"{said} ({before:.1f} -> {after:.1f} %)", ""]
    assert table.isascii()


def test_gain_is_no_headline() -> None:
    assert "lowered" not in Page(write_report(REPORT)).text
    assert format_table(CAMVID.names, BEFORE, AFTER).startswith("IoU in %")
    assert loss_by_crf(BEFORE, BEFORE) is None
    assert loss_by_crf(BEFORE, None) is None
    nothing = np.zeros((3, 3), np.int64)
    assert loss_by_crf(nothing, nothing) is None


def test_loss_too_small_for_a_decimal_is_said_all_the_same() -> None:
    before, after = (
        np.array([[million - wrong, wrong], [0, million]]) for million, wrong in ((10**6, 0), (10**6, 100))
    )
    assert loss_by_crf(before, after) == "The CRF lowered mean IoU by 0.01 points (100.00 → 99.99 %)"
    after = np.array([[10**6 - 1, 1], [0, 10**6]])
    assert loss_by_crf(before, after) == "The CRF lowered mean IoU by less than 0.01 points (100.00 → 100.00 %)"


def test_stray_pixel_of_a_class_that_is_not_in_the_truth_is_no_loss_of_a_whole_class() -> None:
    """One pixel of a third class: the benchmark's mean falls by a third, that of the truth's classes rises."""
    after = np.array([[94, 5, 1], [5, 95, 0], [0, 0, 0]])
    assert mean_iou(after) < 0.65 < mean_iou_of_truth(STRAY) < mean_iou_of_truth(after)
    rows = {line[:31].strip(): line[31:].split() for line in format_table(("a", "b", "c"), STRAY, after).splitlines()}
    assert rows["mean IoU"] == ["81.8", "60.0", "-"]
    assert rows["mean IoU of the truth's classes"] == ["81.8", "90.0", "+8.2"]
    assert rows["c"] == ["0.0", "-", "0.0", "-"]
    assert loss_by_crf(STRAY, after) == (
        "The CRF lowered mean IoU by 21.8 points (81.8 → 60.0 %), though not over the truth's classes (+8.2)"
    )
    assert loss_by_crf(after, STRAY) == (
        "The CRF lowered mean IoU of the truth's classes by 8.2 points (90.0 → 81.8 %)"
    )
    table = replace(CAMVID, names=("a", "b", "c"), colours=CAMVID.colours[:3], values=CAMVID.values[:3])
    report = replace(REPORT, classes=table, confusion=STRAY, confusion_crf=after, gallery=())
    text = Page(write_report(report)).text
    assert "81.8 → 60.0 % +8.2 points over the classes of the truth" in text


def test_page_tells_the_measures_before_and_after() -> None:
    text = Page(write_report(REPORT)).text
    for name, score in (
        ("mean IoU", mean_iou),
        ("mean class accuracy", mean_class_accuracy),
        ("frequency-weighted IoU", frequency_weighted_iou),
    ):
        before, after = score(BEFORE), score(AFTER)
        assert f"{name} {100 * before:.1f} {100 * after:.1f} +{100 * (after - before):.1f}" in text
    assert "Gains, here and below, are taken over the classes of the truth." in text


def test_trimap_plot_has_a_line_before_and_one_after_the_crf() -> None:
    page = Page(write_report(replace(REPORT, history=(), trimap=TRIMAPS[0], trimap_crf=TRIMAPS[1])))
    before, after = (100 * trimap_iou(counts) for counts in TRIMAPS)
    assert page.values("svg", "aria-label") == [
        f"Mean IoU near boundaries: {before[0]:.1f} → {after[0]:.1f} % in a band of 1 px, "
        f"{before[-1]:.1f} → {after[-1]:.1f} % in a band of 40 px"
    ]
    lines = [points(line) for line in page.values("polyline", "points")]
    assert len(lines) == 2
    # Both on one scale: SVG's y is the same linear function of the score in all points.
    scores, y = np.concatenate([before, after]), np.concatenate([line[1] for line in lines])
    slope, offset = np.polyfit(scores, y, 1)
    assert slope < 0
    assert np.abs(slope * scores + offset - y).max() < 0.2
    assert lines[0][0] == pytest.approx(lines[1][0])
    assert np.diff(lines[0][0]) == pytest.approx(np.diff(lines[0][0]).mean(), abs=0.11)
    gain = after[9] - before[9]
    assert f"10 {before[9]:.1f} {after[9]:.1f} +{gain:.1f} 20" in page.text


def test_trimap_plot_without_crf_without_boundaries_and_of_equal_scores() -> None:
    page = Page(write_report(replace(REPORT, history=(), confusion_crf=None, trimap=TRIMAPS[0])))
    assert len(page.values("polyline", "points")) == 1
    assert trimap_plot(None, None) is None
    assert trimap_plot(np.zeros((len(WIDTHS), 3, C), np.int64), None) is None
    perfect = np.ones((len(WIDTHS), 3, C), np.int64)
    flat = trimap_plot(perfect, perfect)
    assert flat
    assert len(flat.y_ticks) > 1
    assert np.isfinite(points(flat.network)).all()
    with pytest.raises(ValueError, match=r"trimap counts are \(2, 3, 11\), 11 classes need \(40, 3, 11\)"):
        replace(REPORT, trimap=perfect[:2])


def test_thousands_of_gains_become_a_histogram_and_the_worst_losses() -> None:
    rng = np.random.default_rng(0)
    before = rng.random(5000)
    after = np.clip(before + rng.normal(0.01, 0.05, 5000), 0, 1)
    after[:700] = before[:700]
    gains = [ImageGain(f"image-{i}", *pair) for i, pair in enumerate(zip(before.tolist(), after.tolist(), strict=True))]
    gains.append(ImageGain("nothing but void", math.nan, math.nan))
    html = write_report(replace(REPORT, history=(), gains=gains))
    page = Page(html)
    change = after - before
    gained, lost = int((change >= 5e-4).sum()), int((change <= -5e-4).sum())
    assert f"{gained:,} gained , {lost:,} lost , {5000 - gained - lost} unchanged" in page.text
    order = np.argsort(change)
    listed = re.findall(r"image-(\d+) \d+\.\d \d+\.\d −", page.text)
    assert [int(number) for number in listed] == order[: len(listed)].tolist()
    assert len(listed) == 8
    assert "nothing but void" not in page.text
    assert len(html) < 200_000 + len(write_report(REPORT))


@pytest.mark.parametrize("seed", range(20))
def test_bars_hold_every_image_that_changed_on_its_side_of_zero(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(rng.normal(), 1, int(rng.integers(1, 300))) * 10 ** rng.uniform(-3, -0.5)
    summary = summarise_gains([ImageGain(str(value), 0.0, float(value)) for value in values])
    assert summary
    total = sum(bar.height for bar in summary.bars)
    for side, count in ((True, summary.lost), (False, summary.gained)):
        bars = [bar for bar in summary.bars if bar.lost is side]
        assert all(bar.x < summary.zero if side else bar.x >= summary.zero for bar in bars)
        share = count / (summary.lost + summary.gained)
        assert sum(bar.height for bar in bars) == pytest.approx(share * total, abs=0.5)
    for bar in summary.bars:
        assert summary.x_ticks[0].at <= bar.x
        assert bar.x + bar.width <= summary.x_ticks[-1].at + 0.01
    assert summary.gained + summary.lost + summary.unchanged == len(values)


def test_gains_of_images_that_did_not_change_or_have_no_score() -> None:
    same = summarise_gains([ImageGain("a", 0.5, 0.5), ImageGain("b", 0.5, 0.50001)])
    assert same
    assert (same.gained, same.lost, same.unchanged, same.bars, same.worst) == (0, 0, 2, [], [])
    page = Page(write_report(replace(REPORT, history=(), gains=[ImageGain("a", 0.5, 0.5)])))
    assert "0 gained , 0 lost , 1 unchanged" in page.text
    assert "svg" not in page.tags
    assert summarise_gains([ImageGain("void", math.nan, math.nan)]) is None


def test_losses_are_shown_largest_first_and_only_losses() -> None:
    def swapped(row: GalleryRow) -> GalleryRow:
        assert row.crf is not None
        assert row.miou_crf is not None
        return replace(row, network=row.crf, crf=row.network, miou=row.miou_crf, miou_crf=row.miou)

    losses = [swapped(ROWS[0]), replace(ROWS[1], id="a gain"), swapped(ROWS[2])]
    page = Page(write_report(replace(REPORT, gallery=(), losses=losses)))
    alts = page.values("img", "alt")
    order = sorted((losses[0], losses[2]), key=lambda row: row.gain)
    assert alts[::4] == [f"image of {row.id}" for row in order]
    assert f"{order[0].id} −{-100 * order[0].gain:.1f} points" in page.text
    assert "a gain" not in page.text
    both = Page(write_report(replace(REPORT, losses=losses)))
    assert both.tags.count("img") == 4 * (2 + len(ROWS))
    assert both.text.count("not counted") == 1  # the classes' colours, once


def test_first_errors_are_listed_and_all_are_counted() -> None:
    errors = [(f"id-{i}", "decode", f"unreadable: {HOSTILE}") for i in range(1234)]
    page = Page(write_report(replace(REPORT, errors=errors)))
    assert f"{REPORT.title} 1,234 images could not be measured" in page.text
    assert "1,234 in all, of which these are the first 50" in page.text
    assert page.text.count("id-") == 50
    assert "script" not in page.tags
    one = Page(write_report(replace(REPORT, errors=errors[:1])))
    assert "1 image could not be measured" in one.text
    assert "could not be measured" not in Page(write_report(REPORT)).text


def test_figure_5_stands_in_a_row_with_its_captions() -> None:
    captions = ("before the CRF", "after 1 iteration")
    maps = BeliefMaps(HOSTILE, "road", ROWS[0].image, [(caption, png(64, 100)) for caption in captions])
    page = Page(write_report(replace(REPORT, gallery=(), history=HISTORY[:0], figure5=[maps])))
    assert page.values("img", "alt") == [
        f"image of {HOSTILE}",
        f"score and belief of road before the CRF, in {HOSTILE}",
        f"score and belief of road after 1 iteration, in {HOSTILE}",
    ]
    assert page.values("img", "height")[1:] == ["100", "100"]
    assert "image before the CRF after 1 iteration" in page.text
    assert "Fig. 5" not in Page(write_report(REPORT)).text
