"""Score and belief maps of a class over the mean-field iterations, as in the paper's Fig. 5."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deeplab_ray.crf import CRFParams, DenseCRF

FLOOR = -10.0
"""Log-probability that is drawn as the darkest: a probability of 1 in 22,000."""
SCALE = ("#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725")
"""Colours from low to high: nine of matplotlib's viridis, which rises evenly in lightness."""
_GAP = 255
"""Place in the palette of the gap between the two maps, which is transparent; shades are 0..254."""
_GAP_PIXELS = 4


@dataclass(frozen=True)
class BeliefMaps:
    """The maps of one class in one image (uint8 RGB H×W×3): captions and PNG files, as `belief_maps` gives them."""

    id: str
    class_name: str
    image: NDArray[np.uint8]
    maps: Sequence[tuple[str, bytes]]


def belief_maps(
    image: NDArray[np.uint8],
    probabilities: NDArray[np.float32],
    params: CRFParams,
    class_index: int,
    iterations: Sequence[int] | None = None,
    *,
    width: int = 256,
    share: DenseCRF | None = None,
) -> list[tuple[str, bytes]]:
    """Draw a class's score map above its belief map, before the CRF and after mean-field iterations.

    image: uint8 RGB H×W×3. probabilities: float32 C×H×W, what goes into the CRF. iterations: numbers from 1, rising;
    None for 1, 2, … params.iterations. width: largest width of a picture, in pixels. share: see `DenseCRF`.
    Returns (caption, PNG file) of each step. A belief is the class's probability, 0..1; its score the logarithm of
    that, from −10 (and below) to 0: what goes into the softmax, less what all classes of a pixel have in common.
    Raises ValueError for a class or iterations that there are not, and as `DenseCRF.refine` does.
    """
    numbers = list(range(1, params.iterations + 1) if iterations is None else iterations)
    if not 0 <= class_index < len(probabilities):
        raise ValueError(f"class {class_index}: there are 0..{len(probabilities) - 1}")
    if not numbers or numbers[0] < 1 or numbers != sorted(set(numbers)):
        raise ValueError(f"iterations {numbers}: at least one, from 1, rising")
    maps = [("before the CRF", _picture(probabilities[class_index], width))]

    def keep(iteration: int, beliefs: NDArray[np.float32]) -> None:
        if iteration in numbers:
            caption = f"after {iteration} iteration{'s' if iteration > 1 else ''}"
            maps.append((caption, _picture(beliefs[class_index], width)))

    crf = DenseCRF(replace(params, iterations=numbers[-1]), share=share)
    crf.refine(image, probabilities, on_iteration=keep)
    return maps


def _picture(beliefs: NDArray[np.float32], width: int) -> bytes:
    """Score map above belief map, float32 H×W in 0..1 → a palette PNG file at most `width` wide."""
    with np.errstate(divide="ignore"):
        scores = 1 - np.log(beliefs).clip(FLOOR, 0) / FLOOR
    upper, lower = _shades(scores, width), _shades(beliefs.clip(0, 1), width)
    gap = np.full((_GAP_PIXELS, upper.shape[1]), _GAP, np.uint8)
    picture = Image.fromarray(np.concatenate([upper, gap, lower]))
    picture.putpalette(_palette())
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True, transparency=_GAP)
    return file.getvalue()


def _shades(values: NDArray[np.floating], width: int) -> NDArray[np.uint8]:
    """Values in 0..1, H×W → uint8 shades 0..254, at most `width` wide."""
    picture = Image.fromarray((values * (_GAP - 1)).round().astype(np.uint8))
    if picture.width > width:
        height = max(1, round(picture.height * width / picture.width))
        picture = picture.resize((width, height), Image.Resampling.BOX)
    return np.asarray(picture)


def _palette() -> list[int]:
    """RGB of the shades one after another, and of the gap."""
    stops = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in SCALE])
    at, places = np.linspace(0, len(SCALE) - 1, _GAP), np.arange(len(SCALE))
    colours = np.stack([np.interp(at, places, channel) for channel in stops.T], axis=1)
    return [*colours.round().astype(int).ravel().tolist(), 255, 255, 255]
