"""Laws of option extraction: nothing invented, nothing drawn, and the published quirks."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vedere.answers import (
    first_choice,
    internvl_choice,
    kit_choice,
    kit_yes_no,
    leading_letter,
    mmmu_choice,
    mmmu_pro_choice,
    option_letter,
    video_mme_letter,
    yes_no,
)

LAWS = settings(max_examples=120, deadline=None)
WORDS = [
    "A",
    "B",
    "(C)",
    "D.",
    "Z",
    "answer is",
    "the",
    "cat",
    "Answer:",
    "E",
    "选B",
    "答案是",
    "。",
    "\n",
    "I",
    "nan",
    "12",
]
ANSWERS = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join))
OPTIONS = st.dictionaries(
    st.sampled_from("ABCDEFGHIJ"), st.sampled_from(["cat", "dog", "a red cat", "12", "猫", "none of these"]), min_size=1
)
FOUR = {"A": "cat", "B": "dog", "C": "red bird", "D": "12 fish"}


@LAWS
@given(ANSWERS, OPTIONS)
@example("", {"A": "cat"})
def test_no_rule_invents_an_option(text, options):
    assert kit_choice(text, options) in {*options, "Z", None}
    for rule in (internvl_choice, mmmu_choice, mmmu_pro_choice):
        assert rule(text, options) in {*options, None}
    letters = "".join(options)
    assert option_letter(text, letters) in {*options, None}
    found = first_choice(text, letters)
    assert found is None or (found in options and found in text)


@LAWS
@given(ANSWERS, OPTIONS)
def test_rules_are_functions(text, options):
    """No random fallback: the same question gives the same letter."""
    for rule in (kit_choice, internvl_choice, mmmu_choice, mmmu_pro_choice):
        assert rule(text, options) == rule(text, options)


@LAWS
@given(OPTIONS.filter(lambda options: len(set(options.values())) == len(options)), st.data())
def test_a_bare_letter_is_read_by_every_rule(options, data):
    letter = data.draw(st.sampled_from(sorted(options)))
    for text in (letter, f"({letter})"):
        assert kit_choice(text, options) == letter
        assert mmmu_choice(text, options) == mmmu_pro_choice(text, options) == letter
        assert option_letter(text, "".join(options)) == letter
    assert internvl_choice(f" {letter}\n", options) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B. dog", "B"),
        ("The answer is (C).", "C"),
        ("B is what I would say here today", None),  # not among the last four tokens, no option text
        ("A dog", "A"),
        ("it is a dog", "B"),
        ("cat or dog", None),
        ("A or B", None),
        ("Z", "Z"),
        ("Sorry, I can't help with images of people yet.", "Z"),
        ("Failed to obtain answer via API.", None),
        ("dog " * 20, None),  # longer than twice the texts together
        ("答案是B。", None),  # the full stop is none of the marks that become blanks
        ("答案是 B", "B"),
        ("", None),
    ],
)
def test_vlmevalkit_rules(text, letter):
    assert kit_choice(text, FOUR) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The correct answer is **C** since birds have feathers and wings and two legs each", "C"),
        ("answer is b, which has four legs and a tail and barks all day", "B"),
        ("The answer is cat", "C"),  # the letter may begin a word
        ("The answer is E", None),
        ("B is the answer", "B"),
    ],
)
def test_newer_vlmevalkit_takes_the_letter_after_answer_is(text, letter):
    assert kit_choice(text, FOUR, newer=True) == letter


def test_a_missing_letter_is_never_chosen():
    options = {"A": "cat", "C": "red bird"}
    assert kit_choice("B", options) is None
    assert mmmu_choice("B", options) is None
    assert internvl_choice("B. dog", options) is None
    assert option_letter("The answer is B", "AC") is None


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("(A) or rather (B)", "B"),
        (" A then B then A again", "A"),
        ("B.", "B"),
        ("I am sure it must be the red bird", "C"),
        ("the red bird", None),  # too few words for texts
        ("", None),
    ],
)
def test_mmmu_parser(text, letter):
    assert mmmu_choice(text, FOUR) == letter


def test_mmmu_pro_looks_after_the_last_answer_and_ties_go_to_the_first_option():
    assert mmmu_pro_choice("Answer: A\nno, Answer: B", FOUR) == "B"
    assert mmmu_pro_choice("CAB D. x", FOUR) == "B"  # 'B ' and 'D.' differ in form: the first form that hits decides
    assert mmmu_pro_choice("xA xB ", FOUR) == "A"
    assert mmmu_choice("xA xB ", FOUR) is None


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("C. Berries.", "C"),
        ("Answer: C. Jade.", "C"),
        ("D", "D"),
        ("Best option: C", "B"),
        ("Because it rained, so C", "B"),
        ("(c)", ""),
        ("I think the answer is D", "D"),
        ("Cannot tell", "C"),
        ("A man is here; answer B", "A"),
        ("", ""),
    ],
)
def test_video_mme_worked_cases(text, letter):
    assert video_mme_letter(text) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [("答案是B。", "B"), ("选C", "C"), ("应选：D", "D"), ("正确答案为(A)", "A"), ("B。因为", "B"), ("没有答案", None)],
)
def test_chinese_answers(text, letter):
    assert option_letter(text) == letter


@pytest.mark.parametrize(
    ("text", "verdict"), [("是的", "yes"), ("不是", "no"), ("否。", "no"), ("没有", "no"), ("有", "yes"), ("猫", None)]
)
def test_chinese_verdicts(text, verdict):
    assert yes_no(text) == verdict


@pytest.mark.parametrize(
    ("text", "verdict"),
    [("Yes.", "yes"), ("No, it is not", "no"), ("yes and no", None), ("know", None), ("", None), ("not", None)],
)
def test_vlmevalkit_yes_no(text, verdict):
    assert kit_yes_no(text) == verdict


@pytest.mark.parametrize(
    ("text", "letter"),
    [("A: cat", "A"), ("(B) 0.21", "B"), ("option c", "C"), ("The answer is D", "D"), ("it is A", None), ("", None)],
)
def test_mmstar_leading_letter(text, letter):
    assert leading_letter(text) == letter


def test_long_answers_take_no_time():
    start = time.perf_counter()
    for text in ("A " * 50_000, "x" * 100_000, "答案" * 50_000, "(" * 100_000, "is " * 33_000):
        for rule in (kit_choice, internvl_choice, mmmu_choice, mmmu_pro_choice):
            rule(text, FOUR)
        option_letter(text)
        video_mme_letter(text)
    assert time.perf_counter() - start < 20
