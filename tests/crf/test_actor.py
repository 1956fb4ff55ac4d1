"""The CRF in the actor that evaluation runs it in."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from fields import scene
from tiny import png

from deeplab_ray.crf import CRFParams
from deeplab_ray.on_ray.infer.steps import Measure, Refine


def scored_row(seed: int) -> dict[str, Any]:
    """What a predictor hands on: an image with a network's scores, all of it from the seed."""
    image, _ = scene(2, 240, 320, seed)
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(11, 31, 41)).astype(np.float16)
    label = rng.integers(0, 11, (240, 320)).astype(np.uint8)
    return {
        "key": str(seed),
        "id": str(seed),
        "image": png(image),
        "label": png(label),
        "scores": scores.tobytes(),
        "shape": scores.shape,
        "grid": "corners 8",
    }


@pytest.mark.slow
def test_memory_stays_flat_over_160_images(ray_cluster: None) -> None:
    class Weighed:
        def __init__(self, classes: int, params: CRFParams) -> None:
            self.refined, self.measured = Refine(classes, params), Measure(classes)

        def refine(self, row: dict[str, Any]) -> int:
            """The process's own memory in MiB after one more image; what it shares with Ray's object store apart."""
            measured = self.measured.one(self.refined.one(row))["measured"]
            assert measured["confusion_crf"].sum() == 240 * 320
            status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
            return int(next(line for line in status if line.startswith("RssAnon:")).split()[1]) // 1024

    actor = ray.remote(Weighed).remote(11, CRFParams(4, 67, 3, 3, 3, 3))  # type: ignore[attr-defined]
    rows = [ray.put(scored_row(seed)) for seed in range(20)]
    held = ray.get([actor.refine.remote(rows[n % 20]) for n in range(160)])
    ray.kill(actor)
    # Images need more or less of it, some 15 MiB apart; scores kept of every image would add 3 MiB 120 times.
    assert max(held[-20:]) - max(held[20:40]) < 64, held
