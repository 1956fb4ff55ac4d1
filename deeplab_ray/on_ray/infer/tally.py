"""Adds up what an evaluation measures, image by image, and remembers which images to show."""

import heapq

import numpy as np
from numpy.typing import NDArray

from deeplab_ray.metrics import mean_iou_of_truth
from deeplab_ray.outputs.journal import Done
from deeplab_ray.report import ImageGain
from deeplab_ray.report.scores import VISIBLE

LOSSES = 6
"""Images that a report shows since they lost most by the CRF."""


class Tally:
    """Adds up what was measured, and remembers which images to show."""

    def __init__(self, classes: int, gallery: int, with_crf: bool) -> None:
        self.classes, self.gallery, self.with_crf = classes, gallery, with_crf
        self.images = 0
        self.totals: dict[str, NDArray[np.int64]] = {}
        self.gains: list[ImageGain] = []
        self.errors: list[Done] = []
        self._worst: list[tuple[float, str, str]] = []
        self._lost: list[tuple[float, str, str]] = []

    def add(self, done: Done) -> None:
        """Count an image; one that failed is listed."""
        if done.stage is not None:
            self.errors.append(done)
            return
        self.images += 1
        for name, counts in done.measured.items():
            self.totals[name] = counts.astype(np.int64) + self.totals.get(name, 0)
        before = done.measured["confusion"]
        self._keep(self._worst, -float(np.nan_to_num(mean_iou_of_truth(before), nan=1.0)), done, self.gallery)
        if self.with_crf:
            gain = ImageGain(done.id, mean_iou_of_truth(before), mean_iou_of_truth(done.measured["confusion_crf"]))
            self.gains.append(gain)
            if gain.gain <= -VISIBLE and self.gallery:
                self._keep(self._lost, -gain.gain, done, LOSSES)

    def worst(self) -> list[str]:
        """Keys of the images with the lowest mean IoU before the CRF, the lowest first."""
        return [key for _, _, key in sorted(self._worst, reverse=True)]

    def losses(self) -> list[str]:
        """Keys of the images that lost most by the CRF, the largest loss first."""
        return [key for _, _, key in sorted(self._lost, reverse=True)]

    def shown(self) -> list[str]:
        """Keys of the images that the report shows, each once."""
        return list(dict.fromkeys([*self.worst(), *self.losses()]))

    @staticmethod
    def _keep(heap: list[tuple[float, str, str]], value: float, done: Done, count: int) -> None:
        heapq.heappush(heap, (value, done.id, done.key))
        if len(heap) > count:
            heapq.heappop(heap)
