"""Laws of the metrics: bounds, symmetry, invariances."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from vedere.answers import first_four, open_answers
from vedere.evals.benchmarks import score_rows
from vedere.evals.circular import PASS, rotations
from vedere.evals.distance import edit_distance
from vedere.evals.document import anls, relaxed_correct
from vedere.evals.mmmu import open_right
from vedere.evals.ocr import contains, word_boundary
from vedere.evals.pope import figures_of
from vedere.evals.records import Row
from vedere.evals.refcoco import iou, parse_box
from vedere.evals.textvqa import kit_form, m4c_form, soft_score

LAWS = settings(max_examples=120, deadline=None)
SHORT = st.text(alphabet="abcAB 1.,é猫", max_size=12)


def table_distance(left: str, right: str) -> int:
    """The textbook's table, as the reference."""
    line = list(range(len(right) + 1))
    for i, one in enumerate(left, 1):
        before, line[0] = line[0], i
        for j, other in enumerate(right, 1):
            before, line[j] = line[j], min(line[j] + 1, line[j - 1] + 1, before + (one != other))
    return line[-1]


@LAWS
@given(SHORT, SHORT)
@example("", "")
@example("kitten", "sitting")
def test_edit_distance_is_that_of_the_table(left, right):
    assert edit_distance(left, right) == table_distance(left, right)


@LAWS
@given(SHORT, SHORT)
def test_anls_is_symmetric_and_bounded(left, right):
    value = anls(left, [right])
    assert value == anls(right, [left])
    assert value == 0 or 0.5 <= value <= 1
    assert anls(left, [left]) == 1


@LAWS
@given(SHORT, st.lists(SHORT, min_size=1, max_size=3), SHORT)
def test_another_answer_never_lowers_anls(prediction, answers, more):
    assert anls(prediction, [*answers, more]) >= anls(prediction, answers)


def test_anls_traps():
    assert anls("ab", ["ax"]) == 0.5  # the threshold itself counts
    assert anls("abc", ["axy"]) == 0
    assert anls("ABC", ["abc"]) == 1
    assert anls("", ["abc"]) == 0
    assert anls("a  b", ["a b"]) == 1  # blanks collapse before the distance
    assert anls("x" * 100_000, ["abc"]) == 0


@LAWS
@given(st.floats(-1e6, 1e6).filter(lambda x: abs(x) > 1e-3), st.floats(-0.2, 0.2))
def test_relaxed_accuracy_is_five_percent_of_the_target(target, shift):
    assume(abs(abs(shift) - 0.05) > 1e-9)
    given_value = target * (1 + shift)
    assert relaxed_correct(repr(given_value), repr(target)) == (abs(shift) < 0.05)


@pytest.mark.parametrize(
    ("prediction", "target", "right"),
    [
        ("5%", "0.05", True),
        ("5%", "5", False),
        ("0.0", "0", False),  # a target of 0 has no tolerance, only equal texts
        ("0", "0", True),
        ("1,000", "1000", False),
        ("Yes", "yes", True),
        ("", "3", False),
        ("nan", "3", False),
    ],
)
def test_chartqa_traps(prediction, target, right):
    assert relaxed_correct(prediction, target) is right


@LAWS
@given(
    st.lists(st.sampled_from(["red", "blue", "two"]), min_size=10, max_size=10), st.sampled_from(["red", "blue", "2"])
)
def test_textvqa_scores_the_number_of_annotators_who_agree(answers, prediction):
    same = sum(m4c_form(answer) == prediction for answer in answers)
    expected = {0: 0, 1: 0.3, 2: 0.6, 3: 0.9}.get(same, 1)
    assert soft_score(prediction, answers, m4c_form) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "m4c", "kit"),
    [
        ("5.", "5", "5."),
        ("The Two dogs", "2 dogs", "2 dogs"),
        ("dont", "don't", "don't"),
        ("a, b", "b", "b"),
        ("1,000", "1000", "1000"),
        ("x-ray", "x ray", "x ray"),
        ("3.5", "3.5", "3.5"),
        ("Somebody'd", "somebodyd", "somebodyd"),  # an entry of the original list that goes the other way
        ("", "", ""),
    ],
)
def test_textvqa_normal_forms(text, m4c, kit):
    assert (m4c_form(text), kit_form(text)) == (m4c, kit)


def test_only_32_periods_are_deleted():
    assert m4c_form("a" + "." * 40) == "a" + "." * 8


@LAWS
@given(SHORT, SHORT.filter(str.strip))
def test_a_whole_word_found_is_found_as_a_part(prediction, answer):
    plain = "".join(one for one in answer if one.isascii() and one.isalnum()).lower()
    assume(plain)
    clean = "".join(one for one in prediction if one.isascii() and (one.isalnum() or one == " "))
    if word_boundary(clean, plain):
        assert contains(clean, [plain])


