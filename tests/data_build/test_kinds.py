from __future__ import annotations

import random
import tempfile
from collections import Counter
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vedere.data.build import captions, documents, drawings, garments, handwriting, nlvr, words
from vedere.data.build.canvas import GROUNDS, LARGE, new_canvas, outline, shade
from vedere.data.build.record import SIDE, article, stream, weighted_order
from vedere.data.build.turns import choose_turns

LAWS = settings(derandomize=True, max_examples=40, deadline=None)
SEEDS = st.integers(0, 10**6)


def nearest_colours(pixels):
    """Names of the nearest ground colours of (..., 3) pixels."""
    far = ((np.asarray(pixels, dtype=float)[..., None, :] - np.array(list(GROUNDS.values()))) ** 2).sum(-1)
    return np.array(list(GROUNDS))[far.argmin(-1)]


def nearest_colour(pixel):
    return str(nearest_colours(pixel))


# --- words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_text_answers_read_what_is_drawn(split):
    groups = Counter()
    for index, item in enumerate(words.make(split, 150, 5, Path())):
        drawn = words.draw_print(split, stream(5, "words", split, index))
        groups[drawn.group] += 1
        reads = [ask for ask in (*item.asks, *item.alignment) if ask.question_type.startswith("read_")]
        assert {ask.question_type for ask in reads} == {f"read_{drawn.group}"}
        printed = (drawn.text, drawn.text.upper())  # some typefaces have no small letters
        assert all(ask.answer in printed for ask in reads)
        assert reads[0].answer in item.labels
        (check,) = [ask for ask in item.asks if ask.question_type == f"check_{drawn.group}"]
        assert (check.answer == "yes") == (f" {reads[0].answer}?" in check.question.replace('"', ""))
    assert set(groups) == set(words.GROUPS)


def test_splits_share_no_words():
    told = {}
    for split in ("train", "heldout"):
        drawn = [
            words.draw_print(split, random.Random(seed), group)
            for seed in range(300)
            for group in ("word", "sign", "lines")
        ]
        told[split] = {word for one in drawn for word in one.text.lower().rstrip(".!?").split() if not word.isdigit()}
        numbers = [words.draw_print(split, random.Random(seed), "number").text for seed in range(300)]
        told[split] |= {number for number in numbers if len(number) > 2}
    assert len(told["train"]) > 1000
    assert not told["train"] & told["heldout"]


def test_what_is_read_and_its_colours_are_facts_of_their_own():
    for item in words.make("train", 60, 4, Path()):
        turns, _ = choose_turns(item.asks, random.Random(0), single=False)
        facts = [fact for ask in turns for fact in ask.facts if ask.question_type != "describe"]
        assert len(set(facts)) == len(facts) == len([ask for ask in turns if ask.question_type != "describe"])


def test_the_first_question_is_the_usual_one():
    asked = Counter(words.question_of("word", random.Random(seed)) for seed in range(600))
    assert asked.most_common(1)[0][0] == "What does the text say?"
    assert 0.4 < asked["What does the text say?"] / 600 < 0.6
    assert len(asked) > 5


def test_colours_are_asked_for_where_they_have_names():
    for index, item in enumerate(words.make("train", 120, 3, Path())):
        for ask in item.asks:
            if ask.question_type == "text_colour":
                assert f" in {ask.answer} on " in item.captions[0]
                corners = np.asarray(item.image)[[0, 0, -1, -1], [0, -1, 0, -1]]
                assert nearest_colour(corners.mean(0)) != ask.answer, index


# --- documents ------------------------------------------------------------------------------------------------------


def fields(document):
    return [(ask.question, ask.answer, ask.question_type) for ask in document.asks]


@LAWS
@given(SEEDS)
def test_no_turn_of_a_document_gives_another_away(seed):
    document = documents.draw_document("train", random.Random(seed))
    turns, _ = choose_turns(document.asks, random.Random(seed), single=False)
    assert turns
    assert len({ask.question for ask in turns}) == len(turns)
    for ask in turns:
        for other in turns:
            if ask is not other and len(ask.answer) > 2:  # a short number may occur in another question by chance
                assert ask.answer not in other.question.removesuffix("?").split()


