"""Bar charts and pie charts of two to five parts in large print.

Bars are named A to E, have whole values from 1 to 9 and their value above them or a marked axis beside them. Slices of a
pie are told apart by colour and differ by at least an eighth of the circle where their order is asked.

Cost: about 4 ms a picture.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from vedere.data.build.canvas import COLOURS, LARGE, Colour, apart, new_ground, print_text, shade
from vedere.data.build.canvas import finish as reduce_picture
from vedere.data.build.record import (
    CAPTION_PROMPTS,
    Ask,
    Item,
    Kind,
    Split,
    captions_as_asks,
    stream,
    weighted_order,
)

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five")
LETTERS = "ABCDE"
HIGHEST = 9
LEAST_STEP = 0.125
"""Least difference of the two slices that decide which is the largest or the smallest."""
Options = list[tuple[float, Ask]]


@dataclass(frozen=True, kw_only=True)
class Bars:
    """A bar chart: one value and one colour a bar; `printed` values stand above the bars."""

    values: tuple[int, ...]
    colours: tuple[str, ...]
    ground: str
    printed: bool


@dataclass(frozen=True, kw_only=True)
class Pie:
    """A pie chart: shares of the circle, clockwise from the top, and their colours."""

    shares: tuple[float, ...]
    colours: tuple[str, ...]
    ground: str


def draw_bars(rng: random.Random) -> Bars:
    """Sample a bar chart of two to five bars, of one colour or of one each."""
    count = rng.randint(2, 5)
    ground = rng.choice(("white", "white", "white", "grey", "black"))
    inks = [name for name in COLOURS if apart(name, ground)]
    colours = [rng.choice(inks)] * count if rng.random() < 0.5 or len(inks) < count else rng.sample(inks, count)
    values = tuple(rng.randint(1, HIGHEST) for _ in range(count))
    return Bars(values=values, colours=tuple(colours), ground=ground, printed=rng.random() < 0.6)


def draw_pie(rng: random.Random) -> Pie:
    """Sample a pie chart of two to five slices."""
    count = rng.randint(2, 5)
    ground = rng.choice(("white", "white", "grey"))
    while True:
        colours = rng.sample(list(COLOURS), count)
        around = zip(colours, [*colours[1:], colours[0]], strict=True)
        if all(apart(a, b) for a, b in around) and all(apart(colour, ground) for colour in colours):
            break
    while True:
        cuts = [rng.uniform(0.2, 1) for _ in range(count)]
        shares = tuple(cut / sum(cuts) for cut in cuts)
        if min(shares) >= 0.1:
            return Pie(shares=shares, colours=tuple(colours), ground=ground)


def _ink(ground: str) -> Colour:
    return (240, 240, 240) if ground == "black" else (20, 20, 20)


def bar_box(bars: Bars, index: int) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of a bar as shares of the side."""
    left = 0.04 if bars.printed else 0.16
    width = (0.97 - left) / len(bars.values)
    low, high = 0.83, 0.17 if bars.printed else 0.06
    x = left + (index + 0.14) * width
    return x, low - (low - high) * bars.values[index] / HIGHEST, x + 0.72 * width, low


def render_bars(bars: Bars, rng: random.Random) -> Image.Image:
    """Draw a bar chart, `SIDE` px a side."""
    image, pen = new_ground(bars.ground, rng, plain=0.9)
    ink = _ink(bars.ground)
    fills = {name: shade(name, rng) for name in dict.fromkeys(bars.colours)}
    if not bars.printed:
        for value in range(1, HIGHEST + 1):
            y = (0.83 - 0.77 * value / HIGHEST) * LARGE
            if value % 3 == 0:
                print_text(pen, (0.07 * LARGE, y), str(value), 0.085 * LARGE, ink)
            pen.line((0.14 * LARGE, y, 0.97 * LARGE, y), fill=(128, 128, 128), width=5 if value % 3 == 0 else 2)
    for index, (value, colour) in enumerate(zip(bars.values, bars.colours, strict=True)):
        left, top, right, low = (share * LARGE for share in bar_box(bars, index))
        pen.rectangle((left, top, right, low), fill=fills[colour])
        print_text(pen, ((left + right) / 2, 0.92 * LARGE), LETTERS[index], 0.1 * LARGE, ink)
        if bars.printed:
            print_text(pen, ((left + right) / 2, top - 0.075 * LARGE), str(value), 0.1 * LARGE, ink)
    pen.line((0.02 * LARGE, 0.83 * LARGE, 0.98 * LARGE, 0.83 * LARGE), fill=ink, width=6)
    return reduce_picture(image, rng, noise=rng.choice((0.0, 0.0, 4.0)))


def render_pie(pie: Pie, rng: random.Random) -> Image.Image:
    """Draw a pie chart, `SIDE` px a side."""
    image, _ = new_ground(pie.ground, rng, plain=0.8)
    pen = ImageDraw.Draw(image)
    radius = rng.uniform(0.36, 0.44) * LARGE
    x, y = (LARGE / 2 + rng.uniform(-1, 1) * (0.47 * LARGE - radius) for _ in range(2))
    angle, edge = -90.0, _ink(pie.ground)
    for share, colour in zip(pie.shares, pie.colours, strict=True):
        box = (x - radius, y - radius, x + radius, y + radius)
        pen.pieslice(box, angle, angle + 360 * share, fill=shade(colour, rng), outline=edge, width=4)
        angle += 360 * share
    return reduce_picture(image, rng, noise=rng.choice((0.0, 0.0, 4.0)))


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


