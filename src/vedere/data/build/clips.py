"""Short films of one thing that happens: a shape moves, grows, shrinks, turns, changes its colour, appears, disappears
or bounces, perhaps beside another shape that stays as it is.

Films have 8 to 16 frames of `SIDE` px at 4 to 8 frames a second. What happens takes the whole film, or happens between
its second and its last fifth, so that four frames spread over the film show it.

Cost: about 30 ms a film.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

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
from vedere.data.build.record import CLIP_PROMPTS, Ask, Clip, Item, Kind, Split, article, stream, weighted_order
from vedere.data.build.scenes import Shape

Action = Literal["moves", "grows", "shrinks", "turns", "changes", "appears", "disappears", "bounces"]
ACTIONS: tuple[Action, ...] = get_args(Action)
WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
TURNING = ("square", "triangle", "star", "heart", "crescent", "cross")
Options = list[tuple[float, Ask]]


@dataclass(frozen=True, kw_only=True)
class Film:
    """What a film shows.

    Attributes:
        actor: the shape to which it happens, as it is in the middle of its way.
        action: what happens to it.
        way: where it moves, "" otherwise.
        becomes: its last colour.
        still: another shape, or None.
        ground: name of the ground's colour.
        frames: number of frames.
        fps: frames a second.
        moment: share of the film after which a sudden change has happened.
    """

    actor: Shape
    action: Action
    way: str
    becomes: str
    still: Shape | None
    ground: str
    frames: int
    fps: int
    moment: float

    @property
    def event(self) -> str:
        """What happens, without who: "moves to the left", "changes from red to blue"."""
        if self.action == "moves":
            return f"moves {self.way}" if self.way in ("up", "down") else f"moves to the {self.way}"
        if self.action == "changes":
            return f"changes from {self.actor.colour} to {self.becomes}"
        return f"{self.action} up and down" if self.action == "bounces" else self.action

    @property
    def sentence(self) -> str:
        """What happens: "a red circle moves to the left", "a circle changes from red to blue"."""
        return f"{article(self.actor.name if self.action == 'changes' else self.actor.text)} {self.event}"


def draw_film(rng: random.Random) -> Film:
    """Sample a film; a second shape has another name and another colour."""
    action = rng.choices(ACTIONS, weights=(34, 11, 11, 10, 14, 8, 8, 8))[0]
    names = rng.sample(SHAPES, 2)
    if action == "turns":
        names[0] = rng.choice([name for name in TURNING if name != names[1]])
    while True:  # some sets of inks leave no contrasting ground
        colours = rng.sample(list(COLOURS), 3)
        ground = ground_for(colours, rng)
        if all(apart(colour, ground) for colour in colours) and apart(colours[0], colours[2]):
            break
    way = rng.choice(list(WAYS)) if action == "moves" else ""
    other = rng.random() < 0.35
    dx = WAYS.get(way, (0, 1))[0]
    lane = rng.choice((0.27, 0.73)) if other else rng.uniform(0.3, 0.7)
    x, y = (0.5, lane) if dx else (lane, 0.5)
    actor = Shape(
        name=names[0],
        colour=colours[0],
        x=x,
        y=y,
        radius=rng.uniform(0.12, 0.17),
        angle=rng.uniform(-14, 14),
        place="",
    )
    still = None
    if other:
        along, across = rng.uniform(0.2, 0.8), 1 - lane
        still = replace(
            actor, name=names[1], colour=colours[1], x=along if dx else across, y=across if dx else along, radius=0.14
        )
    return Film(
        actor=actor,
        action=action,
        way=way,
        becomes=colours[2] if action == "changes" else colours[0],
        still=still,
        ground=ground,
        frames=rng.randint(8, 16),
        fps=rng.randint(4, 8),
        moment=rng.uniform(0.35, 0.65),
    )


def actor_at(film: Film, moment: float) -> Shape | None:
    """Return the actor at a moment of the film (0 is its first frame, 1 its last), None while it is not there."""
    actor = film.actor
    if film.action == "moves":
        dx, dy = WAYS[film.way]
        return replace(actor, x=actor.x + (moment - 0.5) * 0.58 * dx, y=actor.y + (moment - 0.5) * 0.58 * dy)
    if film.action in ("grows", "shrinks"):
        size = moment if film.action == "grows" else 1 - moment
        return replace(actor, radius=0.07 + 0.14 * size)
    if film.action == "turns":
        return replace(actor, angle=actor.angle + 150 * moment)
    if film.action == "changes":
        return replace(actor, colour=actor.colour if moment < film.moment else film.becomes)
    if film.action == "bounces":
        return replace(actor, y=0.78 - 0.52 * abs(math.sin(2.5 * math.pi * moment)))
    there = moment >= film.moment if film.action == "appears" else moment < film.moment
    return actor if there else None


def render_film(film: Film, rng: random.Random) -> Clip:
    """Draw all frames."""
    page, _ = new_ground(film.ground, rng, plain=0.7)
    tints = {name: shade(name, rng) for name in (film.actor.colour, film.becomes)}
    if film.still is not None:
        tints[film.still.colour] = shade(film.still.colour, rng)
    small = finish(page, rng)
    factor = small.width / LARGE
    frames = []
    for number in range(film.frames):
        frame = small.copy()
        for shape in (film.still, actor_at(film, number / (film.frames - 1))):
            if shape is not None:
                _paste(frame, shape, tints[shape.colour], factor)
        frames.append(frame)
    return Clip(frames=tuple(frames), fps=film.fps)


def _paste(frame: Image.Image, shape: Shape, tint: tuple[int, int, int], factor: float) -> None:
    """Paint one shape with smooth edges: its square is drawn large and reduced."""
    half = math.ceil(shape.radius * 1.25 * frame.width)
    left, top = round(shape.x * frame.width) - half, round(shape.y * frame.width) - half
    scale = round(1 / factor)
    mask = Image.new("L", (2 * half * scale, 2 * half * scale), 0)
    centre = ((shape.x * frame.width - left) * scale, (shape.y * frame.width - top) * scale)
    polygon = outline(shape.name, centre, shape.radius * frame.width * scale, shape.angle)
    fill_outline(ImageDraw.Draw(mask), polygon, 255)
    frame.paste(tint, (left, top), mask.reduce(scale))


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


def questions(film: Film, rng: random.Random) -> tuple[Ask, ...]:
    """Return the questions that have one clear answer."""
    actor, noun = film.actor, rng.choice((film.actor.name, film.actor.name, "shape"))
    if film.still is not None:
        noun = film.actor.name
    named = ("actor",) if noun != "shape" else ()
    word = rng.choice(("color", "colour"))
    options: Options = [
        (
            2.0,
            Ask(
                question=rng.choice(CLIP_PROMPTS),
                answer=film.sentence,
                question_type="describe",
                facts=("event", "actor", "start", "end"),
            ),
        )
    ]
    if film.action == "moves":
        options.append(
            (
                2.6,
                Ask(
                    question=f"Which way does the {noun} move?",
                    answer=film.way,
                    question_type="way",
                    facts=("event",),
                    given=named,
                ),
            )
        )
    for moment, colour in (("start", actor.colour), ("end", film.becomes)):
        # What is not there has no colour. Whether it changes, an earlier turn about the colour must not tell.
        if (film.action, moment) not in (("appears", "start"), ("disappears", "end")):
            options.append(
                (
                    1.3 if film.action == "changes" else 0.35,
                    Ask(
                        question=f"What {word} is the {noun} at the {moment}?",
                        answer=colour,
                        question_type=f"colour_{moment}",
                        facts=(moment,),
                        given=named,
                    ),
                )
            )
    truth = rng.random() < 0.5
    near = [way for way in WAYS if way != film.way]
    if film.action == "moves":
        verb = f"move {film.way if truth else rng.choice(near)}"
    else:
        verbs = {"grows": "grow", "shrinks": "shrink", "turns": "turn", "changes": f"change its {word}"}
        verbs |= {"appears": "appear", "disappears": "disappear", "bounces": "bounce"}
        verb = (
            verbs[film.action] if truth else rng.choice([other for name, other in verbs.items() if name != film.action])
        )
    options.append(
        (
            0.9,
            Ask(
                question=f"Does the {noun} {verb}?",
                answer=_yes(truth),
                question_type="does",
                facts=("event",),
                given=named,
            ),
        )
    )
    if film.still is not None:
        happens = {"moves": "moves", "changes": f"changes its {word}"}.get(film.action, film.action)
        options.append(
            (
                1.4,
                Ask(
                    question=f"Which shape {happens}?",
                    answer=actor.name,
                    question_type="who",
                    facts=("actor",),
                    given=("event",),
                ),
            )
        )
    return tuple(weighted_order(rng, options))


def make(split: Split, count: int, seed: int, folder: Path) -> Iterator[Item]:
    """Yield `count` films."""
    for index in range(count):
        rng = stream(seed, "clips", split, index)
        film = draw_film(rng)
        clip = render_film(film, rng)
        whole = f"{film.sentence} on {article(film.ground)} background"
        asks = questions(film, rng)
        caption = Ask(question="Describe the video.", answer=whole, question_type="caption")
        yield Item(
            clip=clip,
            labels=(film.sentence,),
            captions=(film.sentence, whole),
            alignment=(caption, *asks),
            asks=asks,
        )


KIND = Kind(name="clips", share=0.06, make=make, independent=True)
