"""The pictures of Fig. 5 against the CRF run for so many iterations."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from deeplab_ray.crf import CRFParams, DenseCRF
from deeplab_ray.report import belief_maps
from deeplab_ray.report.figure5 import FLOOR

pytestmark = pytest.mark.xdist_group("crf")  # where Numba has compiled it already
PARAMS = CRFParams(w1=4, sigma_alpha=20, sigma_beta=10, w2=3, sigma_gamma=2, iterations=4)
H, W, C = 30, 41, 3


def sample() -> tuple[np.ndarray, np.ndarray]:
    """A picture of two halves, and noisy probabilities of three classes."""
    rng = np.random.default_rng(0)
    image = np.full((H, W, 3), 60, np.uint8)
    image[:, W // 2 :] = 190
    scores = rng.normal(0, 1, (C, H, W))
    scores[0, :, : W // 2] += 1
    scores[1, :, W // 2 :] += 1
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=0)
    return image, probabilities.astype(np.float32)


def shades(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Score and belief as the picture's palette has them, in 0..1; checks the gap between."""
    with Image.open(io.BytesIO(data)) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "P", (W, 2 * H + 4))
        assert picture.info["transparency"] in (255, bytes([255] * 255 + [0]))
        ids = np.asarray(picture)
    assert (ids[H : H + 4] == 255).all()
    return ids[:H] / 254, ids[H + 4 :] / 254


def test_maps_are_those_of_the_crf_after_so_many_iterations() -> None:
    image, probabilities = sample()
    maps = belief_maps(image, probabilities, PARAMS, 1)
    assert [caption for caption, _ in maps] == [
        "before the CRF",
        "after 1 iteration",
        *(f"after {number} iterations" for number in (2, 3, 4)),
    ]
    for number, (_, data) in enumerate(maps):
        beliefs = probabilities
        if number:
            beliefs = DenseCRF(replace(PARAMS, iterations=number)).refine(image, probabilities)
        score, belief = shades(data)
        assert np.abs(belief - beliefs[1]).max() < 0.005
        with np.errstate(divide="ignore"):
            expected = 1 - np.log(beliefs[1]).clip(FLOOR, 0) / FLOOR
        visible = beliefs[1] > 0.01  # below that, an engine's tolerance of 1e-4 shows in the logarithm
        assert np.abs(score - expected)[visible].max() < 0.005


def test_some_iterations_with_the_buffers_of_another_crf() -> None:
    image, probabilities = sample()
    every = dict(belief_maps(image, probabilities, PARAMS, 2))
    some = belief_maps(image, probabilities, PARAMS, 2, (1, 3), share=DenseCRF(PARAMS))
    assert [caption for caption, _ in some] == ["before the CRF", "after 1 iteration", "after 3 iterations"]
    for caption, data in some:
        for one, other in zip(shades(data), shades(every[caption]), strict=True):
            assert np.abs(one - other).max() < 0.005


def test_picture_is_no_wider_than_asked_and_keeps_its_shape() -> None:
    image, probabilities = sample()
    (_, data), _ = belief_maps(image, probabilities, PARAMS, 0, (1,), width=20)
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.size == (20, 2 * 15 + 4)


def test_refuses_classes_and_iterations_that_there_are_not() -> None:
    image, probabilities = sample()
    with pytest.raises(ValueError, match=r"class 3: there are 0\.\.2"):
        belief_maps(image, probabilities, PARAMS, 3)
    for numbers in ((), (0, 1), (2, 1), (1, 1)):
        with pytest.raises(ValueError, match="at least one, from 1, rising"):
            belief_maps(image, probabilities, PARAMS, 0, numbers)
