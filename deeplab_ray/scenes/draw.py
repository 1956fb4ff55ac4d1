"""Street scenes drawn from a seed, in the folder layout and label ids of Cityscapes.

Every picture is a function of (seed, index, height, width): perspective, houses, trees, traffic, people, sun
and shadows, haze, texture, a lens and a sensor. They are the project's embedded data: nothing is downloaded.
"""

import io
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from deeplab_ray.errors import UserError
from deeplab_ray.scenes.optics import develop, paint_sky
from deeplab_ray.scenes.painter import SUPERSAMPLE, Painter
from deeplab_ray.scenes.street import imagine
from deeplab_ray.storage.location import Location

CLASS_IDS: dict[str, int] = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "pole": 17,
    "traffic sign": 20,
    "vegetation": 21,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bicycle": 33,
}
"""Class → Cityscapes label id, in the order of Cityscapes' train ids."""

CITY = "scenes"
SPLITS = ("train", "val", "test")
_EGO_VEHICLE = 1
_PER_SPLIT = 100_000
_MAX_HEIGHT, _MAX_WIDTH, _MIN_SIDE = 1024, 2048, 32


def render(seed: int, index: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw scene number `index` of a seed: image uint8 RGB H×W×3 and Cityscapes label ids uint8 H×W.

    Besides the ids of `CLASS_IDS`, labels hold 1 (ego vehicle) and 4 (static), which Cityscapes ignores. The
    same arguments give the same arrays in any process. Raises UserError if the size lies outside 32×32..1024×2048 or
    the seed is negative.
    """
    if seed < 0:
        raise UserError(f"seed {seed} must not be negative")
    if not (_MIN_SIDE <= height <= _MAX_HEIGHT and _MIN_SIDE <= width <= _MAX_WIDTH):
        raise UserError(
            f"scenes of {height}×{width} cannot be drawn: take a height of {_MIN_SIDE}..{_MAX_HEIGHT} "
            f"and a width of {_MIN_SIDE}..{_MAX_WIDTH}"
        )
    rng = np.random.default_rng([seed, index])
    # The standard library's generator draws single numbers about five times faster than NumPy's.
    street = imagine(Random(int(rng.integers(2**62))), height, width)
    wide, tall = SUPERSAMPLE * width, SUPERSAMPLE * height
    zenith, haze = np.array(street.zenith, np.float32), np.array(street.light.haze, np.float32)
    sky = paint_sky(rng, tall, wide, street.camera.horizon / tall, zenith, haze, street.clouds)
    painter = Painter(street.camera, street.light, sky, CLASS_IDS["sky"])
    street.paint(painter)
    if street.bonnet:
        top = tall * rng.uniform(0.93, 0.97)
        box = (-0.15 * wide, top, 1.15 * wide, 2 * tall - top)
        ImageDraw.Draw(painter.image).ellipse(box, fill=tuple(round(max(0, c)) for c in street.bonnet))
        ImageDraw.Draw(painter.labels).ellipse(box, fill=_EGO_VEHICLE)
    labels = np.asarray(painter.labels)[::SUPERSAMPLE, ::SUPERSAMPLE].copy()
    return develop(rng, painter.image.reduce(SUPERSAMPLE), labels, street.camera), labels


def write_scene(output: Location, split: str, number: int, height: int, width: int, seed: int) -> None:
    """Draw scene `number` of a split and write its two PNG files below `output` in Cityscapes' layout.

    No scene belongs to two splits, and a scene does not depend on how many are drawn. Raises UserError if the split is
    not train, val or test, if `number` is 100,000 or more, and for what `render` refuses.
    """
    if split not in SPLITS:
        raise UserError(f"scenes have no split {split!r}: take one of {', '.join(SPLITS)}")
    if not 0 <= number < _PER_SPLIT:
        raise UserError(f"a split holds at most {_PER_SPLIT} scenes: ask for fewer, or take another seed")
    index = SPLITS.index(split) * _PER_SPLIT + number
    image, labels = render(seed, index, height, width)
    stem = f"{split}/{CITY}/{CITY}_{index:06d}_{0:06d}"
    (output / f"leftImg8bit/{stem}_leftImg8bit.png").write_bytes(_png(image))
    (output / f"gtFine/{stem}_gtFine_labelIds.png").write_bytes(_png(labels))


def draw(output: Location, counts: dict[str, int], height: int, width: int, seed: int) -> None:
    """Write `counts[split]` scenes of every split below `output` in Cityscapes' layout (see `write_scene`)."""
    for split, count in counts.items():
        for number in range(count):
            write_scene(output, split, number, height, width, seed)


def _png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    # Sensor noise hardly compresses: a higher level costs time and saves next to nothing.
    Image.fromarray(pixels).save(stream, "png", compress_level=1)
    return stream.getvalue()
