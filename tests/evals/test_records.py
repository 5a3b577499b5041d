"""Rows of result files: repeats, odd cells, fields by other names, what is said to rows that do not fit."""

from __future__ import annotations

import json
import math

import pytest
from test_scorers import score

from vedere.errors import ConfigError, RecordError
from vedere.evals.benchmarks import BENCHMARKS, score_file
from vedere.evals.records import read_rows


def test_repeated_questions_count_once_and_are_counted():
    row = {"id": 1, "question": "q", "answers": ["a"] * 10}
    scores = score(
        "textvqa", row | {"prediction": "a"}, row | {"prediction": "b"}, row | {"question": "other", "prediction": "b"}
    )
    assert scores.figures["n"] == 2
    assert scores.figures["acc_m4c_norm"] == 50
    assert scores.counts["repeated_rows_left_out"] == 1
    assert [verdict.line for verdict in scores.verdicts] == [1, 3]


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("ocr-text", {"dataset": "FUNSD", "image": "1.png", "answer": "date"}, {"answer": "total"}),
        ("pope", {"id": 1, "sampling": "random", "answer": "yes"}, {"sampling": "popular"}),
        ("textvqa", {"id": 1, "dataset_name": "x", "answers": ["a"] * 10}, {"dataset_name": "y"}),
        (
            "mmmu-pro",
            {"id": "test_Art_1", "setting": "vision", "options": ["a"], "answer": "A"},
            {"setting": "standard"},
        ),
    ],
)
def test_rows_that_only_look_alike_are_no_repeats(name, one, other):
    scores = score(name, one | {"prediction": "yes"}, one | other | {"prediction": "yes"})
    assert (scores.counts["rows"], scores.counts["repeated_rows_left_out"]) == (2, 0)


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
@pytest.mark.parametrize(
    "row", [{}, {"prediction": None}, {"id": [], "answer": {}, "scores": "x"}, {"answers": [], "prediction": 1}]
)
def test_rows_that_do_not_fit_are_told_with_line_and_fields(name, row):
    with pytest.raises(RecordError, match=r"line 1: .*expected .*\(rows of "):
        score(name, row)


@pytest.mark.parametrize(
    ("name", "row", "figure", "value"),
    [
        ("docvqa", {"id": 1, "answers": "['x', 'y']", "prediction": "y"}, "anls_official", 1),
        ("ocrbench", {"type": "Regular Text Recognition", "answers": '["ab", "cd"]', "prediction": "cd"}, "score", 1),
        ("mmmu-pro", {"id": "test_Art_1", "options": "['a', 'b']", "answer": "B", "response": "B"}, "acc", 1),
        ("refcoco", {"answer": "[[0,0,500,500]]", "gt_bbox": [0, 0, 50, 50], "hw": [100, 100]}, "precision_at_1", 1),
        (
            "visualprocessbench",
            {
                "response": {"steps": ["a", "b"], "process_correctness": [1, -1]},
                "scores": [0.9, 0.1],
                "data_source": "x",
            },
            "macro_f1",
            100,
        ),
    ],
)
def test_fields_as_tables_and_releases_have_them(name, row, figure, value):
    assert score(name, row).figures[figure] == value


@pytest.mark.parametrize("given", [None, math.nan, ""])
def test_an_empty_cell_is_an_empty_answer(given):
    row = {"id": 1, "question": "q", "answers": ["nan"] * 10, "prediction": given}
    scores = score("textvqa", row)
    assert (scores.figures["acc_m4c_norm"], scores.counts["empty_predictions"]) == (0, 1)


def test_a_row_without_its_answer_is_the_one_that_is_named():
    raw = {"question_type": "multiple-choice", "answer": "A", "index2ans": {"A": "a", "B": "b"}}
    with pytest.raises(RecordError, match=r"line 2: no field 'response'"):
        score("mmmu", {**raw, "id": "validation_Art_1", "response": "A"}, {**raw, "id": "validation_Art_2"})
    with pytest.raises(
        RecordError, match=r"line 1: no field 'prediction' .*expected 'prediction' or 'response' or 'text'"
    ):
        score("pope", {"id": 1, "question": "q", "answer": "yes"})


def test_a_null_is_not_called_a_missing_field():
    with pytest.raises(RecordError, match=r"line 1: 'answer' is null; expected a value for 'answer' \(rows of blink"):
        score("blink", {"task": "x", "idx": "val_x_1", "answer": None, "prediction": "(A)"})


def test_unknown_benchmark():
    with pytest.raises(ConfigError, match=r"unknown benchmark 'mmbnch'; did you mean 'mmbench'\? \(benchmarks: mme, "):
        score("mmbnch")


def test_files(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('\ufeff{"id": 1}\r\n\n{"id": "\u2028"}\n', encoding="utf-8")
    assert [(row.line, row.data) for row in read_rows(path)] == [(1, {"id": 1}), (3, {"id": "\u2028"})]
    path.write_text('[\n{"id": 1}]')
    assert [row.data for row in read_rows(path)] == [{"id": 1}]
    for text, message in (
        ("", "holds no answers"),
        ('{"a": 1}\n{"a"', r"a.jsonl line 2 is no JSON \(Expecting"),
        ("3", r"a.jsonl line 1 is 3; expected a JSON object"),
        ("[1]", r"item 1 of the array is 1"),
        ("[" * 100_000, "no JSON"),
    ):
        path.write_text(text)
        with pytest.raises(RecordError, match=message):
            read_rows(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(RecordError, match=r"not UTF-8 .byte 0.; save it as UTF-8"):
        read_rows(path)
    with pytest.raises(RecordError, match="cannot be read"):
        read_rows(tmp_path)
    path.write_text(json.dumps({"id": 1}))
    with pytest.raises(RecordError, match=r"a.jsonl line 1: no field 'prediction'"):
        score_file("docvqa", path)
