"""Charts, pairs and clips: what is stated is what is drawn."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from test_kinds import nearest_colour, nearest_colours

from vedere.data.build import charts, clips, pairs
from vedere.data.build.record import SIDE, stream

LAWS = settings(derandomize=True, max_examples=40, deadline=None)
SEEDS = st.integers(0, 10**6)

# --- charts ---------------------------------------------------------------------------------------------------------


@LAWS
@given(SEEDS)
def test_bars_are_as_tall_as_their_values(seed):
    rng = random.Random(seed)
    bars = charts.draw_bars(rng)
    pixels = np.asarray(charts.render_bars(bars, rng)).astype(float)
    for index, (value, colour) in enumerate(zip(bars.values, bars.colours, strict=True)):
        left, top, right, low = (share * SIDE for share in charts.bar_box(bars, index))
        column = pixels[:, int((left + right) / 2) - 2 : int((left + right) / 2) + 3].mean(1)
        assert nearest_colour(column[int((top + low) / 2)]) == colour
        assert nearest_colour(column[int(top) + 3]) == colour
        assert nearest_colour(column[int(low) - 3]) == colour
        assert abs((low - top) / (0.83 - (0.17 if bars.printed else 0.06)) / SIDE * charts.HIGHEST - value) < 0.01


@LAWS
@given(SEEDS)
def test_chart_answers_follow_from_the_values(seed):
    rng = random.Random(seed)
    bars = charts.draw_bars(rng)
    value = dict(zip(charts.LETTERS, bars.values, strict=False))
    for _, ask in charts.bar_questions(bars, rng):
        named = [word for word in ask.question.rstrip("?").split() if word in value]
        if ask.question_type == "value":
            assert ask.answer == str(value[named[0]])
        elif ask.question_type in ("tallest", "shortest"):
            others = [other for name, other in value.items() if name != ask.answer]
            assert all(
                value[ask.answer] > other if ask.question_type == "tallest" else value[ask.answer] < other
                for other in others
            )
        elif ask.question_type == "compare":
            high, low = named if "taller" in ask.question else reversed(named)
            assert (ask.answer == "yes") == (value[high] > value[low])
        elif ask.question_type == "count":
            assert charts.NUMBER_WORDS.index(ask.answer) == len(bars.values)
        else:
            assert ask.answer == bars.colours[charts.LETTERS.index(named[0]) if named else 0]


@LAWS
@given(SEEDS)
def test_pie_answers_follow_from_the_slices(seed):
    rng = random.Random(seed)
    pie = charts.draw_pie(rng)
    pixels = np.asarray(charts.render_pie(pie, rng)).reshape(-1, 3)
    area = Counter(nearest_colours(pixels[::3]).tolist())
    for share, colour in zip(pie.shares, pie.colours, strict=True):
        assert area[colour] > 0.25 * share * len(pixels[::3])
    size = dict(zip(pie.colours, pie.shares, strict=True))
    for _, ask in charts.pie_questions(pie, rng):
        if ask.question_type in ("largest", "smallest"):
            ordered = sorted(size, key=lambda name: size[name], reverse=ask.question_type == "largest")
            assert ask.answer == ordered[0]
            assert abs(size[ordered[0]] - size[ordered[1]]) >= charts.LEAST_STEP
        elif ask.question_type == "slice":
            assert (ask.answer == "yes") == (ask.question.rstrip("?").split()[-1] in size)
        else:
            assert charts.NUMBER_WORDS.index(ask.answer) == len(size)


# --- pairs ----------------------------------------------------------------------------------------------------------


@LAWS
@given(SEEDS)
def test_pair_answers_follow_from_the_pictures(seed):
    rng = random.Random(seed)
    first, second, same = pairs.draw_pair(rng)
    shown = {"the first": first, "the second": second}
    assert same == (first.image.tobytes() == second.image.tobytes())
    assert same or (first.text, first.number) != (second.text, second.number) or first.number > 0
    for ask in pairs.questions(first, second, same, rng):
        if ask.question_type == "which":
            noun = ask.question.removeprefix("Which picture shows ").removesuffix(", the first or the second?")
            assert [place for place, one in shown.items() if noun in one.tokens] == [ask.answer]
        elif ask.question_type == "same":
            assert (ask.answer == "yes") == same
        elif ask.question_type == "which_more":
            more, fewer = sorted(shown, key=lambda place: shown[place].number, reverse=True)
            assert ask.answer == (more if "more" in ask.question else fewer)
            assert first.number != second.number
        elif ask.question_type == "what_in":
            assert ask.answer == shown[next(place for place in shown if place in ask.question)].text
        elif ask.question_type == "count_in":
            one = shown[next(place for place in shown if place in ask.question)]
            assert pairs.NUMBER_WORDS.index(ask.answer) == one.number
        else:
            assert first.text in ask.answer
            assert ask.answer.endswith(second.text)


def test_pairs_are_balanced():
    answers = Counter()
    for item in pairs.make("train", 300, 4, Path()):
        assert len(item.images) == 2
        answers[(item.asks[0].question_type, item.asks[0].answer)] += 1
    for question_type, one, two in (("which", "the first", "the second"), ("same", "yes", "no")):
        both = answers[(question_type, one)] + answers[(question_type, two)]
        assert both > 30
        assert 0.3 < answers[(question_type, one)] / both < 0.7


# --- clips ----------------------------------------------------------------------------------------------------------


def mask(frame, colour):
    return nearest_colours(np.asarray(frame)[::2, ::2]) == colour


@settings(derandomize=True, max_examples=25, deadline=None)
@given(SEEDS)
def test_films_show_what_happens(seed):
    rng = stream(seed, "clips", "train", 0)
    film = clips.draw_film(rng)
    clip = clips.render_film(film, rng)
    assert 8 <= len(clip.frames) == film.frames <= 16
    assert 4 <= clip.fps <= 8
    start, end = mask(clip.frames[0], film.actor.colour), mask(clip.frames[-1], film.becomes)
    if film.action == "moves":
        shift = np.argwhere(end).mean(0) - np.argwhere(start).mean(0)
        dx, dy = clips.WAYS[film.way]
        assert shift @ np.array([dy, dx]) > 0.4 * SIDE / 2
        assert abs(shift @ np.array([dx, dy])) < 3
    elif film.action in ("grows", "shrinks"):
        small, large = sorted((int(start.sum()), int(end.sum())))
        assert large > 3 * small
        assert (end.sum() > start.sum()) == (film.action == "grows")
    elif film.action == "changes":
        assert min(start.sum(), end.sum()) > 50
        assert mask(clip.frames[-1], film.actor.colour).sum() < 10
    elif film.action in ("appears", "disappears"):
        there, gone = (end, start) if film.action == "appears" else (start, end)
        assert there.sum() > 50
        assert gone.sum() < 10
    else:
        middle = mask(clip.frames[film.frames // 2], film.actor.colour)
        assert (start ^ middle).sum() > 15


@LAWS
@given(SEEDS)
def test_film_answers_follow_from_the_film(seed):
    rng = random.Random(seed)
    film = clips.draw_film(rng)
    verbs = {"grow": "grows", "shrink": "shrinks", "turn": "turns", "appear": "appears", "disappear": "disappears"}
    verbs |= {"bounce": "bounces", "change": "changes"}
    for moment in np.linspace(0, 1, 9):
        actor = clips.actor_at(film, float(moment))
        assert actor is None or 0.05 < min(actor.x, actor.y) <= max(actor.x, actor.y) < 0.95
    for ask in clips.questions(film, rng):
        if ask.question_type == "way":
            assert ask.answer == film.way
        elif ask.question_type in ("colour_start", "colour_end"):
            actor = clips.actor_at(film, float(ask.question_type == "colour_end"))
            assert actor is not None
            assert ask.answer == actor.colour
        elif ask.question_type == "does":
            said = ask.question.removesuffix("?").split()[3:]
            truth = said[1] == film.way if said[0] == "move" else verbs[said[0]] == film.action
            assert (ask.answer == "yes") == truth
        elif ask.question_type == "who":
            assert film.still is not None
            assert ask.answer == film.actor.name != film.still.name
        else:
            assert ask.answer == film.sentence
            assert film.way in ask.answer
            assert (film.becomes in ask.answer) or film.action != "changes"
