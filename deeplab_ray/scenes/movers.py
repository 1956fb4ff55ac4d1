"""What moves in a street scene: people, cyclists and vehicles, and how each is drawn."""

import math
from dataclasses import dataclass, field
from random import Random

from deeplab_ray.scenes.painter import Colour, Painter, Point, disc, upright
from deeplab_ray.scenes.things import BICYCLE, CLOTHES, PERSON, RIDER, SKINS, Thing, vary

CAR, TRUCK = 26, 27
PAINTS: list[Colour] = [(28, 29, 32), (96, 98, 102), (150, 153, 158), (205, 206, 208), (238, 238, 236)]
PAINTS += [(150, 25, 28), (30, 55, 115), (60, 110, 160), (40, 75, 55), (190, 150, 60), (120, 80, 55)]
_TYRE: Colour = (24, 24, 26)
_HIGH_VISIBILITY: list[Colour] = [(214, 222, 60), (236, 122, 40)]
_GLASS: list[Colour] = [(38, 44, 52), (60, 70, 80), (96, 112, 126)]


def _limb(x0: float, y0: float, x1: float, y1: float, thick: float, thin: float) -> list[tuple[float, float]]:
    long = math.hypot(x1 - x0, y1 - y0) or 1.0
    across, up = (y1 - y0) / long / 2, -(x1 - x0) / long / 2
    start = [(x0 - across * thick, y0 - up * thick), (x0 + across * thick, y0 + up * thick)]
    return [*start, (x1 + across * thin, y1 + up * thin), (x1 - across * thin, y1 - up * thin)]


@dataclass
class Person(Thing):
    """A person who stands or walks."""

    height: float = 1.72

    def cast(self, painter: Painter) -> None:
        tall = self.height
        painter.shadow(
            upright(self.u, self.z, [(-0.2, 0), (-0.25, tall * 0.8), (0, tall), (0.25, tall * 0.8), (0.2, 0)])
        )
        painter.shadow([(self.u + x, 0, self.z + z) for x, z in ((-0.35, 0), (0, 0.3), (0.35, 0), (0, -0.25))], 0.35)

    def paint(self, painter: Painter) -> None:
        random, k = self.random, self.height / 1.75
        skin, hair = (
            random.choice(SKINS),
            random.choice([(35, 28, 24), (95, 70, 45), (170, 140, 95), (120, 118, 115)]),
        )
        coat, legs = vary(random, random.choice(CLOTHES), 18), vary(random, random.choice(CLOTHES[:5]), 12)
        stride, lean = random.uniform(0.02, 0.26), random.uniform(-0.03, 0.03)
        wide = random.uniform(0.19, 0.26)
        shade = painter.light.on(0, 0.2, -0.8)

        def part(shape: list[tuple[float, float]], colour: Colour, lit: float = 1.0) -> None:
            points = upright(self.u, self.z, [(x * k, y * k) for x, y in shape])
            painter.face(points, colour, PERSON, shade * lit)

        part(_limb(0.05, 0.9, stride, 0.06, 0.19, 0.11), legs, 0.8)
        part(_limb(-0.05, 0.9, -stride, 0.06, 0.19, 0.12), legs)
        for foot in (-stride, stride):
            part([(foot - 0.1, 0), (foot - 0.08, 0.1), (foot + 0.08, 0.1), (foot + 0.13, 0)], (32, 28, 26))
        part(_limb(wide - 0.03 + lean, 1.42, wide + stride * 0.6, 0.82, 0.13, 0.09), coat, 0.8)
        hem = random.choice([0.82, 0.82, 0.6])
        torso = [(-wide * 0.85, hem), (-wide + lean, 1.4), (-0.09 + lean, 1.52), (0.09 + lean, 1.52)]
        part([*torso, (wide + lean, 1.4), (wide * 0.85, hem)], coat)
        part(_limb(-wide + 0.03 + lean, 1.42, -wide - stride * 0.6, 0.82, 0.13, 0.09), coat, 0.9)
        part(_limb(lean, 1.48, lean, 1.6, 0.12, 0.12), skin, 0.85)
        part([(x + lean, y) for x, y, _ in disc(0, 1.65, 0, 0.11, 0.14)], hair)
        if random.random() < 0.6:
            part([(x + lean, y) for x, y, _ in disc(0, 1.615, 0, 0.085, 0.105)], skin)
        if random.random() < 0.3:
            bag = wide * 1.1
            part(
                [(bag - 0.1, 0.6), (bag - 0.06, 0.95), (bag + 0.18, 0.95), (bag + 0.2, 0.6)],
                vary(random, (95, 60, 45), 30),
            )


