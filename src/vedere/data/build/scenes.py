"""Scenes of one to five coloured shapes, with exact facts: colours, names, counts, places, sizes.

Ten shapes x eight colours on nine grounds, plain, graded or lightly textured. One shape fills up to three quarters of the
picture; two stand beside or above each other; three to five stand in a row, a column, in quarters around a middle, or
anywhere, so that each covers about one visual token or more. Scenes of three and more repeat names and colours, so that
there is something to count. `vedere.data.build.scene_questions` asks about them.

Cost: about 4 ms a picture.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from vedere.data.build.canvas import (
    COLOURS,
    LARGE,
    SHAPES,
    apart,
    fill_outline,
    finish,
    ground_for,
    new_ground,
    outline,
    shade,
)
from vedere.data.build.record import Split, article, stream

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five")
Look = tuple[str, str]
_QUARTERS = {
    "top left": (0.25, 0.25),
    "top right": (0.75, 0.25),
    "middle": (0.5, 0.5),
    "bottom left": (0.25, 0.75),
    "bottom right": (0.75, 0.75),
}
_ROW = {"left": 0.18, "middle": 0.5, "right": 0.82}
_COLUMN = {"top": 0.18, "middle": 0.5, "bottom": 0.82}
_BESIDE = {"left": "to the left of", "right": "to the right of", "top": "above", "bottom": "below"}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A shape of a scene: `place` is its half, row or quarter ("" if it has none), lengths are shares of the side."""

    name: str
    colour: str
    x: float
    y: float
    radius: float
    angle: float
    place: str

    @property
    def text(self) -> str:
        """Colour and name."""
        return f"{self.colour} {self.name}"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Shapes on a ground; those in a layout stand in reading order."""

    shapes: tuple[Shape, ...]
    ground: str

    def having(self, name: str = "", colour: str = "") -> tuple[Shape, ...]:
        """Return the shapes of that name and colour; "" means any."""
        return tuple(s for s in self.shapes if name in ("", s.name) and colour in ("", s.colour))


def plural(noun: str) -> str:
    """Return the plural of a shape's name or phrase."""
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"


def _looks(count: int, rng: random.Random) -> list[Look]:
    """Names and colours: two different ones of each for two shapes, repeats for more."""
    if count <= 2:
        return list(zip(rng.sample(SHAPES, count), rng.sample(list(COLOURS), count), strict=True))
    names, colours = rng.sample(SHAPES, rng.randint(1, 3)), rng.sample(list(COLOURS), rng.randint(1, 3))
    if rng.random() < 0.3:  # as mixed as can be
        names, colours = list(SHAPES), list(COLOURS)
    return [(rng.choice(names), rng.choice(colours)) for _ in range(count)]


def _scattered(count: int, rng: random.Random) -> list[tuple[str, float, float, float]]:
    """Places anywhere, apart from each other."""
    while True:
        spots: list[tuple[str, float, float, float]] = []
        for _ in range(60):
            radius = rng.uniform(0.095, 0.14)
            x, y = (rng.uniform(radius * 1.25, 1 - radius * 1.25) for _ in range(2))
            if all(math.hypot(x - ox, y - oy) > 1.2 * (radius + other) for _, ox, oy, other in spots):
                spots.append(("", x, y, radius))
            if len(spots) == count:
                return spots


