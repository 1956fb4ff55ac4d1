"""The report of an evaluation: what a reader finds in the page, the table and the strip."""

import re
from dataclasses import replace

import numpy as np
import pytest
from pages import AFTER, BEFORE, CAMVID, HISTORY, HOSTILE, REPORT, ROWS, C, Page

from deeplab_ray.metrics import mean_iou, pixel_accuracy
from deeplab_ray.report import EvaluationReport, format_table, gallery_strip, write_report


def test_page_tells_the_scores_that_were_measured() -> None:
    page = Page(write_report(REPORT))
    before, after = mean_iou(BEFORE), mean_iou(AFTER)
    assert f"{100 * before:.1f} → {100 * after:.1f} %" in page.text
    assert f"+{100 * (after - before):.1f} points" in page.text
    assert f"{100 * pixel_accuracy(BEFORE):.1f} → {100 * pixel_accuracy(AFTER):.1f} %" in page.text
    assert "Images 1,234" in page.text
    hits, union = BEFORE[3, 3], BEFORE[3].sum() + BEFORE[:, 3].sum() - BEFORE[3, 3]
    share = 100 * BEFORE[3].sum() / BEFORE.sum()
    assert re.search(rf"road {share:.2f} {100 * hits / union:.1f} \d+\.\d \+\d+\.\d", page.text)
    for word in (*CAMVID.names, "s3://bucket/run/checkpoint", "evaluate --split val", "sigma_alpha 67.0"):
        assert word in page.text


def test_page_needs_nothing_but_itself() -> None:
    html = write_report(REPORT)
    page = Page(html)
    assert "http:" not in html
    assert "https:" not in html
    assert "url(" not in html
    assert "@import" not in html
    assert not {"script", "iframe", "object", "embed"} & set(page.tags)
    links = [value for _, name, value in page.attributes if name in ("src", "href", "srcset", "poster")]
    assert len(links) == 1 + 4 * len(ROWS)
    assert all(link.startswith("data:") for link in links)


def test_gallery_begins_with_the_worst_and_describes_its_pictures() -> None:
    page = Page(write_report(REPORT))
    alts = page.values("img", "alt")
    assert len(alts) == 4 * len(ROWS)
    assert [alt.removeprefix("image of ") for alt in alts[::4]] == ["bad", "middling", "good"]
    assert alts[3] == f"network + CRF of bad, mean IoU {100 * ROWS[1].final:.1f} %"
    sources = page.values("img", "src")
    assert all(source.startswith("data:image/jpeg;") for source in sources[::4])
    assert all(source.startswith("data:image/png;") for source in sources[1::4])


def test_curves_span_the_run() -> None:
    page = Page(write_report(REPORT))
    assert page.values("svg", "aria-label") == [
        "Loss: from 3 at iteration 1 to 0.03 at iteration 100",
        "Mean IoU on the validation split (%): from 25.0 at iteration 50 to 50.0 at iteration 100",
        "Learning rate: from 0.00099 at iteration 1 to 9.9e-06 at iteration 100",
    ]
    for points in page.values("polyline", "points"):
        x, y = np.array([point.split(",") for point in points.split()], float).T
        assert (np.diff(x) > 0).all()
        assert x.min() >= 0
        assert x.max() <= 360
        assert y.min() >= 0
        assert y.max() <= 210


def test_curves_of_a_run_that_was_restarted_diverged_or_has_just_begun() -> None:
    again = [*HISTORY, *({**record, "loss": 7.0} for record in HISTORY[79:])]
    labels = Page(write_report(replace(REPORT, history=again))).values("svg", "aria-label")
    assert labels[0] == "Loss: from 3 at iteration 1 to 7 at iteration 100"
    diverged = [{"iteration": i, "loss": float("nan") if i > 2 else 1.0} for i in range(1, 9)]
    labels = Page(write_report(replace(REPORT, history=diverged))).values("svg", "aria-label")
    assert labels == ["Loss: from 1 at iteration 1 to 1 at iteration 2"]
    labels = Page(write_report(replace(REPORT, history=[{"iteration": 0, "miou": 0.0}]))).values("svg", "aria-label")
    assert labels == ["Mean IoU on the validation split (%): from 0.0 at iteration 0 to 0.0 at iteration 0"]