@dataclass
class Bicycle(Thing):
    """A parked bicycle, or with `ridden` a cyclist."""

    turn: float = 1.0
    """Cosine of the angle between the bicycle and the image plane: ±1 from the side, near 0 from behind; negative if it
    heads left."""
    ridden: bool = False

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return x * self.turn, y

    def cast(self, painter: Painter) -> None:
        tall = 1.6 if self.ridden else 0.9
        shape = [(-0.8, 0.0), (-0.3, tall), (0.3, tall), (0.8, 0.0)]
        painter.shadow(upright(self.u, self.z, [self._at(*corner) for corner in shape]))
        long = max(0.2, 0.85 * abs(self.turn))
        painter.shadow([(self.u + x, 0, self.z + z) for x, z in ((-long, 0), (0, 0.2), (long, 0), (0, -0.2))], 0.3)

    def paint(self, painter: Painter) -> None:
        random = self.random
        frame = vary(random, random.choice(CLOTHES), 20)
        across = max(0.07, 0.35 * abs(self.turn))
        hubs = [self._at(-0.53, 0.35), self._at(0.53, 0.35)]
        crank, seat, head = self._at(-0.08, 0.32), self._at(-0.22, 0.92), self._at(0.42, 0.85)
        bar = [(self._at(0.45, 1.02)[0] + x, 1.02) for x in ((-0.26, 0.26) if abs(self.turn) < 0.6 else (-0.05, 0.05))]

        def at(*corners: tuple[float, float]) -> list[Point]:
            return upright(self.u, self.z, corners)

        for x, y in hubs:
            rim = disc(self.u + x, y, self.z, across, 0.35, 20)
            # Annotators label the whole wheel, though the street shows between the spokes.
            painter.mark(rim, BICYCLE)
            painter.line([*rim, rim[0], rim[1]], 0.055, _TYRE, BICYCLE)
            if painter.pixels(0.35, self.z) > 9:
                for spoke in range(5):
                    angle = spoke * math.pi / 5 + 0.3
                    dx, dy = across * math.cos(angle), 0.35 * math.sin(angle)
                    painter.line(at((x - dx, y - dy), (x + dx, y + dy)), 0.008, (150, 150, 150), None)
        tubes = [
            (hubs[0], crank),
            (crank, head),
            (seat, crank),
            (seat, head),
            (hubs[0], seat),
            (hubs[1], head),
        ]
        for start, end in tubes:
            painter.line(at(start, end), 0.05, frame, BICYCLE)
        painter.line(at(head, self._at(0.4, 1.03)), 0.04, (60, 60, 62), BICYCLE)
        painter.line(at(*bar), 0.045, (40, 40, 42), BICYCLE)
        saddle = self._at(-0.25, 0.95)
        painter.line(at((saddle[0] - 0.11, 0.95), (saddle[0] + 0.11, 0.95)), 0.08, (30, 28, 28), BICYCLE)
        if self.ridden:
            self._paint_rider(painter, random)

    def _paint_rider(self, painter: Painter, random: Random) -> None:
        jackets = _HIGH_VISIBILITY if random.random() < 0.6 else CLOTHES
        coat, legs = vary(random, random.choice(jackets), 18), vary(random, random.choice(CLOTHES[:5]), 12)
        skin, hat = (
            random.choice(SKINS),
            random.choice([(35, 28, 24), (215, 215, 210), (170, 40, 40), (95, 70, 45)]),
        )
        shade, pedal = painter.light.on(0, 0.2, -0.8), random.uniform(-0.12, 0.12)
        spread = 0.14 * (1 - abs(self.turn))

        def part(shape: list[tuple[float, float]], colour: Colour, lit: float = 1.0) -> None:
            painter.face(upright(self.u, self.z, shape), colour, RIDER, shade * lit)

        def limb(x0: float, y0: float, x1: float, y1: float, thick: float, push: float) -> list[tuple[float, float]]:
            start, end = self._at(x0, y0), self._at(x1, y1)
            return _limb(start[0] + push, start[1], end[0] + push, end[1], thick, thick * 0.75)

        for sign, lit in ((1, 0.78), (-1, 1.0)):
            part(limb(-0.2, 1.0, 0.14 + pedal * sign, 0.68 + pedal * sign, 0.19, spread * sign), legs, lit)
            part(
                limb(0.13 + pedal * sign, 0.74 + pedal * sign, -0.03, 0.3 + pedal * sign, 0.14, spread * sign),
                legs,
                lit,
            )
            part(
                limb(-0.06, 0.3 + pedal * sign, 0.12, 0.27 + pedal * sign, 0.1, spread * sign),
                (30, 28, 28),
                lit,
            )
        thick = 0.3 + 0.16 * (1 - abs(self.turn))
        part(limb(-0.22, 0.92, 0.06, 1.5, thick, 0), coat)
        for sign, lit in ((1, 0.8), (-1, 0.92)):
            part(limb(0.04, 1.45, 0.4, 1.04, 0.12, spread * 1.5 * sign), coat, lit)
        middle = self._at(0.12, 1.66)
        part([(x + middle[0], y) for x, y, _ in disc(0, 1.66, 0, 0.1, 0.14)], skin, 0.95)
        part([(x + middle[0], y) for x, y, _ in disc(0, 1.73, 0, 0.12, 0.085)], hat)


