"""Drawing at three times the size: named colours that stay apart, outlines of shapes, noise.

Small visual differences are lost at 112 px and 28 px per visual token, so everything here is made to be clearly
visible: nine named colours with little jitter, a contrast rule between ink and ground, strokes of at least 2 px.

Cost: about 1 ms a picture.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw

from vedere.data.build.record import SIDE

OVERSAMPLE = 3
LARGE = SIDE * OVERSAMPLE
Colour: TypeAlias = tuple[int, int, int]
Point: TypeAlias = tuple[float, float]

COLOURS: dict[str, Colour] = {
    "red": (214, 34, 34),
    "green": (36, 158, 58),
    "blue": (34, 84, 218),
    "yellow": (244, 214, 36),
    "orange": (243, 134, 24),
    "purple": (134, 46, 166),
    "black": (22, 22, 22),
    "white": (246, 246, 246),
}
GROUNDS: dict[str, Colour] = {**COLOURS, "grey": (150, 150, 150)}
_NEIGHBOURS = {
    frozenset(pair)
    for pair in (
        ("red", "orange"),
        ("orange", "yellow"),
        ("yellow", "white"),
        ("blue", "purple"),
        ("red", "purple"),
        ("purple", "black"),
    )
}


def apart(first: str, second: str) -> bool:
    """Say whether two named colours can be told apart where they touch."""
    if first == second or frozenset((first, second)) in _NEIGHBOURS:
        return False
    return sum(abs(a - b) for a, b in zip(GROUNDS[first], GROUNDS[second], strict=True)) >= 200


def shade(name: str, rng: random.Random, jitter: int = 14) -> Colour:
    """Return a slightly varied colour of that name; black, grey and white vary in brightness, hardly in tint."""
    neutral = name in ("black", "grey", "white")
    common, own = (rng.randint(-jitter, jitter), 4) if neutral else (0, jitter)
    red, green, blue = (min(255, max(0, value + common + rng.randint(-own, own))) for value in GROUNDS[name])
    return red, green, blue


def ground_for(inks: Sequence[str], rng: random.Random) -> str:
    """Pick a background that all inks stand out from; plain ones more often."""
    fitting = [name for name in GROUNDS if all(apart(name, ink) for ink in inks)]
    plain = [name for name in fitting if name in ("white", "grey", "black")]
    return rng.choice(plain if plain and (rng.random() < 0.4 or not fitting) else fitting or ["grey"])


def new_canvas(colour: Colour) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return an empty large picture and its pen."""
    image = Image.new("RGB", (LARGE, LARGE), colour)
    return image, ImageDraw.Draw(image)


def finish(image: Image.Image, rng: random.Random, noise: float = 0.0) -> Image.Image:
    """Reduce a large picture to `SIDE` px and add Gaussian noise of that standard deviation (0..255)."""
    small = image.reduce(OVERSAMPLE)
    if noise <= 0:
        return small
    grain = np.random.default_rng(rng.getrandbits(64)).normal(0.0, noise, (SIDE, SIDE, 1))
    return Image.fromarray((np.asarray(small, dtype=np.float64) + grain).clip(0, 255).astype(np.uint8))


def outline(name: str, centre: Point, radius: float, angle: float) -> list[Point]:
    """Return the polygon of a shape of that outer radius, turned by `angle` degrees.

    Raises:
        KeyError: for a name that is none of circle, square, triangle, star, cross.
    """
    if name == "circle":
        polar = [(2 * math.pi * i / 72, 1.0) for i in range(72)]
    elif name == "square":
        polar = [(math.pi / 4 + math.pi / 2 * i, 1.12) for i in range(4)]
    elif name == "triangle":
        polar = [(-math.pi / 2 + 2 * math.pi / 3 * i, 1.15) for i in range(3)]
    elif name == "star":
        polar = [(-math.pi / 2 + math.pi / 5 * i, 1.15 if i % 2 == 0 else 0.46) for i in range(10)]
    elif name == "cross":
        arm = 0.32
        corners = [(-arm, -1), (arm, -1), (arm, -arm), (1, -arm), (1, arm), (arm, arm)]
        corners += [(-x, -y) for x, y in corners]
        polar = [(math.atan2(y, x), math.hypot(x, y)) for x, y in corners]
    else:
        raise KeyError(name)
    turn = math.radians(angle)
    return [
        (centre[0] + radius * length * math.cos(phi + turn), centre[1] + radius * length * math.sin(phi + turn))
        for phi, length in polar
    ]
