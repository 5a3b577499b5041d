"""Questions about scenes that have one clear answer: the kind `scenes`.

Yes/no questions are balanced and their "no" cases are near misses (right colour on the wrong shape and vice versa).
What is counted is chosen by its number first and by its look second, so that no number is the usual answer. Every ask
names the facts it tells, so that several can share a conversation (`vedere.data.build.turns`).

Cost: below 1 ms a scene.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from vedere.data.build.canvas import COLOURS, SHAPES
from vedere.data.build.record import (
    CAPTION_PROMPTS,
    Ask,
    Item,
    Kind,
    Split,
    article,
    captions_as_asks,
    weighted_order,
)
from vedere.data.build.scenes import NUMBER_WORDS, Scene, Shape, contents, describe, plural, scenes

Options = list[tuple[float, Ask]]
_OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
_AT = {"left": "on the left", "right": "on the right", "top": "at the top", "bottom": "at the bottom"}
_CLEARLY = 0.22
"""Two shapes stand left and right of, or above and below, each other from this distance on."""
_LARGER = 1.3


def _color(rng: random.Random) -> str:
    return rng.choice(("color", "color", "colour"))


def _at(place: str) -> str:
    return _AT.get(place) or ("in the middle" if place == "middle" else f"at the {place}")


def _name(scene: Scene, shape: Shape) -> tuple[str, ...]:
    """Facts that are known to who knows that a shape of this name is there."""
    return (f"name:{scene.shapes.index(shape)}", f"count:{shape.name}")


def _colour(scene: Scene, shape: Shape) -> tuple[str, ...]:
    return (f"colour:{scene.shapes.index(shape)}", f"count:{shape.colour}")


def _place(scene: Scene, shape: Shape) -> tuple[str, ...]:
    # Where one of two stands says where the other one does.
    return ("places",) if len(scene.shapes) == 2 else (f"place:{scene.shapes.index(shape)}",)


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


def _exists(scene: Scene, rng: random.Random) -> Ask:
    """Return a balanced yes/no question; a "no" keeps one of the two attributes of a shape that is there."""
    there = rng.choice(scene.shapes)
    looks = {(shape.name, shape.colour) for shape in scene.shapes}
    truth = rng.random() < 0.5
    asked = (there.name, there.colour)
    if not truth:
        near = [(there.name, colour) for colour in COLOURS] + [(name, there.colour) for name in SHAPES]
        asked = rng.choice([look for look in near if look not in looks])
    # The same facts for yes and for no: which turns it goes with must not tell the answer.
    near_it = (*scene.having(name=asked[0]), *scene.having(colour=asked[1]))
    told = [fact for shape in near_it for fact in (*_name(scene, shape), *_colour(scene, shape))]
    return Ask(
        question=f"Is there {article(f'{asked[1]} {asked[0]}')}?",
        answer=_yes(truth),
        question_type="exists",
        facts=tuple(dict.fromkeys(told)),
    )


def _count(scene: Scene, name: str, colour: str) -> Ask:
    found = scene.having(name, colour)
    told = [f"count:{colour or name}" if not (name and colour) else f"count:{colour} {name}"]
    if len(scene.shapes) <= 2:
        for shape in scene.shapes:
            told += (*(_name(scene, shape) if name else ()), *(_colour(scene, shape) if colour else ()))
    noun = plural(" ".join(filter(None, (colour, name or "shape"))))
    return Ask(
        question=f"How many {noun} are there?",
        answer=NUMBER_WORDS[len(found)],
        question_type="count_look" if name and colour else "count_colour" if colour else "count_name",
        facts=tuple(dict.fromkeys(told)),
    )


def _counts(scene: Scene, rng: random.Random) -> Options:
    """Two questions with "how many", of which the second is about the whole scene."""
    styles = [(name, "") for name in SHAPES] + [("", colour) for colour in COLOURS]
    styles += [
        (name, colour) for name in SHAPES for colour in COLOURS if scene.having(name) or scene.having("", colour)
    ]
    by_number: dict[int, list[tuple[str, str]]] = {}
    for style in styles:
        by_number.setdefault(len(scene.having(*style)), []).append(style)
    # One is in reach of every scene and five of few.
    numbers = list(by_number)
    number = rng.choices(numbers, weights=[(0.55, 0.45, 1.0, 1.6, 2.2, 2.6)[n] for n in numbers])[0]
    by_sort: dict[tuple[bool, bool], list[tuple[str, str]]] = {}
    for name, colour in by_number[number]:
        by_sort.setdefault((bool(name), bool(colour)), []).append((name, colour))
    heavy = len(scene.shapes) > 2
    return [
        (2.2 if heavy else 0.5, _count(scene, *rng.choice(by_sort[rng.choice(list(by_sort))]))),
        (
            1.6 if heavy else 0.7,
            Ask(
                question=rng.choice(
                    ("How many shapes are there?", "How many shapes are there?", "How many shapes do you see?")
                ),
                answer=NUMBER_WORDS[len(scene.shapes)],
                question_type="count",
                facts=("n",),
            ),
        ),
    ]


def _alone(scene: Scene, rng: random.Random) -> Options:
    """Questions about a single shape."""
    (shape,) = scene.shapes
    noun = rng.choice(("shape", shape.name))
    return [
        (
            1.4,
            Ask(
                question=f"What {_color(rng)} is the {noun}?",
                answer=shape.colour,
                question_type="colour",
                facts=_colour(scene, shape),
                given=("n", *(_name(scene, shape) if noun != "shape" else ())),
            ),
        ),
        (
            1.6,
            Ask(
                question=rng.choice(("What shape is this?", "Which shape is shown?")),
                answer=shape.name,
                question_type="shape",
                facts=_name(scene, shape),
                given=("n",),
            ),
        ),
        (
            1.0,
            Ask(
                question="What is this?",
                answer=article(shape.text),
                question_type="name",
                facts=(*_name(scene, shape), *_colour(scene, shape)),
                given=("n",),
            ),
        ),
    ]


def _single_out(scene: Scene, rng: random.Random) -> Options:
    """Questions about one shape among others, each singled out by something that it has alone."""
    options: Options = []
    names, colours = Counter(s.name for s in scene.shapes), Counter(s.colour for s in scene.shapes)
    looks = Counter(shape.text for shape in scene.shapes)
    for shape in rng.sample(scene.shapes, min(3, len(scene.shapes))):
        name, colour, place = _name(scene, shape), _colour(scene, shape), _place(scene, shape)
        word = _color(rng)
        if names[shape.name] == 1:
            asked = f"What {word} is the {shape.name}?"
            options.append(
                (
                    0.8,
                    Ask(question=asked, answer=shape.colour, question_type="colour_of", facts=colour, given=name),
                )
            )
        if colours[shape.colour] == 1:
            asked = f"Which shape is {shape.colour}?"
            options.append(
                (0.8, Ask(question=asked, answer=shape.name, question_type="shape_of", facts=name, given=colour))
            )
        if not shape.place:
            continue
        if looks[shape.text] == 1:
            asked = f"Where is the {shape.text}?"
            options.append(
                (
                    0.7,
                    Ask(
                        question=asked,
                        answer=shape.place,
                        question_type="where",
                        facts=place,
                        given=(*name, *colour),
                    ),
                )
            )
        asked = f"Which shape is {_at(shape.place)}?"
        options.append((0.5, Ask(question=asked, answer=shape.name, question_type="shape_at", facts=name, given=place)))
        asked = f"What {word} is the shape {_at(shape.place)}?"
        options.append(
            (0.5, Ask(question=asked, answer=shape.colour, question_type="colour_at", facts=colour, given=place))
        )
    return options


def _relations(scene: Scene, rng: random.Random) -> Options:
    """Questions that compare two shapes, or two groups of shapes."""
    options: Options = []
    names = Counter(shape.name for shape in scene.shapes)
    alone = [shape for shape in scene.shapes if names[shape.name] == 1]
    if len(alone) >= 2:
        first, second = rng.sample(alone, 2)
        both = (*_name(scene, first), *_name(scene, second))
        holds = []
        if abs(first.x - second.x) >= _CLEARLY:
            holds.append("left of" if first.x < second.x else "right of")
        if abs(first.y - second.y) >= _CLEARLY:
            holds.append("above" if first.y < second.y else "below")
        if holds:
            true, truth = rng.choice(holds), rng.random() < 0.5
            asked = f"Is the {first.name} {true if truth else _OPPOSITE[true]} the {second.name}?"
            places = (*_place(scene, first), *_place(scene, second))
            options.append(
                (
                    1.0,
                    Ask(question=asked, answer=_yes(truth), question_type="relation", facts=places, given=both),
                )
            )
        if max(first.radius, second.radius) >= _LARGER * min(first.radius, second.radius):
            word = rng.choice(("larger", "smaller"))
            ordered = sorted((first, second), key=lambda shape: shape.radius, reverse=word == "larger")
            asked = f"Which is {word}, the {first.name} or the {second.name}?"
            options.append(
                (
                    1.3,
                    Ask(question=asked, answer=ordered[0].name, question_type="larger", facts=("size",), given=both),
                )
            )
    if len(scene.shapes) > 2:
        options += _more(scene, rng)
    return options


def _more(scene: Scene, rng: random.Random) -> Options:
    """Return "more or fewer" about two names or two colours whose numbers differ."""
    groups: list[tuple[str, str, str]] = []
    for attribute in ("name", "colour"):
        counts = Counter(getattr(shape, attribute) for shape in scene.shapes)
        groups += [(attribute, one, two) for one, many in counts.items() for two, few in counts.items() if many > few]
    if not groups:
        return []
    attribute, *kinds = rng.choice(groups)
    high, low = (plural(kind) if attribute == "name" else f"{kind} shapes" for kind in kinds)
    facts = tuple(f"count:{kind}" for kind in kinds)
    truth, word = rng.random() < 0.5, rng.choice(("more", "fewer"))
    first, second = (high, low) if truth == (word == "more") else (low, high)
    pair = [high, low]
    rng.shuffle(pair)
    return [
        (
            0.8,
            Ask(
                question=f"Are there {word} {first} than {second}?",
                answer=_yes(truth),
                question_type="more",
                facts=facts,
            ),
        ),
        (
            0.6,
            Ask(
                question=f"Which are there {word} of, {pair[0]} or {pair[1]}?",
                answer=high if word == "more" else low,
                question_type="which_more",
                facts=facts,
            ),
        ),
    ]


def questions(scene: Scene, rng: random.Random) -> tuple[Ask, ...]:
    """Return the questions that have one clear answer, in a random order that prefers plain ones."""
    everything = [
        fact for shape in scene.shapes for fact in (*_name(scene, shape), *_colour(scene, shape), *_place(scene, shape))
    ]
    options: Options = [
        (0.9, _exists(scene, rng)),
        (
            0.5,
            Ask(
                question=f"What {_color(rng)} is the background?",
                answer=scene.ground,
                question_type="ground_colour",
                facts=("ground",),
            ),
        ),
        (
            0.9 if len(scene.shapes) <= 2 else 0.3,
            Ask(
                question=rng.choice(CAPTION_PROMPTS),
                answer=describe(scene),
                question_type="describe",
                facts=(*dict.fromkeys(everything), "n", "ground"),
            ),
        ),
        *_counts(scene, rng),
        *(_alone(scene, rng) if len(scene.shapes) == 1 else _single_out(scene, rng)),
        *_relations(scene, rng),
    ]
    return tuple(weighted_order(rng, options))


def make(split: Split, count: int, seed: int, folder: Path) -> Iterator[Item]:
    """Yield `count` scenes."""
    for scene, image, rng in scenes(split, count, seed, folder):
        names = contents(scene)
        target = rng.choice(scene.shapes)
        sentence = describe(scene)
        asks = questions(scene, rng)
        alignment = list(captions_as_asks((sentence,), rng))
        alignment += [ask for ask in asks if ask.question_type in ("where", "shape_at", "count", "count_name")]
        if target.place:
            alignment.append(
                Ask(question=f"What is {_at(target.place)}?", answer=article(target.text), question_type="what_at")
            )
        yield Item(
            image=image,
            labels=(names,) if len(scene.shapes) > 1 else (names, target.text, target.name),
            captions=(sentence,),
            alignment=tuple(alignment),
            asks=asks,
        )


KIND = Kind(name="scenes", share=0.26, make=make, independent=True)
