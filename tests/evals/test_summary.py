"""What is reported of a run: clustered standard errors, denominators; answers kept by key; critics' answers read."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vedere.answers import first_or_second, grade_pair, signs, unit_grade
from vedere.errors import RecordError
from vedere.evals.answer_store import FILE, AnswerStore, answer_key
from vedere.evals.image_suites import image_benchmark
from vedere.evals.intervals import standard_error
from vedere.evals.summary import Asked, flat, summarise

CREDITS = st.lists(st.floats(0, 1), min_size=2, max_size=40)


@given(CREDITS)
def test_without_groups_the_error_is_the_usual_one(credits):
    n = len(credits)
    usual = statistics.stdev(credits) / math.sqrt(n)
    assert standard_error(credits, [str(k) for k in range(n)]) == pytest.approx(usual, abs=1e-12)


@given(CREDITS, st.integers(2, 5))
def test_copies_of_rows_add_no_certainty(credits, copies):
    """A question asked k times in one group is worth one question; unclustered, the error would shrink by the root of k."""
    groups = [str(place) for place in range(len(credits))]
    alone = standard_error(credits, groups)
    assert standard_error(credits * copies, groups * copies) == pytest.approx(alone, abs=1e-12)


def test_one_group_has_no_error_to_speak_of():
    assert standard_error([0.0, 1.0, 1.0], ["a", "a", "a"]) == 0.0


def test_denominators_add_up_and_failed_items_are_in_no_figure():
    record = {"index": "1", "options": {"A": "x", "B": "y"}, "answer": "A"}
    asked = [
        Asked(id="1", record={**record, "prediction": "A"}, judge="rules"),
        Asked(id="2", record={**record, "index": "2", "prediction": ""}, not_asked="no picture", judge="unread"),
    ]
    result = summarise(image_benchmark("ai2d"), asked, failed=3)
    assert result["counts"] | {"items": 5, "answered": 1, "not_asked": 1, "failed": 3} == result["counts"]
    assert (result["counts"]["settled_by_rules"], result["counts"]["judge_unreadable"]) == (1, 1)
    assert (result["figures"]["n"], result["figures"]["acc"]) == (2, 0.5)
    assert set(result["rules"]) == {"scoring", "answers"}


def test_flat_figures_are_numbers_under_joined_names():
    figures = {"a": 1, "b": {"c": [0.5, {"d": True}], "e": "text"}, "f": math.nan}
    assert dict(flat(figures)) == {"a": 1.0, "b/c/0": 0.5, "b/c/1/d": 1.0}


def test_keys_do_not_depend_on_the_order_of_names_but_on_every_value():
    parts = {"who": {"model": "m"}, "texts": {"text": "q"}, "media": [], "try": 0}
    assert answer_key(parts) == answer_key(dict(reversed(parts.items())))
    changed = [{**parts, "try": 1}, {**parts, "media": ["x"]}, {**parts, "texts": {"text": "q "}}]
    assert len({answer_key(one) for one in (parts, *changed)}) == 4


def test_answers_are_found_again_and_the_folder_is_free_after_closing(tmp_path):
    store = AnswerStore(tmp_path)
    store.keep("k", {"text": "答え", "stop": "stop"})
    store.close()
    other = AnswerStore(tmp_path)
    found = other.find("k")
    assert found is not None
    assert (found["text"], other.find("l"), other.reused, len(other)) == ("答え", None, 1, 1)
    with pytest.raises(RecordError, match="another evaluation is writing"):
        AnswerStore(tmp_path)
    other.close()
    store.keep("m", {"text": "late"})  # opens it again, and sees what others wrote
    assert store.find("k") is not None
    store.close()
    assert (tmp_path / FILE).read_text().count("\n") == 2


@pytest.mark.parametrize(
    ("text", "read"),
    [("+ - +", [True, False, True]), ("+−–", [True, False, False]), ("Step 1 is right.", []), ("", [])],
)
def test_signs(text, read):
    assert signs(text) == read


@pytest.mark.parametrize(
    ("text", "read"), [("2", 2), ("Response 1 is better than 2", 1), ("12", None), ("", None), ("10", None)]
)
def test_first_or_second(text, read):
    assert first_or_second(text) == read


@given(st.text(max_size=30))
def test_grades_are_in_their_range_or_none(text):
    grade, pair = unit_grade(text), grade_pair(text)
    assert grade is None or 0 <= grade <= 1
    assert pair is None or all(1 <= one <= 10 for one in pair)


@given(st.floats(0, 1).map(lambda value: round(value, 2)))
def test_a_grade_is_read_as_it_is_written(value):
    assert unit_grade(f" Grade: {value}") == value
