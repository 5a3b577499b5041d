"""Scenes of one to four coloured shapes, with exact facts: colours, names, counts, places, sizes.

Five shapes x eight colours on nine backgrounds. One shape fills up to three quarters of the picture; two stand
beside or above each other; three and four stand in quarters, so that each covers about one visual token or more.
Yes/no questions are balanced and their "no" cases are near misses (right colour on the wrong shape and vice versa),
so that neither the question nor half of the picture gives the answer away.

Cost: about 3 ms a picture.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vedere.data.build.canvas import COLOURS, LARGE, apart, finish, ground_for, new_canvas, outline, shade
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

SHAPES = ("circle", "square", "triangle", "star", "cross")
NUMBER_WORDS = ("zero", "one", "two", "three", "four")
_QUARTERS = {
    "top left": (0.27, 0.27),
    "top right": (0.73, 0.27),
    "bottom left": (0.27, 0.73),
    "bottom right": (0.73, 0.73),
}
_MIRROR = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
_BESIDE = {"left": "to the left of", "right": "to the right of", "top": "above", "bottom": "below"}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A shape of a scene: `place` is its half or quarter ("" when alone), lengths are shares of the side."""

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
    """Shapes in reading order on a background."""

    shapes: tuple[Shape, ...]
    ground: str


def draw_scene(rng: random.Random) -> Scene:
    """Sample a scene.

    Two shapes have different names and colours; three and four have different (name, colour) pairs.
    """
    count = rng.choices((1, 2, 3, 4), weights=(42, 30, 14, 14))[0]
    if count == 2:
        names, colours = rng.sample(SHAPES, 2), rng.sample(list(COLOURS), 2)
        looks = list(zip(names, colours, strict=True))
    else:
        looks = rng.sample([(name, colour) for name in SHAPES for colour in COLOURS], count)
    ground = ground_for([colour for _, colour in looks], rng)
    while not all(
        apart(colour, ground) for _, colour in looks
    ):  # four very different inks can leave no contrasting ground
        looks = rng.sample([(name, colour) for name in SHAPES for colour in COLOURS], count)
        ground = ground_for([colour for _, colour in looks], rng)
    shapes = []
    if count == 1:
        radius = rng.uniform(0.2, 0.38)
        slack = 0.49 - radius * 1.15
        spots = [("", 0.5 + rng.uniform(-slack, slack), 0.5 + rng.uniform(-slack, slack), radius)]
    elif count == 2:
        sizes = [rng.uniform(0.19, 0.23), rng.uniform(0.11, 0.14) if rng.random() < 0.5 else rng.uniform(0.18, 0.22)]
        rng.shuffle(sizes)
        along = [0.26 + rng.uniform(-0.02, 0.02), 0.74 + rng.uniform(-0.02, 0.02)]
        across = [0.5 + rng.uniform(-0.06, 0.06) for _ in range(2)]
        if rng.random() < 0.5:
            spots = [(p, along[i], across[i], sizes[i]) for i, p in enumerate(("left", "right"))]
        else:
            spots = [(p, across[i], along[i], sizes[i]) for i, p in enumerate(("top", "bottom"))]
    else:
        kept = rng.sample(list(_QUARTERS), count)
        chosen = [place for place in _QUARTERS if place in kept]
        spots = []
        for place in chosen:
            x, y = _QUARTERS[place]
            spots.append((place, x + rng.uniform(-0.03, 0.03), y + rng.uniform(-0.03, 0.03), rng.uniform(0.13, 0.19)))
    for (name, colour), (place, x, y, radius) in zip(looks, spots, strict=True):
        angle = rng.uniform(-14, 14)
        shapes.append(Shape(name=name, colour=colour, x=x, y=y, radius=radius, angle=angle, place=place))
    return Scene(shapes=tuple(shapes), ground=ground)


def describe(scene: Scene) -> str:
    """Return one sentence (without full stop) that names everything in the scene."""
    shapes = scene.shapes
    if len(shapes) == 2:
        body = f"{article(shapes[0].text)} {_BESIDE[shapes[0].place]} {article(shapes[1].text)}"
    else:
        names = [article(shape.text) for shape in shapes]
        body = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"{body} on {article(scene.ground)} background"


def _color(rng: random.Random) -> str:
    return rng.choice(("color", "color", "colour"))


def _exists(scene: Scene, rng: random.Random) -> Ask:
    """Return a balanced yes/no question; a "no" keeps one of the two attributes of a shape that is there."""
    there = rng.choice(scene.shapes)
    looks = {(shape.name, shape.colour) for shape in scene.shapes}
    if rng.random() < 0.5:
        asked, answer = (there.name, there.colour), "yes"
    else:
        near = [(there.name, colour) for colour in COLOURS] + [(name, there.colour) for name in SHAPES] * 2
        asked, answer = rng.choice([look for look in near if look not in looks]), "no"
    return Ask(question=f"Is there {article(f'{asked[1]} {asked[0]}')}?", answer=answer, question_type="exists")