def test_hostile_text_stays_text() -> None:
    report = replace(
        REPORT,
        title=HOSTILE,
        classes=replace(CAMVID, names=(HOSTILE, *CAMVID.names[1:])),
        gallery=[replace(ROWS[0], id=HOSTILE)],
        settings={HOSTILE: {HOSTILE: HOSTILE}},
        facts={HOSTILE: HOSTILE},
    )
    page = Page(write_report(report))
    assert "script" not in page.tags
    assert page.tags.count("img") == 4
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert page.values("img", "alt")[0] == f"image of {HOSTILE}"
    assert page.text.count(HOSTILE) >= 7


def test_page_without_crf_history_and_pictures() -> None:
    bare = EvaluationReport("Bare", CAMVID, 3, BEFORE, None)
    page = Page(write_report(bare))
    assert f"{100 * mean_iou(BEFORE):.1f} % without the CRF" in page.text
    assert "+ CRF" not in page.text
    assert "Gain" not in page.text
    assert not {"img", "svg", "details"} & set(page.tags)
    rows = [replace(row, crf=None, miou_crf=None) for row in ROWS]
    page = Page(write_report(replace(bare, gallery=rows)))
    assert page.tags.count("img") == 3 * len(ROWS)


def test_class_that_occurs_nowhere_has_no_score() -> None:
    page = Page(write_report(REPORT))
    assert "bicyclist 0.00 – – –" in page.text
    assert "neither in the truth nor predicted" in page.text
    assert "nan" not in page.text.lower().split()
    assert "bicyclist" in format_table(CAMVID.names, BEFORE, AFTER)
    nothing = np.zeros((C, C), np.int64)
    assert "– %" in Page(write_report(EvaluationReport("Empty", CAMVID, 0, nothing, None))).text


def test_confusion_matrix_is_shown_row_by_row() -> None:
    page = Page(write_report(REPORT))
    titles = page.values("td", "title")
    assert len(titles) == C * C
    share = 100 * AFTER[1, 2] / AFTER[1].sum()
    assert titles[1 * C + 2] == f"{share:.1f} % of building is called pole"


def test_matrix_of_another_class_count_is_refused() -> None:
    with pytest.raises(ValueError, match=r"confusion matrix is \(5, 5\), 11 classes need \(11, 11\)"):
        EvaluationReport("Wrong", CAMVID, 1, np.zeros((5, 5), np.int64), None)


def test_table_for_the_terminal() -> None:
    before = np.array([[8, 2, 0], [3, 7, 0], [0, 0, 0]])
    after = np.array([[9, 1, 0], [2, 8, 0], [0, 0, 0]])
    assert format_table(("road", "sky", "bus"), before, after).splitlines() == [
        "IoU in %                pixels %  network  + CRF   gain",
        "-------------------------------------------------------",
        "road                        50.0     61.5   75.0  +13.5",
        "sky                         50.0     58.3   72.7  +14.4",
        "bus                          0.0        -      -      -",
        "-------------------------------------------------------",
        "mean IoU                             59.9   73.9  +13.9",
        "pixel accuracy                       75.0   85.0  +10.0",
        "mean class accuracy                  75.0   85.0  +10.0",
        "frequency-weighted IoU               59.9   73.9  +13.9",
    ]
    assert (
        format_table(("road", "sky", "bus"), before, None).splitlines()[2]
        == "road                        50.0     61.5"
    )


def test_strip_shows_image_truth_network_and_crf_side_by_side() -> None:
    strip = gallery_strip(ROWS[:2], CAMVID, panel_width=128, legend=False)
    assert strip.mode == "RGB"
    assert strip.width == 8 + 4 * (128 + 8)
    pixels = np.array(strip)
    scale, y, x = 2, 30, 20  # the 64×48 labels are shown at twice their size, below a line of 22 pixels
    for column, (labels, _) in enumerate(ROWS[0].labels, start=1):
        colour = pixels[22 + scale * y, 8 + column * 136 + scale * x]
        assert colour.tolist() == list(CAMVID.colours[labels[y, x]])
    hatched = pixels[22 : 22 + scale * 6, 8 + 136 : 8 + 136 + 128].reshape(-1, 3)
    assert np.unique(hatched, axis=0).tolist() == [[0, 0, 0], [70, 70, 70]]


def test_strip_without_crf_and_with_a_legend() -> None:
    rows = [replace(row, crf=None, miou_crf=None, id="x" * 300) for row in ROWS[:1]]
    narrow, plain = (gallery_strip(rows, CAMVID, panel_width=128, legend=legend) for legend in (True, False))
    assert narrow.width == 8 + 3 * (128 + 8)
    assert narrow.height > plain.height
    with pytest.raises(ValueError, match="at least one row"):
        gallery_strip([], CAMVID)
