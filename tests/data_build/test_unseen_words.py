"""No training picture prints a held-out word, and questions about the letters of a word are answered from the word."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vedere.data.build import documents, words
from vedere.data.build.vocabulary import draw_word, is_heldout

SEEDS = st.integers(0, 2**32)


@pytest.mark.parametrize(
    "printed",
    [
        documents.GOODS,
        documents.PEOPLE,
        documents.COLUMNS,
        tuple(documents.NOTICES),
        documents._SUMS,
        ("Player",),
    ],
)
def test_no_fixed_word_of_a_document_is_held_out(printed):
    assert not [word for word in printed if is_heldout(word)]


@given(SEEDS)
def test_a_training_document_prints_no_held_out_word(seed):
    document = documents.draw_document("train", random.Random(seed))
    # What stands behind the key of a notice is a code, not a word.
    lines = [next((key for key in documents.NOTICES if line.startswith(key)), line) for line in document.lines]
    names = [word for line in lines for word in re.findall(r"[A-Za-z]+", line)]
    assert names
    assert not [word for word in names if is_heldout(word)]


@given(SEEDS, st.sampled_from(["train", "heldout"]), st.sampled_from([str.lower, str.capitalize, str.upper]))
def test_letters_are_those_of_the_word(seed, split, case):
    rng = random.Random(seed)
    word = case(draw_word(split, rng))
    asks = words.spelling_asks(word, rng)
    assert set(asks) == {ask.question_type for ask in asks.values()} == {"spell", "first_letter", "count_letters"}
    assert asks["spell"].answer.replace("-", "") == word.lower()
    assert asks["spell"].answer.count("-") == len(word) - 1
    assert word.startswith(asks["first_letter"].answer)
    assert len(asks["first_letter"].answer) == 1
    assert int(asks["count_letters"].answer) == len(word)
