"""A benchmark asked of vedere-mini: real answers, real weights, a log that scores the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from inspect_ai.log import read_eval_log

import small_benchmarks
from vedere.evals.items import Settings
from vedere.evals.run import EvalConfig, evaluate, rescore


def test_mini_answers_a_small_benchmark(tmp_path: Path) -> None:
    """Questions in the wording that it was trained with; what it says depends on the picture."""
    rows = [
        {**small_benchmarks._choices(number, "Which colour is the circle, disc"), "category": "colour"}
        for number in range(2)
    ]
    data = small_benchmarks.table(tmp_path / "MMBench_small.tsv", rows)
    out = tmp_path / "out"
    config = EvalConfig(benchmark="mmbench", data=data, model="mini", out=out, settings=Settings(limit=4))
    result = evaluate(config)
    assert (result["complete"], result["counts"]["answered"]) == (True, 4)
    assert len(result["model"]["sha256"]) == 64
    (path,) = (out / "logs").glob("*.eval")
    answers = [sample.output.completion for sample in read_eval_log(str(path)).samples or []]
    assert all(answer.strip() for answer in answers)
    assert result["credit"]["mean"] == pytest.approx(rescore(path)["credit"]["mean"])
    again = evaluate(config)
    assert (again["reused"], again["figures"]) == (4, result["figures"])