def _spots(count: int, rng: random.Random) -> list[tuple[str, float, float, float]]:
    """(place, x, y, radius) of each shape."""
    if count == 1:
        radius = rng.uniform(0.15, 0.38)
        slack = 0.49 - radius * 1.15
        return [("", 0.5 + rng.uniform(-slack, slack), 0.5 + rng.uniform(-slack, slack), radius)]
    if count == 2:
        sizes = [rng.uniform(0.19, 0.21), rng.uniform(0.1, 0.14) if rng.random() < 0.5 else rng.uniform(0.18, 0.21)]
        rng.shuffle(sizes)
        along = [0.25 + rng.uniform(-0.01, 0.01), 0.75 + rng.uniform(-0.01, 0.01)]
        across = [0.5 + rng.uniform(-0.2, 0.2) for _ in range(2)]
        if rng.random() < 0.5:
            return [(p, along[i], across[i], sizes[i]) for i, p in enumerate(("left", "right"))]
        return [(p, across[i], along[i], sizes[i]) for i, p in enumerate(("top", "bottom"))]
    layout = rng.choice(("line", "quarters", "scattered") if count == 3 else ("quarters", "scattered"))
    if layout == "scattered":
        return _scattered(count, rng)
    radii = [rng.uniform(0.1, 0.135) for _ in range(count)]
    if layout == "line":
        across = [0.5 + rng.uniform(-0.15, 0.15) for _ in range(3)]
        if rng.random() < 0.5:
            return [(p, x, across[i], radii[i]) for i, (p, x) in enumerate(_ROW.items())]
        return [(p, across[i], y, radii[i]) for i, (p, y) in enumerate(_COLUMN.items())]
    places = [place for place in _QUARTERS if count == 5 or place != "middle"]
    kept = set(rng.sample(places, count))
    return [
        (place, x + rng.uniform(-0.03, 0.03), y + rng.uniform(-0.03, 0.03), radius)
        for (place, (x, y)), radius in zip(
            ((place, spot) for place, spot in _QUARTERS.items() if place in kept), radii, strict=True
        )
    ]


def draw_scene(rng: random.Random, counts: tuple[float, ...] = (28, 20, 18, 17, 17)) -> Scene:
    """Sample a scene.

    Args:
        rng: draws everything.
        counts: weights of one, two, ... shapes.

    Returns:
        A scene whose two shapes, if there are two, have different names and colours; three and more may repeat.
    """
    count = rng.choices(range(1, len(counts) + 1), weights=counts)[0]
    while True:  # some sets of inks leave no contrasting ground
        looks = _looks(count, rng)
        ground = ground_for([colour for _, colour in looks], rng)
        if all(apart(colour, ground) for _, colour in looks):
            break
    shapes = [
        Shape(name=name, colour=colour, x=x, y=y, radius=radius, angle=rng.uniform(-14, 14), place=place)
        for (name, colour), (place, x, y, radius) in zip(looks, _spots(count, rng), strict=True)
    ]
    return Scene(shapes=tuple(shapes), ground=ground)


def paint(pen: ImageDraw.ImageDraw, shape: Shape, rng: random.Random) -> None:
    """Paint a shape on a large picture."""
    polygon = outline(shape.name, (shape.x * LARGE, shape.y * LARGE), shape.radius * LARGE, shape.angle)
    fill_outline(pen, polygon, shade(shape.colour, rng))


def render_scene(scene: Scene, rng: random.Random) -> Image.Image:
    """Draw a scene, `SIDE` px a side."""
    image, pen = new_ground(scene.ground, rng)
    for shape in scene.shapes:
        paint(pen, shape, rng)
    return finish(image, rng, noise=rng.choice((0.0, 0.0, 3.0, 6.0)))


def contents(scene: Scene) -> str:
    """Return what a scene shows, the same looks together: "two red circles and a blue star"."""
    counts = Counter(shape.text for shape in scene.shapes)
    parts = [article(text) if many == 1 else f"{NUMBER_WORDS[many]} {plural(text)}" for text, many in counts.items()]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def describe(scene: Scene) -> str:
    """Return one sentence (without full stop) that names everything in the scene."""
    shapes = scene.shapes
    body = contents(scene)
    if len(shapes) == 2:
        body = f"{article(shapes[0].text)} {_BESIDE[shapes[0].place]} {article(shapes[1].text)}"
    return f"{body} on {article(scene.ground)} background"


def scene_of(split: Split, seed: int, index: int) -> tuple[Scene, random.Random]:
    """Return the scene behind one picture of the corpus, and the generator that goes on to draw it."""
    rng = stream(seed, "scenes", split, index)
    return draw_scene(rng), rng


def scenes(split: Split, count: int, seed: int, folder: Path) -> Iterator[tuple[Scene, Image.Image, random.Random]]:
    """Yield `count` scenes with their pictures and generators."""
    for index in range(count):
        scene, rng = scene_of(split, seed, index)
        yield scene, render_scene(scene, rng), rng