@dataclass
class _Body:
    """A side profile of (metres along, metres up): from the rear's bottom over the roof to the front's bottom."""

    profile: list[tuple[float, float]]
    colour: Colour
    panes: tuple[int, ...] = ()
    """Indices of the profile's edges that are the rear window or the windscreen."""
    sides: list[list[tuple[float, float]]] = field(default_factory=list)
    """Outlines of the side windows."""
    rear: int | None = None
    """Index of the edge with the rear lights."""
    front: int | None = None
    """Index of the edge with the headlights."""


@dataclass
class Vehicle(Thing):
    """A car, van or truck: side profiles extruded to the vehicle's width, at any heading."""

    heading: float = 0.0
    """Radians; 0 drives away from the camera, π towards it, ±π/2 crosses."""
    kind: str = "car"
    """"car", "van" or "truck"."""

    def __post_init__(self) -> None:
        random = self.random
        self.label = TRUCK if self.kind == "truck" else CAR
        self.paintwork = vary(random, random.choice(PAINTS), 14)
        self.glass = vary(random, random.choice(_GLASS), 10)
        self.half = 1.2 if self.kind == "truck" else 0.9
        self.wheel = 0.48 if self.kind == "truck" else 0.33
        if self.kind == "truck":
            tall, self.long = random.uniform(2.9, 3.7), random.uniform(5.5, 8.0)
            self.cargo = vary(random, random.choice([(225, 225, 220), (150, 155, 160), *CLOTHES]), 20)
            self.axles = [-self.long / 2 + 1.2, self.long / 2 - 1.0]
            back, cab, front = -self.long / 2, self.long / 2 - 1.9, self.long / 2
            rails = [(back + 0.1, 0.5), (back + 0.1, 0.86), (cab + 0.2, 0.86), (cab + 0.2, 0.5)]
            box = [(back, 0.85), (back, tall), (cab, tall), (cab, 0.85)]
            nose = [(cab + 0.1, 0.5), (cab + 0.1, 2.6), (front - 0.4, 2.6), (front, 1.5), (front, 0.5)]
            door = [(cab + 0.7, 1.6), (cab + 0.7, 2.35), (front - 0.5, 2.35), (front - 0.2, 1.6)]
            self.bodies = [_Body(rails, (48, 48, 50)), _Body(box, self.cargo, rear=0)]
            self.bodies.append(_Body(nose, self.paintwork, (2,), [door], front=3))
            return
        van = self.kind == "van"
        self.long = random.uniform(3.8, 4.7) + 0.5 * van
        back, front = -self.long / 2, self.long / 2
        roof = random.uniform(1.85, 2.15) if van else random.uniform(1.4, 1.66)
        waist, bonnet = 0.58 * roof + 0.05, 0.5 * roof + 0.05
        tail = back + (0.12 if van else random.choice([0.15, 0.2, 0.75]))
        nose_top = front - (0.7 if van else 1.05)
        head = nose_top - (0.55 if van else 0.8)
        split, low, high = (tail + head) / 2 + 0.15, waist + 0.04, roof - 0.09
        sides = [[(tail + 0.15, low), (tail + 0.45, high), (split - 0.05, high), (split - 0.05, low)]]
        sides.append([(split + 0.05, low), (split + 0.05, high), (head - 0.02, high), (nose_top - 0.2, low)])
        profile = [(back, 0.28), (back, waist - 0.06), (tail - 0.02, waist), (tail + 0.35, roof), (head, roof)]
        profile += [(nose_top, waist), (front - 0.12, bonnet), (front, bonnet - 0.2), (front, 0.28)]
        self.axles = [back + 0.85, front - 0.85]
        self.bodies = [_Body(profile, self.paintwork, (2, 4), sides, rear=0, front=7)]

    def _place(self, along: float, y: float, right: float) -> Point:
        sin, cos = math.sin(self.heading), math.cos(self.heading)
        return self.u + along * sin + right * cos, y, self.z + along * cos - right * sin

    def cast(self, painter: Painter) -> None:
        back, half = self.long / 2, self.half
        tall = 1.4 if self.kind == "car" else 2.4
        ring = [(-back, -half), (back, -half), (back, half), (-back, half)]
        base = [self._place(a, 0, w) for a, w in ring]
        roof = [self._place(a * 0.9, tall, w * 0.9) for a, w in ring]
        for k in range(4):
            painter.shadow([base[k], base[k - 1], roof[k - 1], roof[k]])
        painter.shadow(roof)
        painter.shadow([self._place(a * 1.05, 0, w * 1.1) for a, w in ring], 0.62)

    def paint(self, painter: Painter) -> None:
        for along in self.axles:
            for low, high in ((-self.half, -self.half + 0.25), (self.half - 0.25, self.half)):
                for reach in (-0.8, 0.8):
                    a = along + reach * self.wheel * 0.4
                    tyre = [(0.0, low), (0.0, high), (1.6 * self.wheel, high), (1.6 * self.wheel, low)]
                    painter.face([self._place(a, y, w) for y, w in tyre], _TYRE, self.label)
        for body in sorted(self.bodies, key=lambda body: -self._place(sum(a for a, _ in body.profile), 0, 0)[2]):
            self._extrude(painter, body)
        self._wheels(painter)

    def _extrude(self, painter: Painter, body: _Body) -> None:
        profile, half, count = body.profile, self.half, len(body.profile)
        faces: list[tuple[float, int, list[Point], Point]] = []
        sin, cos = math.sin(self.heading), math.cos(self.heading)
        for k in range(count):
            (a0, y0), (a1, y1) = profile[k], profile[(k + 1) % count]
            quad = [self._place(a0, y0, -half), self._place(a1, y1, -half)]
            quad += [self._place(a1, y1, half), self._place(a0, y0, half)]
            long = math.hypot(a1 - a0, y1 - y0) or 1.0
            out, up = -(y1 - y0) / long, (a1 - a0) / long
            faces.append((sum(p[2] for p in quad) / 4, k, quad, (out * sin, up, out * cos)))
        left = [self._place(a, y, -half) for a, y in reversed(profile)]
        right = [self._place(a, y, half) for a, y in profile]
        faces.append((sum(p[2] for p in left) / count, -1, left, (-cos, 0, sin)))
        faces.append((sum(p[2] for p in right) / count, -2, right, (cos, 0, -sin)))
        for _, number, points, normal in sorted(faces, key=lambda face: -face[0]):
            if not painter.faces_camera(points):
                continue
            painter.face(points, body.colour, self.label, painter.light.on(*normal))
            if number < 0:
                for window in body.sides:
                    pane = [self._place(a, y, -half if number == -1 else half) for a, y in window]
                    painter.face(pane, self.glass, self.label)
            elif number in body.panes:
                painter.face(_patch(points, 0.1, 0.9, 0.1, 0.9), self.glass, self.label)
            elif number in (body.rear, body.front):
                self._end(painter, points, rear=number == body.rear)

    def _end(self, painter: Painter, quad: list[Point], rear: bool) -> None:
        """Draw the lights, bumper and number plate of one end."""
        box = self.label == TRUCK and rear
        low, high = (0.02, 0.12) if box else (0.55, 0.85)
        for start in (0.03, 0.77):
            lamp: Colour = (165, 25, 25) if rear else (225, 225, 205)
            # The quad of a front starts at its upper edge, that of a rear at its lower one.
            part = (low, high) if rear else (1 - high, 1 - low)
            painter.face(_patch(quad, *part, start, start + 0.2), lamp, self.label)
        if box:
            painter.face(_patch(quad, 0.03, 0.97, 0.495, 0.505), (90, 90, 90), self.label)
            return
        bumper, plate = ((0.0, 0.25), (0.32, 0.5)) if rear else ((0.75, 1.0), (0.55, 0.7))
        painter.face(_patch(quad, *bumper, 0.0, 1.0), (52, 53, 56), self.label)
        painter.face(_patch(quad, *plate, 0.36, 0.64), (225, 225, 220), self.label)

    def _wheels(self, painter: Painter) -> None:
        for side in (-self.half, self.half):
            for along in self.axles:
                for radius, colour in ((self.wheel, _TYRE), (self.wheel * 0.6, (140, 142, 145))):
                    ring = disc(0, self.wheel, 0, radius, radius, 16)
                    tyre = [self._place(along + x, y, side * 1.01) for x, y, _ in ring]
                    if painter.faces_camera(tyre if side < 0 else tyre[::-1]):
                        painter.face(tyre, colour, self.label)


def _patch(quad: list[Point], low: float, high: float, left: float, right: float) -> list[Point]:
    """Return the part of a quad between two fractions of its first direction and two of its second."""

    def at(s: float, t: float) -> Point:
        weights = ((1 - s) * (1 - t), s * (1 - t), s * t, (1 - s) * t)
        u, y, z = (sum(w * p[axis] for w, p in zip(weights, quad, strict=True)) for axis in range(3))
        return u, y, z

    return [at(low, left), at(high, left), at(high, right), at(low, right)]
