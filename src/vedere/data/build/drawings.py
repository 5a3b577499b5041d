"""Line drawings of fourteen things, each drawn by a short program with varied proportions and parts.

Every drawing is made of polylines in the unit square that go through one random affine map (turn, scale, shear,
shift) and a slow wobble, as a hand would draw them; strokes are 3 to 5 px wide at 160 px. Half of the drawings
have their closed parts filled.

Cost: about 3 ms a picture.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from PIL import Image, ImageDraw

from vedere.data.build.canvas import COLOURS, GROUNDS, LARGE, Colour, Point, apart, finish, new_ground, shade
from vedere.data.build.record import (
    CAPTION_PROMPTS,
    Ask,
    Item,
    Kind,
    Split,
    article,
    captions_as_asks,
    stream,
    weighted_order,
)


class Sketch:
    """A pen in the unit square (y down) behind a random affine map and a wobble."""

    def __init__(self, pen: ImageDraw.ImageDraw, rng: random.Random, ink: Colour, fills: list[Colour]) -> None:
        """Take the pen of a large canvas; `fills` may be empty (nothing is filled)."""
        self.rng = rng
        self._pen, self._ink, self._fills = pen, ink, fills
        self._width = rng.randint(9, 16)
        turn, scale = math.radians(rng.uniform(-10, 10)), rng.uniform(0.74, 0.96)
        stretch, shear = rng.uniform(0.85, 1.0), rng.uniform(-0.1, 0.1)
        flip = rng.choice((-1, 1))
        self._map = (
            scale * math.cos(turn) * flip,
            scale * (shear - math.sin(turn)),
            scale * stretch * math.sin(turn) * flip,
            scale * stretch * math.cos(turn),
        )
        slack = 0.5 - scale * 0.45
        self._shift = (rng.uniform(-slack, slack) * 0.7, rng.uniform(-slack, slack) * 0.7)
        self._phases = [rng.uniform(0, 2 * math.pi) for _ in range(4)]
        self._wobble = rng.uniform(0.0, 0.012)

    def _place(self, x: float, y: float) -> Point:
        a, b, c, d = self._map
        x += self._wobble * (math.sin(9 * y + self._phases[0]) + math.sin(17 * x + self._phases[1]))
        y += self._wobble * (math.sin(11 * x + self._phases[2]) + math.sin(15 * y + self._phases[3]))
        u, v = x - 0.5, y - 0.5
        return (
            (0.5 + self._shift[0] + a * u + b * v) * LARGE,
            (0.5 + self._shift[1] + c * u + d * v) * LARGE,
        )

    def path(self, points: list[Point], closed: bool = False, solid: bool = False) -> None:
        """Draw a polyline; closed ones may be filled (`solid` ones always, with ink)."""
        corners = [*points, points[0]] if closed else points
        placed = []
        for (x0, y0), (x1, y1) in pairwise(corners):
            steps = max(1, round(math.hypot(x1 - x0, y1 - y0) / 0.06))
            placed += [self._place(x0 + (x1 - x0) * i / steps, y0 + (y1 - y0) * i / steps) for i in range(steps)]
        placed.append(self._place(*corners[-1]))
        if solid:
            self._pen.polygon(placed, fill=self._ink)
        elif closed and self._fills:
            self._pen.polygon(placed, fill=self.rng.choice(self._fills))
        self._pen.line(placed, fill=self._ink, width=self._width, joint="curve")
        radius = self._width / 2
        for x, y in (placed[0], placed[-1]):
            self._pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=self._ink)

    def arc(self, x: float, y: float, rx: float, ry: float, start: float = 0.0, end: float = 360.0) -> list[Point]:
        """Return points of an elliptic arc, degrees clockwise from the right."""
        count = max(6, round(abs(end - start) / 12))
        angles = [math.radians(start + (end - start) * i / count) for i in range(count + 1)]
        return [(x + rx * math.cos(phi), y + ry * math.sin(phi)) for phi in angles]

    def ring(self, x: float, y: float, rx: float, ry: float | None = None, solid: bool = False) -> None:
        """Draw an ellipse."""
        self.path(self.arc(x, y, rx, rx if ry is None else ry), closed=True, solid=solid)

    def box(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """Draw a rectangle."""
        self.path([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], closed=True)


def _house(s: Sketch) -> None:
    wall, left, right = s.rng.uniform(0.4, 0.5), s.rng.uniform(0.1, 0.2), s.rng.uniform(0.8, 0.9)
    if s.rng.random() < 0.5:
        s.box(0.66, 0.14, 0.76, 0.4)
    s.box(left, wall, right, 0.92)
    s.path(
        [(left - 0.06, wall), (s.rng.uniform(0.42, 0.58), s.rng.uniform(0.06, 0.16)), (right + 0.06, wall)], closed=True
    )
    door = s.rng.uniform(0.25, 0.6)
    s.box(door, s.rng.uniform(0.62, 0.68), door + 0.16, 0.92)
    if s.rng.random() < 0.7:
        window = 0.62 if door < 0.42 else left + 0.06
        s.box(window, wall + 0.1, window + 0.14, wall + 0.24)


def _tree(s: Sketch) -> None:
    half = s.rng.uniform(0.05, 0.08)
    s.box(0.5 - half, 0.58, 0.5 + half, 0.95)
    if s.rng.random() < 0.5:
        for i in range(3):
            width, top = 0.2 + 0.07 * i, 0.05 + 0.18 * i
            s.path([(0.5 - width, top + 0.27), (0.5, top), (0.5 + width, top + 0.27)], closed=True)
        return
    bumps, width, height = s.rng.randint(6, 9), s.rng.uniform(0.3, 0.38), s.rng.uniform(0.26, 0.31)
    crown = []
    for i in range(96):
        phi = 2 * math.pi * i / 96
        swell = 1 + 0.1 * abs(math.sin(phi * bumps / 2))
        crown.append((0.5 + width * swell * math.cos(phi), 0.36 + height * swell * math.sin(phi)))
    s.path(crown, closed=True)


def _sun(s: Sketch) -> None:
    radius, rays = s.rng.uniform(0.18, 0.24), s.rng.randint(8, 12)
    s.ring(0.5, 0.5, radius)
    for i in range(rays):
        phi = 2 * math.pi * i / rays
        near, far = radius + 0.07, s.rng.uniform(0.42, 0.47)
        s.path([(0.5 + r * math.cos(phi), 0.5 + r * math.sin(phi)) for r in (near, far)])


def _face(s: Sketch) -> None:
    s.ring(0.5, 0.5, s.rng.uniform(0.38, 0.44))
    eye, dot = s.rng.uniform(0.13, 0.18), s.rng.uniform(0.035, 0.055)
    for x in (0.5 - eye, 0.5 + eye):
        s.ring(x, 0.4, dot, solid=True)
    if s.rng.random() < 0.6:
        s.path([(0.5, 0.46), (0.47, 0.56), (0.52, 0.57)])
    smile = s.rng.uniform(0.06, 0.13)
    s.path(s.arc(0.5, 0.64, 0.19, smile, 10, 170))


def _boat(s: Sketch) -> None:
    deck = s.rng.uniform(0.62, 0.7)
    s.path([(0.08, deck), (0.92, deck), (0.76, 0.88), (0.24, 0.88)], closed=True)
    mast = s.rng.uniform(0.44, 0.54)
    s.path([(mast, deck), (mast, 0.08)])
    s.path(
        [(mast + 0.03, 0.12), (mast + s.rng.uniform(0.26, 0.36), deck - 0.08), (mast + 0.03, deck - 0.08)], closed=True
    )
    if s.rng.random() < 0.6:
        s.path([(mast - 0.03, 0.2), (mast - 0.26, deck - 0.08), (mast - 0.03, deck - 0.08)], closed=True)


def _car(s: Sketch) -> None:
    roof, hood = s.rng.uniform(0.26, 0.34), s.rng.uniform(0.46, 0.52)
    left, right = s.rng.uniform(0.22, 0.28), s.rng.uniform(0.68, 0.74)
    s.path(
        [
            (0.05, hood),
            (left, hood),
            (left + 0.1, roof),
            (right - 0.08, roof),
            (right + 0.05, hood),
            (0.95, hood + 0.04),
            (0.95, 0.7),
            (0.05, 0.7),
        ],
        closed=True,
    )
    s.path([(0.5, roof), (0.5, hood)])
    s.path([(left, hood), (right + 0.05, hood)])
    radius = s.rng.uniform(0.09, 0.12)
    for x in (0.26, 0.74):
        s.ring(x, 0.71, radius)


def _flower(s: Sketch) -> None:
    petals, size = s.rng.randint(5, 7), s.rng.uniform(0.11, 0.13)
    s.path([(0.5, 0.4), (0.48, 0.7), (0.5, 0.96)])
    for side in (-1, 1) if s.rng.random() < 0.7 else (1,):
        s.path(
            [(0.49, 0.82), (0.49 + side * 0.12, 0.66), (0.49 + side * 0.24, 0.68), (0.49 + side * 0.14, 0.8)],
            closed=True,
        )
    for i in range(petals):
        phi = 2 * math.pi * i / petals
        s.ring(0.5 + 0.18 * math.cos(phi), 0.32 + 0.18 * math.sin(phi), size)
    s.ring(0.5, 0.32, 0.09)


def _fish(s: Sketch) -> None:
    height = s.rng.uniform(0.18, 0.26)
    s.path([(0.66, 0.5), (0.93, 0.5 - height), (0.88, 0.5), (0.93, 0.5 + height)], closed=True)
    s.ring(0.4, 0.5, 0.33, height)
    s.ring(0.22, 0.45, 0.03, solid=True)
    s.path(s.arc(0.3, 0.5, 0.08, height * 0.7, -70, 70))
    if s.rng.random() < 0.6:
        s.path([(0.42, 0.5 - height), (0.55, 0.36 - height), (0.58, 0.53 - height)])


def _cup(s: Sketch) -> None:
    top, taper = s.rng.uniform(0.28, 0.36), s.rng.uniform(0.02, 0.1)
    s.path(s.arc(0.68, 0.58, 0.22, s.rng.uniform(0.13, 0.17), -80, 80))
    s.path([(0.16, top), (0.7, top), (0.7 - taper, 0.9), (0.16 + taper, 0.9)], closed=True)
    if s.rng.random() < 0.6:
        for x in (0.32, 0.44, 0.56):
            s.path([(x, 0.2), (x + 0.03, 0.14), (x - 0.02, 0.09), (x, 0.04)])


def _ladder(s: Sketch) -> None:
    half, narrow, rungs = s.rng.uniform(0.15, 0.22), s.rng.uniform(0.0, 0.05), s.rng.randint(4, 6)
    s.path([(0.5 - half, 0.97), (0.5 - half + narrow, 0.03)])
    s.path([(0.5 + half, 0.97), (0.5 + half - narrow, 0.03)])
    for i in range(rungs):
        y = 0.12 + 0.76 * i / (rungs - 1)
        s.path([(0.5 - half + narrow * (1 - y), y), (0.5 + half - narrow * (1 - y), y)])


def _clock(s: Sketch) -> None:
    radius = s.rng.uniform(0.38, 0.45)
    s.ring(0.5, 0.5, radius)
    for i in range(12):
        phi = math.pi / 6 * i
        s.path([(0.5 + r * math.cos(phi), 0.5 + r * math.sin(phi)) for r in (radius - 0.07, radius - 0.02)])
    hour = s.rng.uniform(0, 2 * math.pi)
    for phi, reach in ((hour, 0.2), (hour + s.rng.uniform(0.8, 5.4), 0.3)):
        s.path([(0.5, 0.5), (0.5 + reach * math.cos(phi), 0.5 + reach * math.sin(phi))])


def _umbrella(s: Sketch) -> None:
    rim, ribs = s.rng.uniform(0.46, 0.54), s.rng.randint(3, 5)
    s.path([(0.5, rim), (0.5, 0.84), *s.arc(0.43, 0.86, 0.07, 0.08, 0, 170)])
    dome = s.arc(0.5, rim, 0.44, rim - 0.08, 180, 360)
    scallops: list[Point] = []
    for i in range(ribs):
        width = 0.44 / ribs
        scallops += s.arc(0.94 - width * (2 * i + 1), rim, width, 0.06, 0, -180)
    s.path([*dome, *scallops], closed=True)
    for i in range(1, ribs):
        s.path([(0.5, 0.08), (0.06 + 0.88 * i / ribs, rim)])


def _heart(s: Sketch) -> None:
    wide, points = s.rng.uniform(0.024, 0.027), []
    for i in range(72):
        t = 2 * math.pi * i / 72
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((0.5 + wide * x, 0.46 - 0.025 * y))
    s.path(points, closed=True)


def _cat(s: Sketch) -> None:
    for side in (-1, 1):
        s.path([(0.5 + side * 0.34, 0.42), (0.5 + side * 0.33, 0.08), (0.5 + side * 0.1, 0.25)], closed=True)
    s.ring(0.5, 0.56, s.rng.uniform(0.35, 0.39), s.rng.uniform(0.32, 0.36))
    for side in (-1, 1):
        s.ring(0.5 + side * 0.15, 0.5, 0.04, 0.055, solid=True)
        for drop in (-0.03, 0.05):
            s.path([(0.5 + side * 0.14, 0.66 + drop / 2), (0.5 + side * 0.46, 0.64 + drop * 1.6)])
    s.path([(0.46, 0.62), (0.54, 0.62), (0.5, 0.67)], closed=True, solid=True)


THINGS: dict[str, Callable[[Sketch], None]] = {
    "house": _house,
    "tree": _tree,
    "sun": _sun,
    "face": _face,
    "boat": _boat,
    "car": _car,
    "flower": _flower,
    "fish": _fish,
    "cup": _cup,
    "ladder": _ladder,
    "clock": _clock,
    "umbrella": _umbrella,
    "heart": _heart,
    "cat": _cat,
}


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A large picture of a thing, and the names of its ink and ground."""

    image: Image.Image
    thing: str
    ink: str
    ground: str


