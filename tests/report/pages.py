"""What the tests of the page share: a parser of HTML, and a report of three pictures."""

import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import tiny

from deeplab_ray import datasets
from deeplab_ray.config.io import as_dict
from deeplab_ray.metrics import confusion_matrix, mean_iou_of_truth
from deeplab_ray.report import EvaluationReport, GalleryRow

CAMVID = datasets.get("camvid").table
C = len(CAMVID)
HOSTILE = "<script>alert('x')</script>\"><img src=https://evil.example/x.png onerror=alert(1)>"
VOID_TAGS = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta"}


class Page(HTMLParser):
    """Tags, attributes and visible text of a page; fails on tags that do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attributes]
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def values(self, tag: str, name: str) -> list[str]:
        return [value for t, n, value in self.attributes if (t, n) == (tag, name)]


def sample(id: str, seed: int, wrong: float, wrong_crf: float) -> GalleryRow:
    """A picture whose labels are wrong in about the given shares of its pixels; class 10 occurs nowhere."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.repeat(rng.integers(0, C - 1, (6, 8), dtype=np.uint8), 8, axis=0), 8, axis=1)
    other = rng.integers(0, C - 1, truth.shape, dtype=np.uint8)
    network, crf = (np.where(rng.random(truth.shape) < share, other, truth) for share in (wrong, wrong_crf))
    truth[:6] = 255
    scores = [mean_iou_of_truth(confusion_matrix(truth, labels, C)) for labels in (network, crf)]
    image = rng.integers(0, 255, (*truth.shape, 3), dtype=np.uint8)
    return GalleryRow(id, image, truth, network, crf, *scores)


ROWS = [sample("good", 1, 0.1, 0.05), sample("bad", 2, 0.6, 0.5), sample("middling", 3, 0.3, 0.2)]
BEFORE, AFTER = (
    np.sum([confusion_matrix(row.truth, getattr(row, labels), C) for row in ROWS], axis=0)
    for labels in ("network", "crf")
)
HISTORY: list[dict[str, Any]] = [
    {"iteration": i, "loss": 3 / i, "learning_rate": 1e-3 * (1 - i / 101), "images_per_s": 4.0}
    | ({"miou": i / 200} if i % 50 == 0 else {})
    for i in range(1, 101)
]
REPORT = EvaluationReport(
    title="CamVid after an hour",
    classes=CAMVID,
    images=1234,
    confusion=BEFORE,
    confusion_crf=AFTER,
    gallery=ROWS,
    history=HISTORY,
    settings=as_dict(tiny.recipe()),
    facts={"checkpoint": "s3://bucket/run/checkpoint", "command": "evaluate --split val"},
)
