"""Effects on the whole picture of a drawn scene: noise, sky, ground texture, lens and sensor."""

import numpy as np
from PIL import Image, ImageFilter

from deeplab_ray.scenes.painter import SUPERSAMPLE, Camera

_ROAD, _SIDEWALK = 7, 8
_TEXTURE = {7: (0.03, 0.05), 8: (0.03, 0.06), 11: (0.04, 0.04), 17: (0.04, 0.05), 20: (0.02, 0.03)}
_TEXTURE |= {21: (0.2, 0.14), 23: (0.0, 0.01), 24: (0.08, 0.05), 25: (0.08, 0.05)}
_TEXTURE |= {26: (0.02, 0.03), 27: (0.02, 0.03), 33: (0.06, 0.05), 1: (0.01, 0.02), 4: (0.05, 0.05)}
"""Label id → relative amplitudes of fine and of coarse texture."""


def value_noise(rng: np.random.Generator, height: int, width: int, cells: list[float]) -> np.ndarray:
    """Draw band-limited noise, float32 H×W of unit variance: one octave for each cell size (in pixels)."""
    total = np.zeros((height, width), np.float32)
    for cell in cells:
        grid = (int(height / cell) + 3, int(width / cell) + 3)
        small = Image.fromarray(rng.standard_normal(grid, dtype=np.float32))
        box = (1, 1, 1 + width / cell, 1 + height / cell)
        total += np.asarray(small.resize((width, height), Image.Resampling.BICUBIC, box=box))
    return total / max(float(total.std()), 1e-6)


def paint_sky(
    rng: np.random.Generator,
    height: int,
    width: int,
    horizon: float,
    top: np.ndarray,
    bottom: np.ndarray,
    cover: float,
) -> Image.Image:
    """Paint a sky of H×W whose colour goes from `top` to `bottom` at `horizon` (share of H).

    top, bottom: float32 RGB. cover: share of the sky that is clouded, 0..1.
    """
    rows, columns = 96, 192
    down = np.linspace(0, 1 / max(horizon, 0.05), rows, dtype=np.float32).clip(0, 1)[:, None, None]
    sky = top * (1 - down) + bottom * down
    narrow = Image.fromarray(value_noise(rng, rows, columns // 3, [24, 11, 5, 2.5]))
    clouds = np.asarray(narrow.resize((columns, rows), Image.Resampling.BICUBIC))
    opacity = ((clouds + 3 * cover - 1.5) * 0.8).clip(0, 0.9)[..., None]
    grey = 225 + 22 * np.roll(clouds, 2, axis=0)[..., None] * np.ones(3, np.float32)
    sky = sky * (1 - opacity) + grey * opacity
    small = Image.fromarray(sky.clip(0, 255).astype(np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def _ground_texture(rng: np.random.Generator, camera: Camera, labels: np.ndarray) -> tuple[int, np.ndarray]:
    """Return the first row below the horizon, and the relative brightness of asphalt and paving from that row on."""
    height, width = labels.shape
    focal, horizon = camera.focal / SUPERSAMPLE, camera.horizon / SUPERSAMPLE
    first = min(height - 1, max(0, int(horizon) + 2))
    z = camera.height * focal / (np.arange(first, height, dtype=np.float32) + 0.5 - horizon)
    slope = (np.arange(width, dtype=np.float32) + 0.5 - camera.centre / SUPERSAMPLE) / focal
    u = (slope[None] - camera.yaw - camera.bend * z[:, None]) * z[:, None] + camera.offset
    grain = value_noise(rng, 256, 256, [1, 2, 5, 12])
    stain = value_noise(rng, 256, 256, [3, 9, 24])
    # A row that covers much ground averages out the grain, so fade the grain instead of letting it alias.
    fade = (0.06 / (z * z / (camera.height * focal))).clip(0, 1)[:, None]

    def look_up(tile: np.ndarray, metres: float) -> np.ndarray:
        rows = (z / metres).astype(np.int32) & 255
        columns = (u / metres).astype(np.int32) & 255
        return tile[rows[:, None], columns]

    texture = 0.07 * fade * look_up(grain, 0.03) + 0.035 * look_up(stain, 0.25)
    slab = rng.uniform(0.5, 1.1)
    joint = (u / slab % 1 < 0.06) | ((z / slab % 1 < 0.07)[:, None])
    paving = 0.02 * look_up(stain, slab / 8) - 0.14 * fade * joint
    below = labels[first:]
    return first, np.where(below == _ROAD, texture, np.where(below == _SIDEWALK, texture + paving, 0))


def develop(rng: np.random.Generator, image: Image.Image, labels: np.ndarray, camera: Camera) -> np.ndarray:
    """Turn a painted scene into a photograph, uint8 H×W×3: add texture, exposure, white balance, lens and sensor noise.

    `image` is the painting, already reduced to the size of `labels` (label ids, uint8 H×W).
    """
    height, width = labels.shape
    unit = max(height / 192, 0.25)
    amplitude = np.zeros((2, 256), np.float32)
    for label, pair in _TEXTURE.items():
        amplitude[:, label] = pair
    fine = value_noise(rng, height, width, [max(1.0, scale * unit) for scale in (0.8, 1.6, 3.2, 6.4)])
    coarse = value_noise(rng, height, width, [14 * unit, 30 * unit])
    gain = 1 + amplitude[0][labels] * fine + amplitude[1][labels] * coarse
    first, ground = _ground_texture(rng, camera, labels)
    gain[first:] += ground
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None]
    gain *= 1 - rng.uniform(0.03, 0.14) * (rows**2 + columns**2)
    light = np.asarray(image, np.float32) * gain[..., None]
    light *= (rng.uniform(0.85, 1.25) * rng.normal(1, [0.04, 0.02, 0.05])).astype(np.float32)
    lens = ImageFilter.GaussianBlur(rng.uniform(0.25, 0.6) * max(1.0, unit / 3))
    seen = np.asarray(Image.fromarray(light.clip(0, 255).astype(np.uint8)).filter(lens), np.float32)
    noise = rng.standard_normal(seen.shape, dtype=np.float32)
    # Shot noise grows with the square root of the light; read noise does not.
    noise *= rng.uniform(0.8, 2.0) + rng.uniform(0.1, 0.22) * np.sqrt(seen)
    return (seen + noise + 0.5).clip(0, 255).astype(np.uint8)
