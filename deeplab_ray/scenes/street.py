"""The street that a seed stands for: the camera, the light, the ground, and what stands where."""

import math
from dataclasses import dataclass
from random import Random

from deeplab_ray.scenes.movers import Bicycle, Person, Vehicle
from deeplab_ray.scenes.painter import NEAR, SUPERSAMPLE, Camera, Colour, Light, Painter
from deeplab_ray.scenes.things import (
    BUILDING,
    SIDEWALK,
    VEGETATION,
    Bin,
    Building,
    Hedge,
    Pole,
    Sign,
    Thing,
    Tree,
    vary,
)

ROAD = 7
_FAR = 140.0
_WALLS: list[Colour] = [(205, 190, 165), (178, 160, 140), (160, 95, 75), (135, 130, 128), (215, 205, 195)]
_WALLS += [(190, 165, 110), (115, 105, 100), (150, 165, 175), (180, 130, 105), (95, 80, 75)]
_LEAVES: list[Colour] = [(78, 105, 45), (60, 88, 42), (100, 118, 55), (88, 96, 60), (120, 112, 52)]


@dataclass
class Street:
    """Everything about a scene but its pixels."""

    camera: Camera
    light: Light
    zenith: Colour
    clouds: float
    """Share of the sky that is clouded, 0..1."""
    half: float
    """Half the road's width in metres."""
    pavement: float
    """Width of each pavement in metres."""
    things: list[Thing]
    bonnet: Colour | None
    """Colour of the camera car's bonnet; None if it is not in the picture."""
    random: Random

    def paint(self, painter: Painter) -> None:
        """Draw the whole scene, far things first."""
        self._skyline(painter)
        self._ground(painter)
        for thing in self.things:
            thing.cast(painter)
        painter.apply_shadows()
        for thing in sorted(self.things, key=lambda thing: -thing.z):
            thing.paint(painter)

    def _skyline(self, painter: Painter) -> None:
        random, u = self.random, -130.0
        while u < 130:
            wide = random.uniform(8, 22)
            tall = random.uniform(7, 20)
            if random.random() < 0.35:
                tall *= 0.6
                hill = [
                    (u, 0.0),
                    *((u + wide * k / 6, tall * random.uniform(0.8, 1.1)) for k in range(7)),
                    (u + wide, 0.0),
                ]
                leaf = vary(random, random.choice(_LEAVES), 10)
                painter.face([(x, y, _FAR) for x, y in hill], leaf, VEGETATION)
            else:
                wall = vary(random, random.choice(_WALLS), 12)
                rows = [(0.0, wide, 0.0, tall, wall)]
                for storey in range(int(tall / 3.4)):
                    low = 3.4 * storey + 1.2
                    rows.append((1.0, wide - 1.0, low, low + 1.2, vary(random, (95, 100, 108), 15)))
                for left, right, low, high, colour in rows:
                    block = [(u + left, low), (u + left, high), (u + right, high), (u + right, low)]
                    painter.face([(x, y, _FAR) for x, y in block], colour, BUILDING)
            u += wide * 0.95

    def _strip(
        self, painter: Painter, left: float, right: float, near: float, far: float, colour: Colour, label: int
    ) -> None:
        """Draw a strip of ground between two offsets from the road's middle; it follows the bend."""
        z = max(near, NEAR)
        while z < far:
            end = min(far, z * 1.35)
            # The overlap hides the seams between pieces.
            points = [(left, 0.0, z), (right, 0.0, z), (right, 0.0, end * 1.01), (left, 0.0, end * 1.01)]
            painter.face(points, colour, label, painter.light.on(0, 1, 0))
            z = end

    def _ground(self, painter: Painter) -> None:
        random, half = self.random, self.half
        paving = vary(random, random.choice([(188, 168, 152), (172, 156, 146), (196, 172, 148), (164, 140, 130)]), 12)
        asphalt = vary(random, random.choice([(84, 85, 90), (72, 73, 79), (98, 98, 101)]), 10)
        paint = vary(random, (215, 215, 210), 15)
        self._strip(painter, -400, 400, NEAR, 2 * _FAR, paving, SIDEWALK)
        self._strip(painter, -half, half, NEAR, _FAR, asphalt, ROAD)
        for _ in range(random.randint(0, 4)):
            left, near = random.uniform(-half, half - 1), random.uniform(4, 30)
            long, wide = random.uniform(0.6, 8), random.uniform(0.5, 1.5)
            patch = vary(random, asphalt, 16)
            self._strip(painter, left, min(half, left + wide), near, near + long, patch, ROAD)
        for side in (-1, 1):
            low, high = sorted((side * half, side * (half + 0.16)))
            self._strip(painter, low, high, NEAR, 70, vary(random, (172, 168, 160), 10), SIDEWALK)
            low, high = sorted((side * half, side * (half - 0.3)))
            self._strip(painter, low, high, NEAR, 50, vary(random, asphalt, 10), ROAD)
        if random.random() < 0.8:
            dash, start = random.choice([3.0, 4.0]), random.uniform(0, 6)
            while start < 70:
                self._strip(painter, -0.07, 0.07, start, start + dash, paint, ROAD)
                start += 2.2 * dash
        if random.random() < 0.4:
            for side in (-1, 1):
                line = side * (half - 2.2)
                self._strip(painter, line - 0.06, line + 0.06, NEAR, 80, paint, ROAD)
        if random.random() < 0.3:
            near = random.uniform(7, 20)
            stripe = -half + 0.5
            while stripe < half - 0.6:
                self._strip(painter, stripe, stripe + 0.5, near, near + 3.2, paint, ROAD)
                stripe += 1.0

    @property
    def edge(self) -> float:
        """Distance in metres from the road's middle to the fronts of the houses."""
        return self.half + self.pavement


