"""What stands in a street scene: buildings, trees, hedges, poles, signs and bins, and how each is drawn."""

import math
from dataclasses import dataclass, field
from random import Random

from deeplab_ray.scenes.painter import NEAR, Colour, Painter, Point, disc, ragged, upright

STATIC, SIDEWALK, BUILDING, POLE, SIGN, VEGETATION = 4, 8, 11, 17, 20, 21
PERSON, RIDER, BICYCLE = 24, 25, 33

SKINS: list[Colour] = [(232, 190, 165), (205, 155, 125), (150, 105, 80), (95, 65, 50)]
CLOTHES: list[Colour] = [(30, 32, 38), (52, 60, 90), (150, 30, 35), (200, 195, 185), (120, 125, 130)]
CLOTHES += [(40, 90, 70), (215, 170, 60), (90, 60, 110), (70, 110, 170), (190, 90, 50), (105, 85, 65)]


def vary(random: Random, colour: Colour, spread: float) -> Colour:
    """Return a similar colour: its brightness changes by up to ±spread, each channel by up to a third of that more."""
    bright = random.uniform(-spread, spread)
    red, green, blue = (c + bright + random.uniform(-spread, spread) / 3 for c in colour)
    return red, green, blue


@dataclass
class Thing:
    """Something u metres to the right of the road's middle and z metres ahead; `random` determines its looks."""

    u: float
    z: float
    random: Random = field(repr=False)

    def cast(self, painter: Painter) -> None:
        """Cast a shadow on the ground; by default none."""

    def paint(self, painter: Painter) -> None:
        """Draw it over what lies behind."""
        raise NotImplementedError


@dataclass
class Building(Thing):
    """A house whose front runs along the street from `start` to z (its far end)."""

    start: float
    height: float
    wall: Colour
    side: int
    """-1 on the left of the street, 1 on the right."""

    def cast(self, painter: Painter) -> None:
        if painter.light.sun[0] * self.side > 0:
            front, back = max(self.start, NEAR), self.z
            painter.shadow(
                [(self.u, y, z) for y, z in ((0, front), (self.height, front), (self.height, back), (0, back))]
            )

    def paint(self, painter: Painter) -> None:
        random, u, top = self.random, self.u, self.height
        near, far, side = max(self.start, NEAR), self.z, self.side
        facing = painter.light.on(-side, 0, 0)

        def band(low: float, high: float, colour: Colour, shade: float = facing) -> None:
            points = [(u, low, near), (u, high, near), (u, high, far), (u, low, far)]
            painter.face(points, colour, BUILDING, shade)

        roof = vary(random, random.choice([(120, 70, 55), (85, 80, 82), (140, 95, 70)]), 15)
        slope = random.choice([0.0, 1.5, 3.0])
        inner = u + side * 14
        if slope:
            ridge = u + side * 4
            points = [(u, top, near), (ridge, top + slope, near), (ridge, top + slope, far), (u, top, far)]
            painter.face(points, roof, BUILDING, painter.light.on(-side * 0.5, 0.8, 0))
            painter.face([(u, top, near), (ridge, top + slope, near), (inner, top, near)], self.wall, BUILDING)
        end = [(u, 0, near), (u, top, near), (inner, top, near), (inner, 0, near)]
        painter.face(end, self.wall, BUILDING, painter.light.on(0, 0, -1))
        if near > NEAR:
            self._gable(painter, near)
        band(0, top, self.wall)
        ground = random.uniform(3.2, 4.2)
        base = vary(random, random.choice([self.wall, (150, 140, 130), (95, 90, 88), (175, 160, 140)]), 20)
        band(0, ground, base)
        trim = vary(random, (200, 195, 185), 25)
        band(ground - 0.15, ground + 0.15, trim)
        band(top - 0.35, top, trim)
        self._windows(painter, ground, facing, trim)

    def _gable(self, painter: Painter, z: float) -> None:
        glass, pitch = vary(self.random, (62, 70, 80), 15), self.random.uniform(3.0, 4.5)
        for storey in range(int((self.height - 1.5) / 3.1)):
            for column in range(3):
                left, low = 1.6 + pitch * column, 1.2 + 3.1 * storey
                shape = [(left, low), (left, low + 1.5), (left + 1.0, low + 1.5), (left + 1.0, low)]
                painter.face(upright(self.u, z, [(self.side * x, y) for x, y in shape]), glass, BUILDING)

    def _windows(self, painter: Painter, ground: float, shade: float, trim: Colour) -> None:
        random, u = self.random, self.u
        pitch, storey = random.uniform(2.0, 3.2), random.uniform(2.8, 3.5)
        wide, tall = pitch * random.uniform(0.38, 0.6), storey * random.uniform(0.48, 0.65)
        glass = vary(random, random.choice([(62, 72, 84), (45, 48, 54), (105, 122, 140)]), 12)
        shop = random.random() < 0.6
        awning = vary(random, random.choice(CLOTHES), 20) if random.random() < 0.35 else None
        columns = max(1, int((self.z - self.start) / pitch))
        gap = (self.z - self.start) / columns
        bottoms = [ground + 0.7 + storey * k for k in range(int((self.height - ground - 0.4) / storey))]

        def pane(low: float, high: float, near: float, far: float, colour: Colour, lit: float = shade) -> None:
            points: list[Point] = [(u, low, near), (u, high, near), (u, high, far), (u, low, far)]
            painter.face(points, colour, BUILDING, lit)

        for column in range(columns):
            middle = self.start + gap * (column + 0.5)
            near, far = middle - wide / 2, middle + wide / 2
            # A window under a pixel wide would cost time and only alias.
            seen = abs(u - painter.camera.offset) * (1 / max(near, NEAR) - 1 / far) * painter.camera.focal
            if near < NEAR or seen < 1.5:
                continue
            door = random.random() < 0.2
            if shop and not door:
                pane(0.7, ground - 0.7, middle - gap * 0.43, middle + gap * 0.43, vary(random, glass, 25), 1.0)
            elif door:
                pane(0.1, 2.5, middle - 0.6, middle + 0.6, vary(random, (85, 62, 48), 25))
            else:
                pane(1.0, 2.5, near, far, vary(random, glass, 18), 1.0)
            for low in bottoms:
                if seen > 4:
                    pane(low - 0.14, low + tall + 0.1, near - 0.12, far + 0.12, trim)
                pane(low, low + tall, near, far, vary(random, glass, 16), 1.0)
                if seen > 9:
                    pane(low, low + tall, middle - 0.04, middle + 0.04, trim)
        if awning:
            out = u - self.side * 1.2
            start = max(self.start + 0.4, NEAR)
            points = [(u, ground - 0.2, start), (u, ground - 0.2, self.z - 0.4)]
            points += [(out, ground - 0.9, self.z - 0.4), (out, ground - 0.9, start)]
            painter.face(points, awning, BUILDING, painter.light.on(0, 1, 0))