def bar_questions(bars: Bars, rng: random.Random) -> Options:
    """Questions about a bar chart."""
    names = LETTERS[: len(bars.values)]
    options: Options = []
    for name in rng.sample(names, min(3, len(names))):
        value = bars.values[LETTERS.index(name)]
        question = rng.choice((f"What is the value of {name}?",) * 3 + (f"How much is {name}?",))
        options.append(
            (1.4, Ask(question=question, answer=str(value), question_type="value", facts=(f"value:{name}",)))
        )
    for word, extreme in (("tallest", max(bars.values)), ("shortest", min(bars.values))):
        if bars.values.count(extreme) == 1:
            answer = names[bars.values.index(extreme)]
            question = f"Which bar is the {word}?"
            options.append((1.4, Ask(question=question, answer=answer, question_type=word, facts=("order",))))
    first, second = rng.sample(names, 2)
    one, two = (bars.values[LETTERS.index(name)] for name in (first, second))
    if one != two:
        word = rng.choice(("taller", "shorter"))
        facts = ("order", f"value:{first}", f"value:{second}")
        question, truth = f"Is {first} {word} than {second}?", (one > two) == (word == "taller")
        options.append((0.9, Ask(question=question, answer=_yes(truth), question_type="compare", facts=facts)))
    count = NUMBER_WORDS[len(names)]
    options.append((0.8, Ask(question="How many bars are there?", answer=count, question_type="count", facts=("n",))))
    tint = rng.choice(("color", "colour"))
    if len(set(bars.colours)) == 1:
        question = f"What {tint} are the bars?"
        options.append(
            (0.5, Ask(question=question, answer=bars.colours[0], question_type="bar_colour", facts=("colour",)))
        )
    else:
        name = rng.choice(names)
        answer = bars.colours[LETTERS.index(name)]
        question = f"What {tint} is bar {name}?"
        options.append(
            (0.7, Ask(question=question, answer=answer, question_type="bar_colour", facts=(f"colour:{name}",)))
        )
    return options


def pie_questions(pie: Pie, rng: random.Random) -> Options:
    """Questions about a pie chart."""
    count = NUMBER_WORDS[len(pie.shares)]
    options: Options = [
        (1.0, Ask(question="How many slices are there?", answer=count, question_type="count_slices", facts=("n",)))
    ]
    ordered = sorted(zip(pie.shares, pie.colours, strict=True))
    for word, (share, colour), (following, _) in (
        ("largest", ordered[-1], ordered[-2]),
        ("smallest", ordered[0], ordered[1]),
    ):
        if abs(share - following) >= LEAST_STEP:
            question = f"Which {rng.choice(('color', 'colour'))} is the {word} slice?"
            options.append((1.4, Ask(question=question, answer=colour, question_type=word, facts=("order",))))
    truth = rng.random() < 0.5
    told = rng.choice([name for name in COLOURS if (name in pie.colours) == truth])
    options.append(
        (
            0.8,
            Ask(
                question=f"Is there a slice in {told}?",
                answer=_yes(truth),
                question_type="slice",
                facts=(f"colour:{told}", "order"),
            ),
        )
    )
    return options


def make(split: Split, count: int, seed: int, folder: Path) -> Iterator[Item]:
    """Yield `count` charts."""
    for index in range(count):
        rng = stream(seed, "charts", split, index)
        if rng.random() < 0.7:
            bars = draw_bars(rng)
            image, name, options = render_bars(bars, rng), "a bar chart", bar_questions(bars, rng)
            sentence = f"a bar chart with {NUMBER_WORDS[len(bars.values)]} bars"
            values = ", ".join(f"{letter} {value}" for letter, value in zip(LETTERS, bars.values, strict=False))
            reading = Ask(question="What are the values?", answer=values, question_type="list")
        else:
            pie = draw_pie(rng)
            image, name, options = render_pie(pie, rng), "a pie chart", pie_questions(pie, rng)
            sentence = f"a pie chart with {NUMBER_WORDS[len(pie.shares)]} slices"
            slices = ", ".join(sorted(pie.colours))
            reading = Ask(question="Which colours do the slices have?", answer=slices, question_type="list")
        options += [
            (0.25, Ask(question="What is this?", answer=name, question_type="name", facts=("chart",), given=())),
            (
                0.25,
                Ask(
                    question=rng.choice(CAPTION_PROMPTS),
                    answer=sentence,
                    question_type="describe",
                    facts=("chart", "n"),
                ),
            ),
        ]
        yield Item(
            image=image,
            labels=(name, sentence),
            captions=(sentence,),
            alignment=(*captions_as_asks((sentence,), rng), reading, reading),
            asks=tuple(weighted_order(rng, options)),
        )


KIND = Kind(name="charts", share=0.05, make=make, independent=True)
