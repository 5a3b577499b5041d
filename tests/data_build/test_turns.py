from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedere.data.build import charts, clips, drawings, pairs, scene_questions
from vedere.data.build.record import Ask
from vedere.data.build.turns import CAPTIONS, MAX_TURNS, choose_turns, together

FACTS = st.lists(st.sampled_from("abcd"), max_size=2).map(tuple)
ASKS = st.builds(
    Ask,
    question=st.sampled_from(("What is this?", "What colour is the cup?", "Is this a cup?", "How many?")),
    answer=st.sampled_from(("cup", "red", "yes", "no", "two")),
    question_type=st.sampled_from(("name", "read_word", "check", "colour", "count", "describe", "caption")),
    facts=FACTS,
    given=FACTS,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(ASKS, min_size=1, max_size=7), st.integers(0, 99), st.booleans())
def test_no_turn_tells_the_answer_of_another(asks, seed, single):
    turns, left = choose_turns(asks, random.Random(seed), single)
    assert 1 <= len(turns) <= (1 if single else MAX_TURNS)
    assert all(turn in asks for turn in turns)
    assert not any(turn in left for turn in turns)
    if single:
        assert turns == [asks[0]]
    for index, turn in enumerate(turns):
        if turn.question_type in CAPTIONS:
            assert index == len(turns) - 1
            told = {fact for other in turns[:-1] for fact in (*other.facts, *other.given)}
            assert len(turns) == 1 or set(turn.facts) - told
            continue
        for other in turns[:index]:
            assert together(turn, other)
            assert together(other, turn)
            if turn.facts and other.facts:
                assert not set(turn.facts) & {*other.facts, *other.given}
                assert not set(other.facts) & {*turn.facts, *turn.given}
            elif not turn.facts and not other.facts:
                assert turn.answer not in ("yes", "no")
                assert turn.answer != other.answer
                assert turn.answer not in other.question


@pytest.mark.parametrize("kind", [scene_questions, charts, pairs, clips, drawings])
def test_kinds_fill_conversations(kind):
    lengths, asked = Counter(), Counter()
    for index, item in enumerate(kind.make("train", 100, 3, Path())):
        assert all(ask.facts for ask in item.asks), "a question without facts shares no conversation safely"
        turns, _ = choose_turns(item.asks, random.Random(index), single=False)
        lengths[len(turns)] += 1
        asked.update(turn.question_type for turn in turns)
    assert sum(lengths[number] for number in (2, 3, 4)) > 35
    assert len(asked) >= 3


def test_a_check_and_a_name_are_never_in_one_conversation():
    name = Ask(question="What is this?", answer="cup", question_type="name")
    check = Ask(question="Is this a boat?", answer="no", question_type="check")
    colour = Ask(question="What colour is it?", answer="red", question_type="colour")
    assert not together(name, check)
    assert not together(check, colour)  # nobody wrote down what its no tells
    assert together(name, colour)
    assert not together(colour, Ask(question="Where is the red cup?", answer="left", question_type="where"))