@dataclass
class Tree(Thing):
    """A tree: a trunk and a ragged crown, both labelled vegetation."""

    height: float
    spread: float
    """Radius of the crown in metres."""
    leaf: Colour

    def cast(self, painter: Painter) -> None:
        middle = self.height * 0.65
        painter.shadow(ragged(self.random, self.u, middle, self.z, self.spread, self.height * 0.3, 14))

    def paint(self, painter: Painter) -> None:
        random, u, z = self.random, self.u, self.z
        thick = 0.028 * self.height
        bark = vary(random, (92, 78, 62), 18)
        trunk = [(-thick, 0), (-thick * 0.6, self.height * 0.6), (thick * 0.6, self.height * 0.6), (thick, 0)]
        painter.face(upright(u, z, trunk), bark, VEGETATION)
        size = painter.pixels(self.spread, z)
        corners, clumps = (26, 16) if size > 40 else (14, 9) if size > 14 else (9, 4)
        middle, up = self.height * 0.66, self.height * 0.34
        painter.face(ragged(random, u, middle, z, self.spread * 0.8, up * 0.85, corners), self.leaf, VEGETATION, 0.62)
        sun = painter.light.sun[0] * painter.light.direct
        for number in range(clumps):
            angle, away = random.uniform(0, 2 * math.pi), math.sqrt(random.random()) * 0.75
            across, rise = away * math.cos(angle), away * math.sin(angle)
            size = random.uniform(0.22, 0.42) * (1.25 - 0.5 * number / clumps)
            # Clumps that face the sun or the sky are brighter.
            lit = 0.82 + 0.22 * rise + 0.3 * sun * across + random.uniform(-0.1, 0.1)
            spot = (u + across * self.spread, middle + rise * up, z)
            blob = ragged(random, *spot, self.spread * size, up * size, corners)
            painter.face(blob, vary(random, self.leaf, 10), VEGETATION, lit)


@dataclass
class Hedge(Thing):
    """A clipped hedge along the street from `start` to z."""

    start: float
    height: float
    leaf: Colour

    def paint(self, painter: Painter) -> None:
        steps = 10
        start = max(self.start, NEAR)
        along = [start + (self.z - start) * (k / steps) ** 1.5 for k in range(steps + 1)]
        top: list[Point] = [(self.u, self.height * self.random.uniform(0.9, 1.1), z) for z in along]
        back = self.u + (1.0 if self.u > 0 else -1.0)
        upper: list[Point] = [(back, y, z) for _, y, z in reversed(top)]
        front: list[Point] = [(self.u, 0, start), *top, (self.u, 0, self.z)]
        end: list[Point] = [
            (self.u, 0, start),
            (self.u, top[0][1], start),
            (back, top[0][1], start),
            (back, 0, start),
        ]
        painter.face(top + upper, self.leaf, VEGETATION, painter.light.on(0, 1, 0))
        painter.face(end, self.leaf, VEGETATION, 0.9 * painter.light.on(0, 0, -1))
        painter.face(front, self.leaf, VEGETATION, 0.9 * painter.light.on(math.copysign(1, -self.u), 0, 0))


