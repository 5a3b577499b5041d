"""Two pictures in one question: which one shows it, which has more, are they the same.

The pictures are two scenes, two drawings or two characters. Two pictures that are not the same differ in one thing only half of
the time (a colour, a shape, one shape more), so that a glance is not enough. "The first" and "the second", yes and no
come up equally often.

Cost: about 9 ms a pair.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from vedere.data.build.canvas import COLOURS, GROUNDS, LARGE, SHAPES, apart, finish, new_ground, print_text, shade
from vedere.data.build.drawings import THINGS, draw
from vedere.data.build.record import PAIR_PROMPTS, Ask, Item, Kind, Split, article, stream, weighted_order
from vedere.data.build.scenes import NUMBER_WORDS, Scene, contents, draw_scene, render_scene

CHARACTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
_PLACES = ("the first", "the second")
Options = list[tuple[float, Ask]]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One picture of a pair.

    Attributes:
        image: `SIDE` px a side.
        text: what it shows, as an answer: "a red circle".
        tokens: names of the single things that it shows.
        number: shapes in it, 0 if it is no scene.
    """

    image: Image.Image
    text: str
    tokens: tuple[str, ...]
    number: int = 0


def _scene(scene: Scene, rng: random.Random) -> Shown:
    return Shown(
        image=render_scene(scene, rng),
        text=contents(scene),
        tokens=tuple(dict.fromkeys(article(shape.text) for shape in scene.shapes)),
        number=len(scene.shapes),
    )


def altered(scene: Scene, rng: random.Random) -> Scene:
    """Return the scene with one shape in another colour or of another form, or without it."""
    place = rng.randrange(len(scene.shapes))
    shape = scene.shapes[place]
    change = rng.choice(("colour", "name", "gone") if len(scene.shapes) > 1 else ("colour", "name"))
    if change == "gone":
        return replace(scene, shapes=(*scene.shapes[:place], *scene.shapes[place + 1 :]))
    colours = [name for name in COLOURS if apart(name, scene.ground) and apart(name, shape.colour)]
    if change == "colour" and colours:
        new = replace(shape, colour=rng.choice(colours))
    else:
        new = replace(shape, name=rng.choice([name for name in SHAPES if name != shape.name]))
    return replace(scene, shapes=(*scene.shapes[:place], new, *scene.shapes[place + 1 :]))


def _drawing(thing: str, rng: random.Random) -> Shown:
    image = finish(draw(thing, rng).image, rng)
    return Shown(image=image, text=article(thing), tokens=(article(thing),))


def _character(text: str, rng: random.Random) -> Shown:
    ink = rng.choice(list(COLOURS))
    image, pen = new_ground(rng.choice([name for name in GROUNDS if apart(name, ink)]), rng)
    centre = (LARGE * rng.uniform(0.4, 0.6), LARGE * rng.uniform(0.4, 0.6))
    print_text(pen, centre, text, rng.uniform(0.35, 0.55) * LARGE, shade(ink, rng), stroke=rng.randint(1, 6))
    phrase = f"the {'digit' if text.isdigit() else 'letter'} {text}"
    return Shown(image=finish(image, rng), text=phrase, tokens=(phrase,))


def draw_pair(rng: random.Random) -> tuple[Shown, Shown, bool]:
    """Sample two pictures and say whether they are the same."""
    sort, same = rng.choices(("scenes", "drawings", "characters"), weights=(70, 20, 10))[0], rng.random() < 0.2
    if sort == "scenes":
        counts = rng.choice(((1.0,), (1.0, 1.0, 1.0, 1.0), (1.0, 1.0, 1.0, 1.0)))
        scene = draw_scene(rng, counts)
        first = _scene(scene, rng)
        if not same:
            other = altered(scene, rng) if rng.random() < 0.4 else draw_scene(rng, counts)
            same = other.shapes == scene.shapes and other.ground == scene.ground
            second = _scene(other, rng)
    else:
        pool, sketch = (list(THINGS), _drawing) if sort == "drawings" else (list(CHARACTERS), _character)
        one, two = rng.sample(pool, 2)
        first = sketch(one, rng)
        if not same:
            second = sketch(two, rng)
    if same:
        return first, first, True
    return (first, second, False) if rng.random() < 0.5 else (second, first, False)


def questions(first: Shown, second: Shown, same: bool, rng: random.Random) -> tuple[Ask, ...]:
    """Return the questions that have one clear answer."""
    shown = (first, second)
    options: Options = [
        (
            1.6 if same else 0.55,
            Ask(
                question=rng.choice(("Are both pictures the same?", "Are the two pictures the same?")),
                answer="yes" if same else "no",
                question_type="same",
                facts=("same",),
            ),
        )
    ]
    for place, one in enumerate(shown):
        options.append(
            (
                0.5,
                Ask(
                    question=f"What is in {_PLACES[place]} picture?",
                    answer=one.text,
                    question_type="what_in",
                    facts=(f"shown:{place}", "which", "more", "same"),
                ),
            )
        )
        if one.number:
            options.append(
                (
                    0.4,
                    Ask(
                        question=f"How many shapes are there in {_PLACES[place]} picture?",
                        answer=NUMBER_WORDS[one.number],
                        question_type="count_in",
                        facts=(f"number:{place}", "more"),
                    ),
                )
            )
    place = rng.randrange(2)
    own = [token for token in shown[place].tokens if token not in shown[1 - place].tokens]
    if own:
        noun = rng.choice(own)
        options.append(
            (
                2.4,
                Ask(
                    question=f"Which picture shows {noun}, the first or the second?",
                    answer=_PLACES[place],
                    question_type="which",
                    facts=("which", "same"),
                    given=("shown:0", "shown:1"),
                ),
            )
        )
    if first.number and second.number and first.number != second.number:
        word = rng.choice(("more", "more", "fewer"))
        fits = (first.number > second.number) == (word == "more")
        options.append(
            (
                3.2,
                Ask(
                    question=f"Which picture has {word} shapes, the first or the second?",
                    answer=_PLACES[0 if fits else 1],
                    question_type="which_more",
                    facts=("more", "same"),
                ),
            )
        )
    sentence = f"the first picture shows {first.text}, the second {second.text}"
    options.append(
        (
            0.2,
            Ask(
                question=rng.choice(PAIR_PROMPTS),
                answer=sentence,
                question_type="describe",
                facts=("shown:0", "shown:1", "which", "more", "same"),
            ),
        )
    )
    return tuple(weighted_order(rng, options))


def make(split: Split, count: int, seed: int, folder: Path) -> Iterator[Item]:
    """Yield `count` pairs."""
    for index in range(count):
        rng = stream(seed, "pairs", split, index)
        first, second, same = draw_pair(rng)
        sentence = f"the first picture shows {first.text}, the second {second.text}"
        asks = questions(first, second, same, rng)
        alignment = tuple(ask for ask in asks if ask.question_type in ("what_in", "which", "which_more", "describe"))
        yield Item(
            images=(first.image, second.image),
            labels=(f"{first.text} and {second.text}",),
            captions=(sentence,),
            alignment=alignment,
            asks=asks,
        )


KIND = Kind(name="pairs", share=0.07, make=make, independent=True)