def imagine(random: Random, height: int, width: int) -> Street:
    """Make up a street from the numbers of `random`, for a picture of H×W pixels."""
    size = math.sqrt(2.0 * width * height) * SUPERSAMPLE
    half, pavement = random.uniform(3.6, 6.2), random.uniform(2.8, 5.5)
    camera = Camera(
        focal=size * random.uniform(0.95, 1.3),
        centre=width * SUPERSAMPLE * random.uniform(0.44, 0.56),
        horizon=height * SUPERSAMPLE * random.uniform(0.37, 0.5),
        height=random.uniform(1.25, 2.0),
        offset=random.uniform(0.2, 0.55) * half,
        yaw=random.uniform(-0.06, 0.06),
        bend=random.uniform(-0.0011, 0.0011),
    )
    overcast = random.random() < 0.35
    turn, rise = random.uniform(-math.pi, math.pi), math.radians(random.uniform(28, 60))
    sun = (math.cos(rise) * math.sin(turn), math.sin(rise), math.cos(rise) * math.cos(turn))
    direct = 0.0 if overcast else random.uniform(0.6, 1.0)
    haze = vary(random, (214, 218, 222) if overcast else (205, 219, 232), 10)
    light = Light(sun, direct, haze, random.uniform(110, 420))
    zenith = vary(random, (188, 195, 203) if overcast else (96, 148, 208), 18)
    clouds = random.uniform(0.6, 0.95) if overcast else random.uniform(0.0, 0.6)
    bonnet = (
        vary(random, random.choice([(35, 36, 40), (120, 122, 126), (60, 70, 95)]), 12)
        if random.random() < 0.35
        else None
    )
    street = Street(camera, light, zenith, clouds, half, pavement, [], bonnet, random)
    for side in (-1, 1):
        street.things += _houses(street, side) + _pavement(street, side)
    street.things += _traffic(street)
    return street


def _child(random: Random) -> Random:
    return Random(random.getrandbits(64))


def _houses(street: Street, side: int) -> list[Thing]:
    """Make up the row of houses, gardens and trees behind one pavement."""
    random = street.random
    things: list[Thing] = []
    z = random.uniform(-10, 1)
    tall = random.uniform(6.5, 14)
    while z < _FAR - 15:
        long = random.uniform(7, 20)
        far = z + long
        u = side * (street.edge + random.choice([0.0, 0.0, 0.0, 1.5]))
        leaf = vary(random, random.choice(_LEAVES), 10)
        if far < NEAR + 1:
            z = far
            continue
        if random.random() < 0.8:
            height = max(5.5, random.gauss(tall, 2.5))
            wall = vary(random, random.choice(_WALLS), 18)
            things.append(Building(u, far, _child(random), z, height, wall, side))
        else:
            things.append(Hedge(u, far, _child(random), z, random.uniform(0.9, 2.0), leaf))
            for _ in range(random.randint(1, 3)):
                spot, back = random.uniform(max(z, 5), max(far, 6)), u + side * random.uniform(1.5, 6)
                height = random.uniform(5, 11)
                things.append(Tree(back, spot + 0.1, _child(random), height, height * random.uniform(0.25, 0.4), leaf))
        z = far + random.choice([0.0, 0.0, 0.0, 3.0])
    return things


def _post(street: Street, side: int, z: float) -> Thing:
    random = street.random
    u = side * (street.half + random.uniform(0.35, 0.8))
    colour = vary(random, random.choice([(125, 128, 130), (85, 90, 92), (60, 70, 66), (165, 165, 162)]), 12)
    draw = random.random()
    if draw < 0.62:
        kind = random.choice(["disc", "disc", "disc", "triangle", "triangle", "square", "square", "board"])
        size = random.uniform(1.1, 1.7) if kind == "board" else random.uniform(0.9, 1.3)
        height = random.uniform(2.5, 3.4) + (0.5 if kind == "board" else 0)
        return Sign(u, z, _child(random), height, random.uniform(0.09, 0.14), colour, 0.0, kind, size)
    if draw < 0.88:
        return Pole(
            u,
            z,
            _child(random),
            random.uniform(5.5, 9),
            random.uniform(0.2, 0.36),
            colour,
            -side * random.uniform(0.8, 2.2),
        )
    return Pole(u, z, _child(random), random.uniform(0.9, 1.2), random.uniform(0.16, 0.26), colour)