def questions(scene: Scene, rng: random.Random) -> tuple[Ask, ...]:
    """Return the questions that have one clear answer, in a random order that prefers plain ones."""
    shapes = scene.shapes
    names = [shape.name for shape in shapes]
    colours = [shape.colour for shape in shapes]
    options: list[tuple[float, Ask]] = [
        (0.9, _exists(scene, rng)),
        (
            0.7,
            Ask(question=f"What {_color(rng)} is the background?", answer=scene.ground, question_type="ground_colour"),
        ),
        (
            0.6 if len(shapes) == 1 else 1.3,
            Ask(
                question=rng.choice(("How many shapes are there?", "How many shapes do you see?")),
                answer=NUMBER_WORDS[len(shapes)],
                question_type="count",
            ),
        ),
        (
            0.9 if len(shapes) <= 2 else 0.1,
            Ask(question=rng.choice(CAPTION_PROMPTS), answer=describe(scene), question_type="describe"),
        ),
    ]
    target = rng.choice(shapes)
    if len(shapes) == 1:
        options.append(
            (
                1.6,
                Ask(
                    question=f"What {_color(rng)} is the {rng.choice(('shape', target.name))}?",
                    answer=target.colour,
                    question_type="colour",
                ),
            )
        )
        options.append(
            (
                1.8,
                Ask(
                    question=rng.choice(("What shape is this?", "Which shape is shown?")),
                    answer=target.name,
                    question_type="shape",
                ),
            )
        )
    else:
        if names.count(target.name) == 1:
            options.append(
                (
                    1.0,
                    Ask(
                        question=f"What {_color(rng)} is the {target.name}?",
                        answer=target.colour,
                        question_type="colour_of",
                    ),
                )
            )
        if colours.count(target.colour) == 1:
            options.append(
                (
                    1.0,
                    Ask(question=f"Which shape is {target.colour}?", answer=target.name, question_type="shape_of"),
                )
            )
        options.append((0.8, Ask(question=f"Where is the {target.text}?", answer=target.place, question_type="where")))
    if len(shapes) == 2:
        options += _pair_questions(scene, rng)
    return tuple(weighted_order(rng, options))


def _pair_questions(scene: Scene, rng: random.Random) -> list[tuple[float, Ask]]:
    first, second = rng.sample(scene.shapes, 2)
    told = first.place if rng.random() < 0.5 else _MIRROR[first.place]
    relation = {"left": "left of", "right": "right of", "top": "above", "bottom": "below"}
    side = {"left": "on the left", "right": "on the right", "top": "at the top", "bottom": "at the bottom"}
    options = [
        (
            0.8,
            Ask(
                question=f"Is the {first.name} {relation[told]} the {second.name}?",
                answer="yes" if told == first.place else "no",
                question_type="relation",
            ),
        ),
        (
            1.0,
            Ask(question=f"Which shape is {side[first.place]}?", answer=first.name, question_type="shape_at"),
        ),
        (
            0.8,
            Ask(
                question=f"What {_color(rng)} is the shape {side[first.place]}?",
                answer=first.colour,
                question_type="colour_at",
            ),
        ),
    ]
    if max(first.radius, second.radius) >= 1.35 * min(first.radius, second.radius):
        larger = first if first.radius > second.radius else second
        options.append(
            (
                1.2,
                Ask(
                    question=f"Which is larger, the {first.name} or the {second.name}?",
                    answer=larger.name,
                    question_type="larger",
                ),
            )
        )
    return options


def make(split: Split, count: int, seed: int, folder: Path) -> Iterator[Item]:
    """Yield `count` scenes."""
    for index in range(count):
        rng = stream(seed, "scenes", split, index)
        scene = draw_scene(rng)
        image, pen = new_canvas(shade(scene.ground, rng))
        for shape in scene.shapes:
            centre = (shape.x * LARGE, shape.y * LARGE)
            polygon = outline(shape.name, centre, shape.radius * LARGE, shape.angle)
            pen.polygon(polygon, fill=shade(shape.colour, rng))
        names = ", ".join(shape.text for shape in scene.shapes)
        target = rng.choice(scene.shapes)
        sentence = describe(scene)
        alignment = list(captions_as_asks((sentence,), rng))
        if target.place:
            alignment += [Ask(question=f"Where is the {target.text}?", answer=target.place, question_type="where")] * 2
            at = next(shape for shape in scene.shapes if shape is target)
            alignment.append(Ask(question=f"What is at the {at.place}?", answer=at.text, question_type="what_at"))
        else:
            alignment.append(Ask(question="List the shapes.", answer=names, question_type="list"))
        yield Item(
            image=finish(image, rng, noise=rng.choice((0.0, 0.0, 3.0, 6.0))),
            labels=(names,) if len(scene.shapes) > 1 else (names, names, target.name, article(names)),
            captions=(sentence,),
            alignment=tuple(alignment),
            asks=questions(scene, rng),
        )


KIND = Kind(name="scenes", share=0.34, make=make)