@LAWS
@given(SEEDS)
def test_a_receipt_adds_up_and_answers_are_printed_on_it(seed):
    document = documents.draw_receipt("train", random.Random(seed))
    rows = dict(line.split("\t") for line in document.lines if "\t" in line)
    prices = [round(100 * float(price.removeprefix("$"))) for price in rows.values()]
    assert sum(prices[:-1]) == prices[-1]
    for question, answer, kind in fields(document):
        if kind == "total":
            assert answer == list(rows.values())[-1]
        elif kind == "price":
            (good,) = [good for good in rows if f" {good.lower()}" in question.lower()]
            assert rows[good] == answer
        elif kind == "item":
            assert question.endswith(f" {rows[answer]}?")
            assert list(rows.values())[:-1].count(rows[answer]) == 1
        else:
            assert (kind, answer) == ("title", document.lines[0])


@LAWS
@given(SEEDS)
def test_table_answers_follow_from_its_rows(seed):
    document = documents.draw_table("train", random.Random(seed))
    rows = dict(line.split("\t") for line in document.lines[1:])
    assert len(set(rows.values())) == len(rows)
    for question, answer, kind in fields(document):
        if kind == "number":
            (person,) = [person for person in rows if person in question.replace("'s", "").removesuffix("?").split()]
            assert rows[person] == answer
        elif kind == "person":
            assert f" {rows[answer]}" in question
        else:
            assert kind == "most"
            assert int(rows[answer]) == max(map(int, rows.values()))


@LAWS
@given(SEEDS)
def test_notice_answers_stand_behind_their_keys(seed):
    document = documents.draw_notice("heldout", random.Random(seed))
    for question, answer, kind in fields(document):
        if kind == "title":
            assert answer == document.lines[0]
        else:
            (key,) = [key for key, asks in documents.NOTICES.items() if question in asks]
            (line,) = [line for line in document.lines[1:] if line.startswith(key)]
            assert line.split()[-1] == answer


def test_documents_in_capitals_are_answered_in_capitals():
    document = documents.draw_table("train", random.Random(1))
    capitals = documents._in_capitals(document)
    assert all(line == line.upper() for line in capitals.lines)
    assert all(ask.answer == ask.answer.upper() for ask in capitals.asks)
    assert [ask.question for ask in capitals.asks] == [ask.question for ask in document.asks]


def test_every_document_is_asked_and_read():
    names = set()
    for item in documents.make("heldout", 60, 2, Path()):
        names.add(item.labels[0])
        (read,) = {ask.answer for ask in item.alignment if ask.question_type == "read"}
        assert all(ask.answer in read for ask in item.asks if ask.question_type not in ("read", "describe"))
    assert names == {"receipt", "table", "notice"}


# --- drawings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("thing", list(drawings.THINGS))
def test_drawings_are_clear_varied_and_inside(thing):
    pictures = []
    for seed in range(8):
        rng = random.Random(seed)
        image, pen = new_canvas((255, 255, 255))
        drawings.THINGS[thing](drawings.Sketch(pen, rng, (0, 0, 0), []))
        ink = np.asarray(image.convert("L")) < 128
        border = np.concatenate([ink[0], ink[-1], ink[:, 0], ink[:, -1]])
        assert 0.02 < ink.mean() < 0.4
        assert border.mean() < 0.05
        rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
        assert max(rows[-1] - rows[0], columns[-1] - columns[0]) > 0.5 * LARGE
        pictures.append(ink)
    assert all((pictures[0] ^ other).mean() > 0.01 for other in pictures[1:])


def test_drawing_answers_name_the_drawing():
    seen = set()
    for item in drawings.make("train", 120, 2, Path()):
        thing = item.labels[0]
        seen.add(thing)
        answers = {ask.question_type: ask for ask in item.asks}
        assert answers["name"].answer == thing
        asked = answers["check"].question.removesuffix("?").split()[-1]
        assert (answers["check"].answer == "yes") == (asked == thing)
    assert seen == set(drawings.THINGS)


# --- sources --------------------------------------------------------------------------------------------------------

THINGS = st.fixed_dictionaries(
    {"color": st.sampled_from(list(nlvr.COLOURS)), "type": st.sampled_from(nlvr.SHAPES), "size": st.just(10)}
)