def _pavement(street: Street, side: int) -> list[Thing]:
    """Make up what stands and walks on one pavement."""
    random = street.random
    things: list[Thing] = []
    half, wide = street.half, street.pavement
    z = random.uniform(5, 11)
    while z < 90:
        things.append(_post(street, side, z))
        z += random.uniform(4, 10) * (1 + z / 60)
    if random.random() < 0.6:
        leaf = vary(random, random.choice(_LEAVES), 12)
        z, step = random.uniform(8, 18), random.uniform(8, 14)
        while z < 110:
            height = random.uniform(5, 8.5)
            u = side * (half + random.uniform(0.7, 1.1))
            things.append(
                Tree(u, z, _child(random), height, height * random.uniform(0.22, 0.32), vary(random, leaf, 8))
            )
            z += step * random.uniform(0.8, 1.2)
    for _ in range(random.randint(3, 7)):
        z = random.uniform(5.5, 12) if random.random() < 0.6 else random.uniform(10, 55)
        u = side * (half + random.uniform(0.8, max(1.0, wide - 0.4)))
        for companion in range(random.choice([1, 1, 2])):
            place = u + companion * random.uniform(0.5, 0.7)
            things.append(Person(place, z + 0.2 * companion, _child(random), random.uniform(1.45, 1.92)))
    if random.random() < 0.7:
        z, turn = random.uniform(6, 16), random.choice([-1, 1]) * random.uniform(0.35, 1.0)
        for number in range(random.randint(1, 4)):
            u = side * (half + random.uniform(0.9, 1.6))
            things.append(Bicycle(u, z + number * random.uniform(0.6, 1.0), _child(random), turn))
    if random.random() < 0.3:
        things.append(Bin(side * (half + random.uniform(0.5, 1.0)), random.uniform(7, 30), _child(random)))
    return things


def _traffic(street: Street) -> list[Thing]:
    """Make up parked and moving vehicles, cyclists, and people who cross the road."""
    random, half = street.random, street.half
    things: list[Thing] = []
    for _ in range(random.choice([2, 3, 3, 4])):
        z = random.uniform(5.5, 12) if random.random() < 0.7 else random.uniform(10, 35)
        turn = random.choice([-1, 1]) * (random.uniform(0.15, 0.4) if random.random() < 0.4 else random.uniform(0.5, 1))
        lane = random.choice([-1, 1]) * random.uniform(0.35, 0.95) * half
        things.append(Bicycle(lane, z, _child(random), turn, True))
    for side in (-1, 1):
        if random.random() < 0.65:
            z = random.uniform(7, 22)
            while z < 85:
                if random.random() < 0.72:
                    kind = random.choices(["car", "van", "truck"], [0.66, 0.14, 0.2])[0]
                    turn = (0 if side > 0 else math.pi) + random.gauss(0, 0.03)
                    edge = half - (1.4 if kind == "truck" else 1.1)
                    things.append(Vehicle(side * edge, z, _child(random), turn, kind))
                    z += 3.5 if kind == "truck" else 0.8
                z += random.uniform(5.2, 7.5)
    for side, turn in ((1, 0.0), (-1, math.pi)):
        z = random.uniform(8, 22)
        while z < 100:
            if random.random() < 0.75:
                kind = random.choices(["car", "van", "truck"], [0.5, 0.12, 0.38])[0]
                lane = half * (0.32 if half > 5 else 0.4)
                things.append(Vehicle(side * lane, z, _child(random), turn + random.gauss(0, 0.05), kind))
            z += random.uniform(12, 35)
    if random.random() < 0.15:
        kind = random.choice(["car", "truck"])
        u, z = random.uniform(-half, half), random.uniform(9, 16)
        things.append(Vehicle(u, z, _child(random), random.choice([-1, 1]) * random.uniform(1.2, 1.9), kind))
    for _ in range(random.choice([1, 1, 2, 3])):
        place = random.uniform(-half, half)
        things.append(Person(place, random.uniform(6, 16), _child(random), random.uniform(1.5, 1.9)))
    return _without_collisions(things)


def _without_collisions(things: list[Thing]) -> list[Thing]:
    """Leave out each thing that overlaps one kept before it."""
    kept: list[tuple[float, float, float, float, Thing]] = []
    for thing in things:
        across, along = 0.4, 0.9
        if isinstance(thing, Vehicle):
            sin, cos = abs(math.sin(thing.heading)), abs(math.cos(thing.heading))
            across = thing.half * cos + thing.long / 2 * sin
            along = thing.half * sin + thing.long / 2 * cos
        spot = (thing.u, thing.z, across, along)
        if all(abs(spot[0] - u) > across + a or abs(spot[1] - z) > along + b for u, z, a, b, _ in kept):
            kept.append((*spot, thing))
    return [thing for *_, thing in kept]
