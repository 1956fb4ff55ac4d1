"""The canvas of a street scene: the camera, the light, and polygons drawn from back to front.

A point in the street is (u, y, z) in metres: u to the right of the road's middle line, y above the ground, z ahead of
the camera along the road. Image and labels are drawn together, at `SUPERSAMPLE` times the final size.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageFilter

Point = tuple[float, float, float]
"""(u, y, z) in metres."""
Colour = tuple[float, float, float]
"""Red, green and blue, each 0..255; values above 255 are clipped when drawn."""

SUPERSAMPLE = 2
NEAR = 1.6
"""Distance from the camera, in metres, below which nothing is drawn."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera above a road that may bend. Pixels are those of the supersampled canvas."""

    focal: float
    """Focal length in pixels."""
    centre: float
    """Column of the principal point."""
    horizon: float
    """Row of the horizon."""
    height: float
    """Height above the road in metres."""
    offset: float
    """Distance to the right of the road's middle line in metres."""
    yaw: float
    """Slope of the road against the optical axis, dx/dz."""
    bend: float
    """Curvature of the road: at z it lies bend · z² metres to the right of its tangent."""

    def project(self, point: Point) -> tuple[float, float]:
        """Return a point's (column, row) on the canvas; points nearer than `NEAR` are moved to that distance."""
        u, y, z = point
        z = max(z, NEAR)
        column = self.centre + self.focal * ((u - self.offset) / z + self.yaw + self.bend * z)
        return column, self.horizon + self.focal * (self.height - y) / z


@dataclass(frozen=True)
class Light:
    """The light of the sun and the sky, and the haze."""

    sun: Point
    """Unit vector towards the sun."""
    direct: float
    """Strength of the sun relative to the light of the sky, from 0 (overcast) to about 1."""
    haze: Colour
    """Colour of the haze, into which far things fade."""
    reach: float
    """Distance in metres at which 63 % of a colour has turned into haze."""

    def on(self, u: float, y: float, z: float) -> float:
        """Return the brightness of a surface whose unit normal is (u, y, z)."""
        towards = u * self.sun[0] + y * self.sun[1] + z * self.sun[2]
        return 0.82 - 0.25 * self.direct + 0.1 * y + 0.62 * self.direct * max(0.0, towards)

    def through(self, colour: Colour, shade: float, z: float) -> tuple[int, int, int]:
        """Return the colour, at a brightness of `shade`, as seen from z metres away."""
        clear = math.exp(-max(z, 0.0) / self.reach)
        (red, green, blue), (h0, h1, h2), veil, clear = colour, self.haze, 1 - clear, clear * shade
        red, green, blue = red * clear + h0 * veil, green * clear + h1 * veil, blue * clear + h2 * veil
        return max(0, min(255, int(red))), max(0, min(255, int(green))), max(0, min(255, int(blue)))


