from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedere.data.build.blind import BlindGuesser, Score, blind_accuracy, score_answers, turns
from vedere.errors import RecordError


def record(name, question, answer, question_type="t", kind="k"):
    conversations = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
    return {"id": name, "kind": kind, "question_type": question_type, "conversations": conversations}


def test_guess_backs_off_from_text_to_type_to_kind():
    train = [record(f"a{i}", "What color?", "red", "colour") for i in range(6)]
    train += [record(f"b{i}", "How many?", "two", "count") for i in range(3)]
    train += [record(f"c{i}", "How many dots?", "three", "count") for i in range(5)]
    guesser = BlindGuesser(train)
    assert guesser.guess("k", "what color", "colour") == "red"
    assert guesser.guess("k", "How many?", "count") == "three"  # three answers to this text are too few to trust
    assert guesser.guess("k", "Why?", "unknown") == "red"
    assert guesser.guess("other", "What color?", "colour") == ""


def test_the_better_guesser_counts():
    train = [record(f"a{i}", "Is it A?", "yes", "check") for i in range(6)]
    train += [record(f"b{i}", "Is it B?", "no", "check") for i in range(7)]
    held = [record("h0", "Is it A?", "yes", "check"), record("h1", "Is it B?", "No.", "check")]
    assert blind_accuracy(train, held) == {"k": 1.0}
    held = [record("h0", "Is it A?", "no", "check"), record("h1", "Is it B?", "no", "check")]
    assert blind_accuracy(train, held) == {"k": 1.0}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("qr"), st.sampled_from("xyz")), min_size=1, max_size=30))
def test_blind_beats_or_equals_every_constant_on_its_own_data(pairs):
    records = [record(str(i), question, answer, "t") for i, (question, answer) in enumerate(pairs)]
    constant = max(sum(answer == guess for _, answer in pairs) for guess in "xyz") / len(pairs)
    assert constant <= blind_accuracy(records, records)["k"] <= 1.0


def test_second_turns_count_for_the_baseline():
    both = {
        "id": "m",
        "kind": "k",
        "question_type": "one+two",
        "conversations": [
            {"from": "human", "value": "<image>\nFirst?"},
            {"from": "gpt", "value": "a"},
            {"from": "human", "value": "Second?"},
            {"from": "gpt", "value": "b"},
        ],
    }
    assert turns(both) == [("First?", "a", "one"), ("Second?", "b", "two")]
    assert BlindGuesser([both]).guess("k", "x", "two") == "b"
    with pytest.raises(RecordError, match="record 'm' has 2 questions, 2 answers and 1 question types"):
        turns({**both, "question_type": "one"})


def test_scores_by_kind_and_type():
    held = [record("1", "q", "A red circle"), record("2", "q", "three", "count"), record("3", "q", "x", kind="z")]
    scores = score_answers(held, {"1": "red circle.", "2": "4"})
    assert scores["k"] == Score(correct=1, total=2)
    assert scores["k/t"].accuracy == 1.0
    assert scores["k/count"].accuracy == 0.0
    assert scores["z"] == Score(correct=0, total=1)
    assert Score(correct=0, total=0).accuracy == 0.0


def test_answers_to_unknown_records_are_refused():
    with pytest.raises(RecordError, match="1 answers belong to no held-out record, the first to '9'"):
        score_answers([record("1", "q", "a")], {"9": "a"})
