"""Drawing at three times the size: named colours that stay apart, grounds, outlines of shapes, print, noise.

Small visual differences are lost at 160 px and 32 px per visual token, so everything here is made to be clearly
visible: nine named colours with little jitter, a contrast rule between ink and ground, strokes of at least 2 px.

Cost: about 2 ms a picture.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

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


def new_ground(name: str, rng: random.Random, plain: float = 0.6) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """Return a large picture of a named ground and its pen: plain, a gradient, or lightly textured.

    Gradients and textures stay within shades that keep their name.

    Args:
        name: one of `GROUNDS`.
        rng: draws shades and texture.
        plain: share of plain grounds.
    """
    colour = shade(name, rng)
    image, pen = new_canvas(colour)
    if rng.random() < plain:
        return image, pen
    sign = rng.choice((-1, 1))  # of all channels: lighter or darker, hardly another tint
    steps = [rng.randint(10, 20)] * 3 if name in ("black", "grey", "white") else [rng.randint(8, 16) for _ in range(3)]
    other = tuple(min(255, max(0, value + sign * step)) for value, step in zip(colour, steps, strict=True))
    style = rng.choice(("gradient", "gradient", "stripes", "dots", "cloud"))
    if style == "gradient":
        mask = Image.linear_gradient("L").rotate(rng.choice((0, 90, 180, 270))).resize(image.size)
        image.paste(other, (0, 0), mask)
    elif style == "cloud":
        grain = np.random.default_rng(rng.getrandbits(64)).integers(0, 255, (rng.randint(4, 9),) * 2, dtype=np.uint8)
        image.paste(other, (0, 0), Image.fromarray(grain).resize(image.size, Image.Resampling.BICUBIC))
    else:
        step = rng.randint(24, 60)
        level = rng.random() < 0.5
        for place in range(0, LARGE, step):
            if style == "stripes":
                pen.rectangle(
                    (0, place, LARGE, place + step // 3) if level else (place, 0, place + step // 3, LARGE), fill=other
                )
            else:
                for across in range(0, LARGE, step):
                    pen.ellipse((across, place, across + step // 3, place + step // 3), fill=other)
    return image, ImageDraw.Draw(image)


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def print_text(pen: ImageDraw.ImageDraw, centre: Point, text: str, height: float, ink: Colour, stroke: int = 1) -> None:
    """Print text of that letter height around a point of a large picture, in Pillow's own typeface."""
    font = _font(round(height * 1.4 / 4) * 4)
    left, top, right, bottom = font.getbbox(text)
    x, y = centre[0] - (left + right) / 2, centre[1] - (top + bottom) / 2
    pen.text((x, y), text, fill=ink, font=font, stroke_width=stroke)


def finish(image: Image.Image, rng: random.Random, noise: float = 0.0) -> Image.Image:
    """Reduce a large picture to `SIDE` px and add Gaussian noise of that standard deviation (0..255)."""
    small = image.reduce(OVERSAMPLE)
    if noise <= 0:
        return small
    grain = np.random.default_rng(rng.getrandbits(64)).normal(0.0, noise, (SIDE, SIDE, 1))
    return Image.fromarray((np.asarray(small, dtype=np.float64) + grain).clip(0, 255).astype(np.uint8))


def _polar(corners: Sequence[Point]) -> list[Point]:
    return [(math.atan2(y, x), math.hypot(x, y)) for x, y in corners]


def _heart() -> list[Point]:
    corners = []
    for i in range(72):
        t = 2 * math.pi * i / 72
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        corners.append((math.sin(t) ** 3 * 1.05, -(y + 2.5) / 15.5))
    return _polar(corners)


def _crescent() -> list[Point]:
    # A disc less a disc of 0.85 of its radius whose centre lies 0.45 to the right.
    far, bite = 0.45, 0.85
    x = (1 - bite * bite + far * far) / (2 * far)
    tip, inner = math.acos(x), math.atan2(math.sqrt(1 - x * x), x - far)
    outer = [tip + (2 * math.pi - 2 * tip) * i / 60 for i in range(61)]
    back = [2 * math.pi - inner - (2 * math.pi - 2 * inner) * i / 60 for i in range(61)]
    corners = [(math.cos(phi), math.sin(phi)) for phi in outer]
    corners += [(far + bite * math.cos(phi), bite * math.sin(phi)) for phi in back]
    return _polar([(px + 0.2, py) for px, py in corners])


def _outlines() -> dict[str, list[Point]]:
    """(angle, share of the radius) of each shape's corners."""
    arm = 0.32
    cross = [(-arm, -1), (arm, -1), (arm, -arm), (1, -arm), (1, arm), (arm, arm)]
    full = [2 * math.pi * i / 72 for i in range(73)]
    return {
        "circle": [(phi, 1.0) for phi in full[:-1]],
        "square": [(math.pi / 4 + math.pi / 2 * i, 1.12) for i in range(4)],
        "triangle": [(-math.pi / 2 + 2 * math.pi / 3 * i, 1.15) for i in range(3)],
        "star": [(-math.pi / 2 + math.pi / 5 * i, 1.15 if i % 2 == 0 else 0.46) for i in range(10)],
        "cross": _polar([*cross, *((-x, -y) for x, y in cross)]),
        "hexagon": [(math.pi / 3 * i, 1.05) for i in range(6)],
        "heart": _heart(),
        "crescent": _crescent(),
        "ring": [*((phi, 1.0) for phi in full), *((phi, 0.58) for phi in reversed(full))],
        "diamond": [(-math.pi / 2 + math.pi / 2 * i, 1.15 if i % 2 == 0 else 0.68) for i in range(4)],
    }


_OUTLINES = _outlines()
SHAPES = tuple(_OUTLINES)


def fill_outline(pen: ImageDraw.ImageDraw, polygon: Sequence[Point], fill: Colour | int) -> None:
    """Fill the polygon of a shape and close its seam: a ring's hole is cut in along the edge from last to first corner."""
    pen.polygon(list(polygon), fill=fill, outline=fill)
    pen.line([polygon[-1], polygon[0]], fill=fill, width=3)


def outline(name: str, centre: Point, radius: float, angle: float) -> list[Point]:
    """Return the polygon of a shape of that outer radius, turned by `angle` degrees; a ring's hole is cut along a seam.

    Raises:
        KeyError: for a name that is none of `SHAPES`.
    """
    turn = math.radians(angle)
    return [
        (centre[0] + radius * length * math.cos(phi + turn), centre[1] + radius * length * math.sin(phi + turn))
        for phi, length in _OUTLINES[name]
    ]