class Painter:
    """Draws polygons, given in metres, into an image, and their label ids into the labels."""

    def __init__(self, camera: Camera, light: Light, sky: Image.Image, sky_id: int) -> None:
        self.camera = camera
        self.light = light
        self.image = sky
        self.labels = Image.new("L", sky.size, sky_id)
        self._shadows = Image.new("L", (sky.width // SUPERSAMPLE, sky.height // SUPERSAMPLE), 255)
        self._ink = ImageDraw.Draw(self.image)
        self._mark = ImageDraw.Draw(self.labels)
        self._dim = ImageDraw.Draw(self._shadows)

    def pixels(self, metres: float, z: float) -> float:
        """Return the length on the canvas of something that stands z metres away."""
        return self.camera.focal * metres / max(z, NEAR)

    def face(self, points: Sequence[Point], colour: Colour, label: int | None, shade: float = 1.0) -> None:
        """Draw a flat polygon; with `label` None into the image only (lettering, spokes)."""
        outline = self._outline(points)
        if max(outline[::2]) < 0 or min(outline[::2]) > self.image.width:
            return
        z = (points[0][2] + points[len(points) // 2][2]) / 2
        self._ink.polygon(outline, fill=self.light.through(colour, shade, z))
        if label is not None:
            self._mark.polygon(outline, fill=label)

    def mark(self, points: Sequence[Point], label: int) -> None:
        """Draw a polygon into the labels only, so that the image shows what lies behind."""
        self._mark.polygon(self._outline(points), fill=label)

    def _outline(self, points: Iterable[Point]) -> list[float]:
        # Does as Camera.project for many points; calling it would take most of the time of drawing a small scene.
        eye = self.camera
        outline: list[float] = []
        for u, y, z in points:
            if z < NEAR:
                z = NEAR
            scale = eye.focal / z
            column = eye.centre + (u - eye.offset) * scale + eye.focal * (eye.yaw + eye.bend * z)
            outline += (column, eye.horizon + (eye.height - y) * scale)
        return outline

    def line(self, points: Sequence[Point], metres: float, colour: Colour, label: int | None) -> None:
        """Draw a line `metres` thick, but at least half a pixel of the final image."""
        z = points[0][2]
        width = max(1, round(self.pixels(metres, z)))
        path = [self.camera.project(point) for point in points]
        self._ink.line(path, fill=self.light.through(colour, 1.0, z), width=width, joint="curve")
        if label is not None:
            self._mark.line(path, fill=label, width=width, joint="curve")

    def faces_camera(self, points: Sequence[Point]) -> bool:
        """Return whether a polygon, given clockwise as seen from outside, shows its outside to the camera."""
        path = self._outline(points)
        xs, ys = path[::2], path[1::2]
        return sum(xs[k - 1] * ys[k] - xs[k] * ys[k - 1] for k in range(len(xs))) > 0

    def shadow(self, points: Iterable[Point], depth: float | None = None) -> None:
        """Add a shadow on the ground, where the sun casts the polygon's points.

        depth: darkness, 0..1, for the ambient shade below things; None: as strong as the sun.
        """
        sun_u, sun_y, sun_z = self.light.sun
        dark = 0.55 * self.light.direct if depth is None else depth
        ground = self._outline((u - y * sun_u / sun_y, 0.0, z - y * sun_z / sun_y) for u, y, z in points)
        self._dim.polygon([value / SUPERSAMPLE for value in ground], fill=round(255 * (1 - dark)))

    def apply_shadows(self) -> None:
        """Darken what has been painted so far (the ground) by the shadows added so far."""
        soft = self._shadows.filter(ImageFilter.BoxBlur(0.004 * self._shadows.height))
        soft = soft.resize(self.image.size, Image.Resampling.BILINEAR)
        # Shadows are bluish, since only the sky lights them.
        bluish = soft.point([round(value + 0.12 * (255 - value)) for value in range(256)])
        self.image.paste(ImageChops.multiply(self.image, Image.merge("RGB", (soft, soft, bluish))))


@cache
def _circle(corners: int) -> list[tuple[float, float]]:
    turn = 2 * math.pi / corners
    return [(math.cos(turn * k), math.sin(turn * k)) for k in range(corners)]


def disc(u: float, y: float, z: float, across: float, up: float, corners: int = 14) -> list[Point]:
    """Return an upright ellipse that faces the camera."""
    return [(u + across * x, y + up * rise, z) for x, rise in _circle(corners)]


def ragged(random: Random, u: float, y: float, z: float, across: float, up: float, corners: int) -> list[Point]:
    """Return an upright ellipse with a ragged edge, as of leaves."""
    stretch = [0.8 + 0.34 * random.random() for _ in range(corners)]
    edge = zip(_circle(corners), stretch, strict=True)
    return [(u + across * k * x, y + up * k * rise, z) for (x, rise), k in edge]


def upright(u: float, z: float, shape: Iterable[tuple[float, float]]) -> list[Point]:
    """Return a flat shape, given as (metres to the right, metres up), that stands at (u, z) and faces the camera."""
    return [(u + right, up, z) for right, up in shape]