def test_both_ocr_rules():
    assert contains("The centre", ["cent"])
    assert not word_boundary("The centre", "cent")
    assert word_boundary("it says: 'STOP!'", "stop")
    assert contains("x ^ 2\n+ 1", ["x^2+1"], formula=True) is True
    assert contains("X^2", ["x^2"], formula=True) is False
    assert contains("", ["a"]) is False


@LAWS
@given(*[st.integers(0, 50)] * 4)
def test_pope_figures_are_ratios(hit, false, rejected, missed):
    figures = figures_of({"TP": hit, "FP": false, "TN": rejected, "FN": missed})
    assert all(0 <= figures[name] <= 1 for name in ("acc", "precision", "recall", "f1", "yes_ratio"))
    swapped = figures_of({"TP": hit, "FP": missed, "TN": rejected, "FN": false})
    assert figures["f1"] == pytest.approx(swapped["f1"])


BOXES = st.tuples(*[st.floats(0, 1)] * 4).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
)


@LAWS
@given(BOXES, BOXES)
def test_iou_is_symmetric_and_bounded(one, other):
    assert iou(one, other) == pytest.approx(iou(other, one))
    assert 0 <= iou(one, other) <= 1 + 1e-9


def test_boxes():
    assert parse_box("a <box>[[100, 200, 300, 400]]</box>") == (0.1, 0.2, 0.3, 0.4)
    assert parse_box("[0.1, 0.2, 0.3, 0.4]") == (0.1, 0.2, 0.3, 0.4)
    assert parse_box("[0,0,1,2]") == (0, 0, 1, 2)  # the misreading of the original
    assert parse_box("[a,b,c,d]") is None
    assert parse_box("[nan,1,2,3]") is None
    assert parse_box("") is None
    assert parse_box("[" * 100_000) is None
    assert parse_box("[x] is at\n[[1, 2, 3, 4]]") == (0.001, 0.002, 0.003, 0.004)
    assert parse_box("[x] is at [1, 2, 3, 4]") is None  # the pattern begins at the first bracket
    assert iou((0, 0, 0, 0), (0, 0, 0, 0)) == 0


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Yes", "yes"),
        ("yes, it is", "yes"),
        ("No.", "no"),
        ("The answer is yes", "other"),
        ("", "other"),
        ("是", "other"),
    ],
)
def test_mme_reads_four_characters(text, read):
    assert first_four(text) == read


@pytest.mark.parametrize(
    ("answers", "response", "right"),
    [
        (["1.06"], "The density is 1.06 g.", True),
        (["1,000"], "so 1000", True),
        (["Transformation"], "it is a transformation process", True),
        (["C"], "vitamin c", True),
        (["C"], "cat", False),
        (["24/7", "7"], "= 7.0", True),
        (["x"], "", False),
        (["who knows"], "it is a cat thus \nwho knows", True),  # a line that ends with a later mark has no tail at all
    ],
)
def test_mmmu_open_answers(answers, response, right):
    assert open_right(answers, open_answers(response)) is right


OPTION_TEXTS = st.lists(st.sampled_from(["cat", "dog", "red bird", "fish"]), min_size=2, max_size=4, unique=True)


def passes(texts: list[str], index: int, answer: str = "A") -> list[dict[str, object]]:
    options = dict(zip("ABCD", texts, strict=False))
    return [
        {"index": index + k * PASS, **moved, "answer": letter, "category": "kinds"}
        for k, (moved, letter) in enumerate(rotations(options, answer))
    ]


@LAWS
@given(OPTION_TEXTS, st.data())
def test_rotations_keep_the_right_text_and_show_it_at_every_letter(texts, data):
    options = dict(zip("ABCD", texts, strict=False))
    answer = data.draw(st.sampled_from(sorted(options)))
    found = rotations(options, answer)
    assert found[0] == (options, answer)
    assert {letter for _, letter in found} == set(options)
    assert all(moved[letter] == options[answer] for moved, letter in found)
    assert all(sorted(moved.values()) == sorted(texts) for moved, _ in found)


@LAWS
@given(st.lists(OPTION_TEXTS, min_size=1, max_size=4), st.data())
def test_circular_is_never_above_vanilla_and_order_does_not_matter(questions, data):
    rows = [row for index, texts in enumerate(questions) for row in passes(texts, index)]
    for row in rows:
        row["prediction"] = data.draw(st.sampled_from([row["answer"], row["answer"], "B", "", "多"]))
    shuffled = data.draw(st.permutations(rows))
    figures = [score_rows("mmbench", [Row(n, row) for n, row in enumerate(one, 1)]).figures for one in (rows, shuffled)]
    assert figures[0] == figures[1]
    assert figures[0]["acc"] <= figures[0]["acc_upper_bound"]
    assert figures[0]["acc"] <= figures[0]["vanilla_acc"] <= 1
    expected = [
        all(row["prediction"] == row["answer"] for row in rows if row["index"] % PASS == i)
        for i in range(len(questions))
    ]
    assert figures[0]["acc"] == pytest.approx(sum(expected) / len(expected))
    assert not math.isnan(figures[0]["acc"])