def draw(thing: str, rng: random.Random) -> Drawing:
    """Draw a thing in colours that stand apart."""
    ink = rng.choice([name for name in COLOURS if name not in ("yellow", "white")])
    ground = rng.choice(["white", "white", "white", *(name for name in GROUNDS if apart(name, ink))])
    tints = [name for name in GROUNDS if apart(name, ink) and name != ground]
    fills = [shade(name, rng) for name in rng.sample(tints, min(2, len(tints)))] if rng.random() < 0.5 else []
    image, pen = new_ground(ground, rng, plain=0.8)
    THINGS[thing](Sketch(pen, rng, shade(ink, rng), fills))
    return Drawing(image=image, thing=thing, ink=ink, ground=ground)


def make(split: Split, count: int, seed: int, folder: Path) -> Iterator[Item]:
    """Yield `count` drawings."""
    for index in range(count):
        rng = stream(seed, "drawings", split, index)
        thing = rng.choice(list(THINGS))
        drawing = draw(thing, rng)
        ink, ground = drawing.ink, drawing.ground
        named = article(thing)
        told = thing if rng.random() < 0.5 else rng.choice([other for other in THINGS if other != thing])
        name_it = Ask(
            question=rng.choice(
                ("What is this?", "What is this?", "What is drawn here?", "What does the drawing show?")
            ),
            answer=thing,
            question_type="name",
            facts=("thing",),
        )
        check = Ask(
            question=f"Is this {article(told)}?",
            answer="yes" if told == thing else "no",
            question_type="check",
            facts=("thing",),
        )
        word = rng.choice(("color", "colour"))
        line = Ask(question=f"What {word} are the lines?", answer=ink, question_type="line_colour", facts=("ink",))
        back = Ask(
            question=f"What {word} is the background?", answer=ground, question_type="ground_colour", facts=("ground",)
        )
        seen = Ask(
            question=rng.choice(CAPTION_PROMPTS),
            answer=f"a drawing of {named}",
            question_type="describe",
            facts=("thing",),
        )
        caption = f"{article(ink)} line drawing of {named} on {article(ground)} background"
        yield Item(
            image=finish(drawing.image, rng, noise=rng.choice((0.0, 0.0, 4.0))),
            labels=(thing, f"drawing of {named}"),
            captions=(f"a drawing of {named}", caption),
            alignment=(*captions_as_asks((caption,), rng), name_it),
            asks=tuple(weighted_order(rng, [(3.0, name_it), (0.8, check), (0.4, line), (0.3, back), (0.7, seen)])),
        )


KIND = Kind(name="drawings", share=0.08, make=make, independent=True)