@dataclass
class Pole(Thing):
    """A lamp post (with an arm over the road), a bollard, or the post of a sign."""

    height: float
    thick: float
    colour: Colour
    arm: float = 0.0
    """Length in metres of the arm to the right (negative: to the left)."""

    def cast(self, painter: Painter) -> None:
        half = max(self.thick, 0.1) / 2
        painter.shadow(upright(self.u, self.z, [(-half, 0), (-half, self.height), (half, self.height), (half, 0)]))

    def paint(self, painter: Painter) -> None:
        # At least a pixel of the final image, since annotators draw no pole thinner.
        half = max(self.thick, 2.0 * self.z / painter.camera.focal) / 2
        left, right = painter.light.on(-0.7, 0, -0.7), painter.light.on(0.7, 0, -0.7)
        for low, high, shade in ((-half, half, right), (-half, 0.1 * half, left)):
            shape = [(low, 0.0), (low, self.height), (high, self.height), (high, 0.0)]
            painter.face(upright(self.u, self.z, shape), self.colour, POLE, shade)
        if self.arm:
            tip = (self.u + self.arm, self.height + 0.25, self.z)
            painter.line([(self.u, self.height - 0.05, self.z), tip], self.thick * 0.6, self.colour, POLE)
            lamp = [
                (0.0, -0.05),
                (math.copysign(0.7, self.arm), 0.02),
                (math.copysign(0.7, self.arm), 0.14),
                (0.0, 0.12),
            ]
            raised = [(x, y + self.height + 0.25) for x, y in lamp]
            painter.face(upright(tip[0], self.z, raised), (205, 205, 200), POLE)


@dataclass
class Sign(Pole):
    """A traffic sign on its post: a disc, a triangle, a square or a board with directions."""

    kind: str = "disc"
    size: float = 0.7
    """Height of the sign in metres."""

    def paint(self, painter: Painter) -> None:
        super().paint(painter)
        random, r = self.random, self.size / 2
        middle = self.height - r * 0.8
        z = self.z - 0.06
        red, blue, white = (190, 30, 35), (25, 75, 160), (235, 235, 230)

        def plate(shape: list[tuple[float, float]], colour: Colour, label: int | None = SIGN) -> None:
            points = upright(self.u, z, [(x, middle + y) for x, y in shape])
            painter.face(points, colour, label, painter.light.on(0, 0, -1) + 0.1)

        def circle(radius: float) -> list[tuple[float, float]]:
            return [(x, y) for x, y, _ in disc(0, 0, 0, radius, radius, 16)]

        if self.kind == "disc":
            rim, inside = random.choice([(red, white), (blue, blue), (red, red), (white, blue), (red, blue)])
            plate(circle(r), rim)
            plate(circle(r * 0.74), inside)
            mark = random.choice(
                [
                    [(-0.5, -0.12), (-0.5, 0.12), (0.5, 0.12), (0.5, -0.12)],
                    [(-0.15, -0.5), (0.15, -0.5), (0.15, 0.5), (-0.15, 0.5)],
                ]
            )
            ink = (25, 25, 25) if inside == white else white
            plate([(x * r, y * r) for x, y in mark], ink)
        elif self.kind == "triangle":
            turn = random.choice([1, 1, -1])
            corners = [(-1.05, -0.8), (0.0, 1.05), (1.05, -0.8)]
            plate([(x * r, turn * y * r) for x, y in corners], red)
            plate([(x * r * 0.62, turn * (y * 0.62 - 0.06) * r) for x, y in corners], white)
        else:
            wide = r * (1.0 if self.kind == "square" else random.uniform(1.6, 2.4))
            colour = random.choice([blue, blue, (240, 200, 40), white, (20, 110, 70)])
            ink = (30, 30, 30) if sum(colour) > 400 else white
            plate([(-wide, -r), (-wide, r), (wide, r), (wide, -r)], ink)
            inner, rise = wide - 0.08 * r, 0.92 * r
            plate([(-inner, -rise), (-inner, rise), (inner, rise), (inner, -rise)], colour)
            for row in (0.5, 0.0, -0.5):
                start, end = sorted(random.uniform(-0.8, 0.8) * wide for _ in range(2))
                low, high = (row - 0.12) * r, (row + 0.12) * r
                plate([(start, low), (start, high), (end, high), (end, low)], ink)


@dataclass
class Bin(Thing):
    """A litter bin or a cabinet on the pavement (in Cityscapes "static", which is ignored)."""

    def cast(self, painter: Painter) -> None:
        painter.shadow(upright(self.u, self.z, [(-0.3, 0), (-0.3, 1), (0.3, 1), (0.3, 0)]))

    def paint(self, painter: Painter) -> None:
        tall, half = self.random.uniform(0.8, 1.4), self.random.uniform(0.22, 0.45)
        colour = vary(self.random, self.random.choice([(70, 80, 75), (120, 120, 118), (150, 95, 40)]), 20)
        shape = [(-half, 0.0), (-half, tall), (half, tall), (half, 0.0)]
        painter.face(upright(self.u, self.z, shape), colour, STATIC, painter.light.on(0, 0, -1))
        lid = [(-half, tall - 0.12), (-half, tall), (half, tall), (half, tall - 0.12)]
        painter.face(upright(self.u, self.z, lid), colour, STATIC, 0.6)
