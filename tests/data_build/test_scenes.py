"""Scenes: what is said about them is what is drawn."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter
from test_kinds import nearest_colour, nearest_colours

from vedere.data.build import scene_questions, scenes
from vedere.data.build.canvas import (
    COLOURS,
    GROUNDS,
    LARGE,
    SHAPES,
    apart,
    fill_outline,
    ground_for,
    new_canvas,
    new_ground,
    outline,
)
from vedere.data.build.record import SIDE, article

LAWS = settings(derandomize=True, max_examples=40, deadline=None)
SEEDS = st.integers(0, 10**6)


def scene_and_item(seed):
    item = next(scene_questions.make("train", 1, seed, Path()))
    return scenes.scene_of("train", seed, 0)[0], item


# --- scenes ---------------------------------------------------------------------------------------------------------


def inside(shape):
    """Pixels well within the ink of a shape, SIDE x SIDE."""
    ink = Image.new("L", (LARGE, LARGE), 0)
    polygon = outline(shape.name, (shape.x * LARGE, shape.y * LARGE), shape.radius * LARGE, shape.angle)
    ImageDraw.Draw(ink).polygon(polygon, fill=255)
    return np.asarray(ink.filter(ImageFilter.MinFilter(5)).reduce(LARGE // SIDE)) == 255


@LAWS
@given(SEEDS)
def test_a_scene_shows_what_it_says(seed):
    scene, item = scene_and_item(seed)
    pixels = np.asarray(item.image)
    for shape in scene.shapes:
        ink = pixels[inside(shape)]
        assert len(ink) > 40
        assert nearest_colour(ink.mean(0)) == shape.colour
    corners = pixels[[0, 0, -1, -1], [0, -1, 0, -1]].mean(0)
    assert nearest_colour(corners) == scene.ground


@LAWS
@given(SEEDS)
def test_shapes_stay_inside_and_apart(seed):
    scene, _ = scene_and_item(seed)
    taken = np.zeros((SIDE, SIDE), bool)
    for shape in scene.shapes:
        points = np.array(outline(shape.name, (shape.x, shape.y), shape.radius, shape.angle))
        assert points.min() > 0
        assert points.max() < 1
        assert apart(shape.colour, scene.ground)
        ink = inside(shape)
        assert not (taken & ink).any()
        taken |= ink


def test_shapes_are_told_apart_by_their_outline():
    spots = {
        name: scenes.Shape(name=name, colour="red", x=0.5, y=0.5, radius=0.2, angle=0, place="") for name in SHAPES
    }
    inks = {name: inside(shape) for name, shape in spots.items()}
    for one, first in inks.items():
        for two, second in inks.items():
            assert one == two or (first ^ second).sum() > 0.08 * (first | second).sum(), (one, two)


@pytest.mark.parametrize("angle", [0, 7, 90])
def test_a_ring_has_a_hole_and_no_seam(angle):
    image, pen = new_canvas((255, 255, 255))
    fill_outline(pen, outline("ring", (LARGE / 2, LARGE / 2), LARGE * 0.4, angle), (0, 0, 0))
    pixels = np.asarray(image.convert("L"))
    y, x = np.mgrid[:LARGE, :LARGE] - LARGE / 2 + 0.5
    far = np.hypot(x, y) / (LARGE * 0.4)
    assert (pixels[far < 0.55] == 255).all()
    assert (pixels[(far > 0.61) & (far < 0.97)] == 0).all()


def things(scene, phrase):
    """Shapes that a plural phrase names: "red circles", "crosses", "red shapes"."""
    *colour, noun = phrase.split()
    name = next((name for name in SHAPES if noun in (name, scenes.plural(name))), "")
    assert name or noun == "shapes"
    return [s for s in scene.shapes if name in ("", s.name) and (not colour or s.colour == colour[0])]


@settings(derandomize=True, max_examples=150, deadline=None)
@given(SEEDS)
def test_scene_answers_follow_from_the_shapes(seed):
    rng = random.Random(seed)
    scene = scenes.draw_scene(rng)
    shapes = scene.shapes
    holds = {
        "left of": lambda a, b: a.x < b.x - 0.2,
        "right of": lambda a, b: a.x > b.x + 0.2,
        "above": lambda a, b: a.y < b.y - 0.2,
        "below": lambda a, b: a.y > b.y + 0.2,
    }
    for ask in scene_questions.questions(scene, rng):
        words_asked = ask.question.removesuffix("?").split()
        kind = ask.question_type
        if kind.startswith("count"):
            phrase = ask.question.removeprefix("How many ").split(" are ")[0].split(" do ")[0]
            assert scenes.NUMBER_WORDS.index(ask.answer) == len(things(scene, phrase))
        elif kind == "exists":
            assert (ask.answer == "yes") == bool(things(scene, " ".join(words_asked[-2:])))
        elif kind in ("colour_of", "shape_of"):
            fits = [s for s in shapes if (s.name if kind == "colour_of" else s.colour) == words_asked[-1]]
            assert [ask.answer] == [s.colour if kind == "colour_of" else s.name for s in fits]
        elif kind == "where":
            (shape,) = things(scene, " ".join(words_asked[-2:]))
            assert ("left" in ask.answer) == (shape.x < 0.4 and shape.place not in ("top", "bottom", "middle"))
            assert ("right" in ask.answer) == (shape.x > 0.6 and shape.place not in ("top", "bottom", "middle"))
            assert ("top" in ask.answer) == (shape.y < 0.4 and shape.place not in ("left", "right", "middle"))
            assert ("bottom" in ask.answer) == (shape.y > 0.6 and shape.place not in ("left", "right", "middle"))
        elif kind == "larger":
            pair = [s for s in shapes if s.name in (words_asked[-4].rstrip(","), words_asked[-1])]
            assert len(pair) == 2
            ordered = sorted(pair, key=lambda s: s.radius, reverse="larger" in ask.question)
            assert ask.answer == ordered[0].name
            assert max(s.radius for s in pair) >= 1.3 * min(s.radius for s in pair)
        elif kind == "relation":
            (first,), (second,) = things(scene, words_asked[2]), things(scene, words_asked[-1])
            told = next(words for words in holds if f" {words} " in ask.question)
            assert (ask.answer == "yes") == holds[told](first, second)
            assert holds[told](first, second) != holds[told](second, first)
        elif kind == "more":
            high, low = ask.question.removeprefix("Are there ").removesuffix("?").split(" than ")
            word, _, high = high.partition(" ")
            more = len(things(scene, high)) > len(things(scene, low))
            assert len(things(scene, high)) != len(things(scene, low))
            assert (ask.answer == "yes") == (more == (word == "more"))
        elif kind == "which_more":
            options = ask.question.removesuffix("?").split(" of, ")[1].split(" or ")
            ordered = sorted(options, key=lambda phrase: len(things(scene, phrase)), reverse=" more " in ask.question)
            assert ask.answer == ordered[0]
            assert len(things(scene, options[0])) != len(things(scene, options[1]))
        elif kind in ("shape_at", "colour_at"):
            place = ask.question.removesuffix("?").split(" the ")[-1]
            (fit,) = [s for s in shapes if s.place == place]
            assert ask.answer == (fit.name if kind == "shape_at" else fit.colour)
        elif kind == "describe":
            assert all(s.colour in ask.answer and s.name in ask.answer for s in shapes)
            assert ask.answer.endswith(f"{scene.ground} background")
        elif kind == "ground_colour":
            assert ask.answer == scene.ground
        else:
            assert kind in ("colour", "shape", "name")
            (only,) = shapes
            assert ask.answer in (only.colour, only.name, article(only.text))


@LAWS
@given(SEEDS)
def test_what_goes_with_a_yes_goes_with_a_no(seed):
    """Facts of a question follow from the question alone, or the other turns of a conversation would tell its answer."""
    scene = scenes.draw_scene(random.Random(seed))
    for ask in scene_questions.questions(scene, random.Random(seed)):
        if ask.question_type == "exists":
            name, colour = ask.question.removesuffix("?").split()[:-3:-1]
            touched = [i for i, s in enumerate(scene.shapes) if name == s.name or colour == s.colour]
            assert {f"colour:{i}" for i in touched} | {f"name:{i}" for i in touched} == {
                fact for fact in ask.facts if not fact.startswith("count:")
            }


@pytest.mark.parametrize("question_type", ["exists", "relation", "more"])
def test_yes_and_no_are_balanced(question_type):
    answers = Counter()
    for index in range(1500):
        rng = random.Random(index)
        scene = scenes.draw_scene(rng)
        answers.update(
            ask.answer for ask in scene_questions.questions(scene, rng) if ask.question_type == question_type
        )
    assert abs(answers["yes"] / answers.total() - 0.5) < 0.07


def test_no_number_is_the_usual_answer():
    answers = Counter()
    for index in range(1500):
        rng = random.Random(index)
        asks = scene_questions.questions(scenes.draw_scene(rng), rng)
        answers.update(ask.answer for ask in asks if ask.question.startswith("How many"))
    assert set(answers) == set(scenes.NUMBER_WORDS)
    assert max(answers.values()) < 0.3 * answers.total()


@LAWS
@given(st.sampled_from(list(GROUNDS)), SEEDS)
def test_grounds_keep_their_name_all_over(name, seed):
    image, _ = new_ground(name, random.Random(seed), plain=0.0)
    assert set(nearest_colours(np.asarray(image)[::16, ::16]).ravel()) == {name}


def test_every_colour_has_a_background():
    for first in COLOURS:
        for second in COLOURS:
            ground = ground_for([first, second], random.Random(0))
            assert ground not in (first, second)
