r"""Responses that reason first: where their final answer is, the prompt sets that ask for one, and runs with them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inspect_ai.log import read_eval_log

import small_benchmarks
from scripted import run, start
from vedere.answers import boxed_answer, final_line
from vedere.errors import RecordError
from vedere.evals.benchmarks import score_rows
from vedere.evals.items import Item, Picture, Settings
from vedere.evals.prompt_sets import make_prompt
from vedere.evals.records import Row
from vedere.evals.run import rescore

ONE = Picture(source=small_benchmarks.picture(0))
MPO = (
    "Your task is to answer the question below. Give step by step reasoning before you answer, and when you're ready to "
    'answer, please use the format "Final answer: .."\n\nQuestion:\n\n'
)
WORDS = st.text("abcdefgh ,.", max_size=40).filter(lambda text: "answer" not in text)


@pytest.mark.parametrize(
    ("text", "line", "box"),
    [
        ("It is red.\nFinal answer: B", "B", "B"),
        ("It is red.\nfinal ANSWER:  (B) \nAnswer: C", "(B)", "(B)"),
        ("Answer: A\nFinal answer: B", "A", "A"),  # the first of both, as the original
        ("Answer:", "", ""),
        ("no such line", "no such line", "no such line"),
        (r"Thus x.\nAnswer: \boxed{B}", r"\boxed{B}", "B"),
        (r"\boxed{1} is wrong, so \boxed{\frac{1}{2}}", r"\boxed{1} is wrong, so \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\text{Yes}}", r"\boxed{\text{Yes}}", "Yes"),
        (r"\boxed{3} and \boxed{4", r"\boxed{3} and \boxed{4", "3"),
        (r"Answer: \boxed{", r"\boxed{", r"\boxed{"),
        ("", "", ""),
    ],
)
def test_final_answers(text, line, box):
    assert final_line(text) == line
    assert boxed_answer(text) == box


@given(WORDS, WORDS.map(str.strip))
def test_what_stands_before_does_not_matter(reasoning, answer):
    assert final_line(f"{reasoning}\nFinal answer: {answer}") == answer
    assert boxed_answer(f"{reasoning}\nAnswer: \\boxed{{{answer}}}") == answer


@given(st.lists(st.sampled_from(["\\boxed{", "{", "}", "a", "\n", "Answer:"]), max_size=30).map("".join))
def test_any_text_has_a_final_answer_that_is_part_of_it(text):
    assert final_line(text) in text
    assert boxed_answer(text) in text


def test_a_hundred_thousand_open_boxes_take_no_time():
    assert boxed_answer("\\boxed{" * 2000) == "\\boxed{" * 2000


@pytest.mark.parametrize(
    ("name", "kind", "text", "rule"),
    [
        ("internvl-cot", "choice", MPO + "Look.\nWhat?\nA. cat\nB. dog\n", "final line"),
        ("internvl-cot", "yes_no", MPO + "What?", "final line"),
        ("internvl-cot", "free", MPO + "What?", ""),  # a judge reads the whole
        ("internvl-boxed", "choice", r"Answer: \boxed{$LETTER}", "boxed"),
        ("internvl-boxed", "free", r"Answer: \boxed{$FINAL_ANSWER}", "boxed"),
        ("internvl", "choice", "Answer with the option's letter", ""),
    ],
)
def test_prompts_that_ask_for_reasoning(name, kind, text, rule):
    options = {"A": "cat", "B": "dog"} if kind == "choice" else {}
    hint = "Look." if kind == "choice" else ""
    prompt = make_prompt(Item(id="1", parts=(ONE, "What?"), kind=kind, options=options, hint=hint), name, "mmstar")
    assert text in prompt.text
    assert (prompt.final_rule, prompt.max_tiles) == (rule, 6)
    assert prompt.max_new_tokens == (100 if name == "internvl" else 4096)


@pytest.mark.parametrize(
    ("name", "prompts", "answer", "figure", "value"),
    [
        ("mmstar", "internvl-cot", "It could be B or C, but the disc is red.\nFinal answer: A", "acc", 1 / 3),
        ("mmstar", "internvl-cot", "D is out.\nSo it is A", "acc", 0),
        ("mme", "internvl-cot", "No doubt about it.\nFinal answer: Yes", "perception", 50.0),
        ("blink", "internvl-boxed", r"(A) is small.\nAnswer: \boxed{B}", "macro", 100.0),
        ("mathvista", "internvl-boxed", "One disc.\nAnswer: \\boxed{1}", "free", 100.0),
        ("mmmu", "internvl-boxed", "Not (B).\nAnswer: \\boxed{A}", "correct_without_fallback", 1),
    ],
)
def test_figures_are_of_the_final_answer_and_the_log_has_the_whole(name, prompts, answer, figure, value, tmp_path):
    (tmp_path / "data").mkdir()
    data = small_benchmarks.MAKERS[name](tmp_path / "data")
    start({"model": lambda text, messages: answer})
    result = run(name, data, tmp_path / "out", settings=Settings(prompts=prompts))
    figures = result["figures"]
    found = figures["question_type"]["free_form"]["accuracy"] if figure == "free" else figures[figure]
    assert found == pytest.approx(value)
    log = tmp_path / "out" / result["log"]
    assert rescore(log)["figures"] == figures
    sample = read_eval_log(str(log)).samples[0]
    record = sample.metadata["vedere"]["record"]
    assert answer in (record.get("prediction"), record.get("response"))
    assert record["final_rule"] in ("final line", "boxed")


def test_a_rule_that_is_none_is_refused():
    row = Row(4, {"index": 1, "question": "q", "answer": "A", "category": "x", "prediction": "A", "final_rule": "box"})
    with pytest.raises(
        RecordError, match=re.escape("line 4: 'final_rule' is \"box\"; expected 'final line' or 'boxed'")
    ):
        score_rows("mmstar", [row])


def judged(name: str, tmp_path, answer: str, said: str, **fields):
    (tmp_path / "data").mkdir()
    data = small_benchmarks.MAKERS[name](tmp_path / "data")
    start({"model": lambda text, messages: answer, "judge": lambda text, messages: said})
    return run(name, data, tmp_path / "out", judge="scripted/judge", **fields)


def test_a_judge_reads_yes_or_no_where_the_words_do_not(tmp_path):
    result = judged("hallusionbench", tmp_path, "It certainly is so.", "Yes.")
    assert (result["figures"]["aAcc"], result["counts"]["judged"], result["counts"]["unresolved"]) == (50.0, 2, 0)


def test_a_judge_that_cannot_say_leaves_a_wrong_answer(tmp_path):
    result = judged("hallusionbench", tmp_path, "Maybe.", "Unknown")
    assert (result["figures"]["aAcc"], result["counts"]["judged"]) == (0.0, 2)


@pytest.mark.parametrize(
    ("name", "answer", "said", "figure"),
    [
        ("seed", "like a tomato", "A", 1 / 3),
        ("mmstar", "like a tomato", "(A)", 1 / 3),
        ("mmmu", "a circle of some kind", "A", 1.0),
    ],
)
def test_a_judge_completes_vlmevalkits_figure_and_leaves_the_others(name, answer, said, figure, tmp_path):
    result = judged(name, tmp_path, answer, said)
    assert result["figures"]["acc_vlmevalkit"] == pytest.approx(figure)
    assert result["figures"].get("acc", 0) == result["figures"].get("correct_without_fallback", 0) == 0


def test_an_open_question_of_mmmu_is_a_choice_for_vlmevalkit():
    row = {"id": "validation_Math_1", "question_type": "short-answer", "answer": "12"}
    rows = [{**row, "response": "It is 12"}, {**row, "id": "validation_Math_2", "response": "It is 13"}]
    figures = score_rows("mmmu", [Row(number, one) for number, one in enumerate(rows, 1)]).figures
    assert figures["acc_vlmevalkit"] == 0.5
