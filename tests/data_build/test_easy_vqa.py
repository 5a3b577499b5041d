from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

from vedere.data.build import easy_vqa


def written(split):
    found = defaultdict(set)
    for question, answer, number in json.loads((easy_vqa.data_folder() / split / "questions.json").read_text()):
        found[f"{split}/{number}"].add((question, answer))
    return found


@pytest.mark.parametrize(("split", "folder"), [("train", "train"), ("heldout", "test")])
def test_questions_and_answers_are_as_written(split, folder):
    source = written(folder)
    made = list(easy_vqa.make(split, len(source), 0, Path()))
    assert {item.key for item in made} == set(source)
    for item in made:
        assert {(ask.question, ask.answer) for ask in item.asks} == source[item.key]
        assert item.image.size == (64, 64)
        for ask in item.asks:
            assert ask.question_type == {"yes": "check", "no": "check"}.get(
                ask.answer, "shape" if ask.answer in ("circle", "rectangle", "triangle") else "colour"
            )


def test_pictures_come_again_with_their_next_questions():
    count = len(written("train"))
    first = defaultdict(list)
    for item in easy_vqa.make("train", 2 * count, 5, Path()):
        first[item.key] += [ask.question for ask in item.asks[: easy_vqa.TURNS]]
    assert all(len(asked) == 2 * easy_vqa.TURNS for asked in first.values())
    # four questions a picture: the second time begins with the one that was left over
    assert all(set(asked[: easy_vqa.TURNS + 1]) == set(asked) for asked in first.values())
    assert len(list(easy_vqa.make("heldout", 99, 5, Path()))) == len(written("test"))


@pytest.mark.parametrize(
    ("pairs", "truths"),
    [
        ([("what is the blue shape?", "rectangle")], ("blue", "rectangle")),
        ([("is there a circle in the image?", "yes"), ("is a red shape present?", "no")], ("circle",)),
        ([("does the image not contain a teal shape?", "no"), ("is no circle present?", "yes")], ("teal", "shape")),
        ([("is there not a blue shape?", "yes")], ("shape",)),
    ],
)
def test_captions_say_only_what_the_answers_give_away(pairs, truths):
    assert easy_vqa._truths(tuple(pairs)) == truths