@LAWS
@given(st.lists(THINGS, min_size=1, max_size=8), SEEDS)
def test_box_answers_follow_from_the_structure(box, seed):
    looks = [(nlvr.COLOURS[thing["color"]], thing["type"]) for thing in box]
    for ask in nlvr.box_questions(box, random.Random(seed)):
        if ask.question_type == "exists":
            colour, shape = ask.question.removesuffix("?").split()[-2:]
            assert (ask.answer == "yes") == ((colour, shape) in looks)
        elif ask.question_type == "count":
            assert nlvr.NUMBERS.index(ask.answer) == len(box)
        elif ask.question_type == "count_colour":
            assert nlvr.NUMBERS.index(ask.answer) == sum(colour in ask.question for colour, _ in looks)
        elif ask.question_type in ("colour", "shape"):
            assert len(box) == 1
            assert ask.answer in looks[0]
    told = Counter()
    for part in nlvr.summary(box).replace(" and ", ", ").split(", "):
        count, colour, shape = part.split()
        told[(colour, shape.removesuffix("s"))] += nlvr.NUMBERS.index(count)
    assert told == Counter(looks)


def test_boxes_are_cut_where_their_structure_says(sources):
    items = list(nlvr.make_boxes("train", 50, 0, sources / "nlvr"))
    assert len(items) > 10
    for item in items:
        colours = {nearest_colour(pixel) for pixel in np.asarray(item.image).reshape(-1, 3)[::7]}
        for colour in ("black", "yellow"):
            assert (colour in colours) == (f"{colour} square" in item.labels[0])


@LAWS
@given(SEEDS)
def test_views_of_a_photograph_have_no_empty_corner(seed):
    path = view_file()
    plain = np.asarray(garments.photo_view(path, None)).astype(int)
    view = np.asarray(garments.photo_view(path, random.Random(seed))).astype(int)
    assert view.shape == plain.shape == (SIDE, SIDE, 3)
    assert view.reshape(-1, 3).max(1).min() > 60  # the photograph is bright everywhere, a corner would be black


@lru_cache
def view_file():
    path = Path(tempfile.mkdtemp()) / "photo.png"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(150, 220, (12, 9, 3), dtype=np.uint8)).resize((360, 480)).save(path)
    return path


def test_nlvr_splits_do_not_share_pictures(sources):
    keys = {
        split: {item.key for item in nlvr.make_nlvr(split, 99, 0, sources / "nlvr")} for split in ("train", "heldout")
    }
    assert len(keys["train"]) == 24
    assert len(keys["heldout"]) == 12
    assert all("/test/" in key for key in keys["heldout"])
    assert not any("/test/" in key for key in keys["train"])


def test_handwriting_is_split_by_drawer_and_repeats_no_character(sources):
    keys = {
        split: [item.key for item in handwriting.make(split, 999, 0, sources / "omniglot-small")]
        for split in ("train", "heldout")
    }
    drawers = {split: {int(key[-6:-4]) for key in names} for split, names in keys.items()}
    assert drawers["train"] == set(range(1, 17))
    assert drawers["heldout"] == {17, 18, 19, 20}
    assert len(keys["train"]) == 16 * len(handwriting.ALPHABETS)
    assert not any("Greek" in key for names in keys.values() for key in names)


def test_captions_keep_their_photographs_apart(sources):
    train = {item.key for item in captions.make("train", 999, 0, sources / "coco-ccby")}
    heldout = {item.key for item in captions.make("heldout", 999, 0, sources / "coco-ccby")}
    assert len(train) == 10
    assert len(heldout) == 2
    assert not train & heldout


# --- small pieces ---------------------------------------------------------------------------------------------------


def test_articles():
    assert article("orange star") == "an orange star"
    assert article("red star") == "a red star"


def test_weighted_order_prefers_heavy_options_and_leaves_out_weightless_ones():
    first = Counter(weighted_order(random.Random(i), [(3.0, "a"), (1.0, "b"), (0.0, "c")])[0] for i in range(2000))
    assert abs(first["a"] / 2000 - 0.75) < 0.04
    assert "c" not in weighted_order(random.Random(0), [(1.0, "a"), (0.0, "c")])


@LAWS
@given(st.sampled_from(list(GROUNDS)), SEEDS)
def test_shades_keep_their_name(name, seed):
    assert nearest_colour(shade(name, random.Random(seed))) == name


def test_unknown_shapes_have_no_outline():
    with pytest.raises(KeyError):
        outline("spiral", (0.0, 0.0), 1.0, 0.0)
    assert isinstance(new_canvas((0, 0, 0))[0], Image.Image)
