from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vedere.answers import ANSWER_RULES_VERSION, exact_match, first_number, normalise, option_letter, yes_no

LAWS = settings(max_examples=150, deadline=None)


def test_rules_are_versioned():
    assert isinstance(ANSWER_RULES_VERSION, int)
    assert ANSWER_RULES_VERSION >= 1


@LAWS
@given(st.text(max_size=40))
@example("a a the")
@example("1,000,0")
@example("one.two")
@example("'\u0301")
def test_normal_form_is_idempotent(text):
    assert normalise(normalise(text)) == normalise(text)


@LAWS
@given(
    st.lists(
        st.sampled_from(["red", "circle", "Star", "two", "T-Shirt", "the", "a", "an", "7", "3.5", "yes"]),
        min_size=1,
        max_size=5,
    )
)
def test_case_spaces_and_closing_punctuation_do_not_matter(words):
    text = " ".join(words)
    for other in (text.upper(), f"  {'   '.join(words)}\n", f"{text}.", f'"{text}"', f"{text}!?"):
        assert exact_match(other, text)


@LAWS
@given(st.text(max_size=20), st.text(max_size=20))
def test_exact_match_is_an_equivalence(left, right):
    assert exact_match(left, left)
    assert exact_match(left, right) == exact_match(right, left)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A red circle.", "red circle"),
        ("the letter A", "letter a"),
        ("A", "a"),
        ("Three", "3"),
        ("1,250 people", "1250 people"),
        ("3.50", "3.50"),
        ("-4", "-4"),
        ("t-shirt", "t shirt"),
        ("don't", "dont"),
        ("ＳＴＯＰ", "stop"),
        ("  ", ""),
    ],
)
def test_normal_forms(text, expected):
    assert normalise(text) == expected


def test_different_answers_stay_different():
    assert not exact_match("3", "13")
    assert not exact_match("-4", "4")
    assert not exact_match("3.5", "35")
    assert not exact_match("", "a")
    assert not exact_match("?", "!")


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Yes", "yes"),
        ("yes, there is no doubt", "yes"),
        ("No.", "no"),
        ("Not at all", "no"),
        ("True", "yes"),
        ("it is false", "no"),
        ("I would say yes", "yes"),
        ("maybe yes, maybe no", None),
        ("a red circle", None),
        ("eyes and noses", None),
        ("", None),
    ],
)
def test_yes_no(text, verdict):
    assert yes_no(text) == verdict


@LAWS
@given(
    st.sampled_from("ABCD"),
    st.sampled_from(
        ["{}", "({})", "{}.", "{}: a cat", "The answer is {}.", "Answer: ({})", "**{}**", "\\boxed{{{}}}", "option {}"]
    ),
)
def test_option_letter_forms(letter, form):
    assert option_letter(form.format(letter)) == letter
    if form != "option {}" and "answer is" not in form:
        assert option_letter(form.format(letter.lower())) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("A cat sits on a mat", None),
        ("It could be B or C", None),
        ("I think it shows B, clearly", "B"),
        ("First the answer is A, but finally the answer is D", "D"),
        ("the answer is a red circle", None),
        ("E", None),
        ("", None),
        ("Both (A) and (B)", None),
        ("Because of the colour, (C) fits", "C"),
    ],
)
def test_option_letter_examples(text, letter):
    assert option_letter(text) == letter


def test_option_letter_offers_other_letters():
    assert option_letter("E", options="ABCDE") == "E"
    with pytest.raises(ValueError, match="distinct capital letters such as 'ABCD', not 'AAB'"):
        option_letter("A", options="AAB")


@LAWS
@given(st.integers(-(10**9), 10**9))
def test_first_number_reads_integers(number):
    assert first_number(f"there are {number} of them, not 5") == number
    assert first_number(f"{number:,}") == number


@LAWS
@given(st.decimals(min_value=-1000, max_value=1000, places=2, allow_nan=False))
def test_first_number_reads_decimals(number):
    assert first_number(f"about {number:f} m") == float(number)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("Three birds and 2 cats", 3.0),
        ("2 cats, three birds", 2.0),
        ("someone", None),
        ("v2 model", None),
        ("", None),
        (".5", 0.5),
    ],
)
def test_first_number_examples(text, number):
    assert first_number(text) == number
