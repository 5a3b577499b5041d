"""Every benchmark end to end on small data with a scripted model: figures, resuming, logs, re-scoring."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import small_benchmarks
from scripted import run, start

from vedere.evals.items import Settings
from vedere.evals.records import Row
from vedere.evals.run import rescore
from vedere.evals.suites import SUITES, suite
from vedere.evals.summary import Asked, flat, summarise

JUDGED = ("mmvet", "llava-wild")


def oracle(name: str, data: Path) -> dict[str, str]:
    """Text of a prompt -> the right answer."""
    benchmark, settings = suite(name), Settings()
    found: dict[str, str] = {}
    for item in benchmark.load(data, settings):
        text = benchmark.prompt(item, settings).text.replace("<image>", "")
        found[text] = small_benchmarks.perfect(name, item.target, text)
    return found


def figure(result: dict[str, Any], name: str) -> float:
    return dict(flat(result["figures"]))[name]


def made(name: str, folder: Path) -> Path:
    folder.mkdir()
    return small_benchmarks.MAKERS[name](folder)


def logs(out: Path) -> list[Path]:
    return sorted((out / "logs").glob("*.eval"))


def judge_says(name: str) -> Any:
    return lambda text, messages: "1.0" if name == "mmvet" else "8 8\nEqual."


def test_every_benchmark_has_small_data():
    assert set(small_benchmarks.MAKERS) == set(small_benchmarks.BEST)
    assert set(small_benchmarks.MAKERS) <= set(SUITES)


@pytest.mark.parametrize("name", list(small_benchmarks.MAKERS))
def test_right_answers_get_everything_and_the_log_scores_the_same(name, tmp_path):
    data, judge = made(name, tmp_path / "data"), "scripted/judge" if name in JUDGED else ""
    right = oracle(name, data)
    start({"model": lambda text, messages: right[text.replace("<image>", "")], "judge": judge_says(name)})
    result = run(name, data, tmp_path / "out", judge=judge)
    key, best = small_benchmarks.BEST[name]
    assert figure(result, key) == pytest.approx(best, abs=1e-9)
    assert result["complete"]
    assert result["counts"]["answered"] == result["counts"]["items"] == len(suite(name).load(data, Settings()))
    (log,) = logs(tmp_path / "out")
    again = rescore(log)
    assert (again["figures"], again["counts"], again["credit"]) == (
        result["figures"],
        result["counts"],
        result["credit"],
    )
    assert json.loads((tmp_path / "out" / "result.json").read_text())["figures"] == result["figures"]
    assert (again["judge"], again["prompts"]) == (judge, "official")


@pytest.mark.parametrize("name", [name for name in small_benchmarks.MAKERS if name not in JUDGED])
@pytest.mark.parametrize("answer", ["~", "", "z" * 100_000, "无法回答"], ids=["sign", "nothing", "100 kB", "Chinese"])
def test_senseless_answers_get_nothing(name, answer, tmp_path):
    benchmark = suite(name)
    items = benchmark.load(made(name, tmp_path / "data"), Settings())
    records = [{**item.record, benchmark.answer_field: answer} for item in items]
    result = summarise(benchmark, [Asked(id=item.id, record=one) for item, one in zip(items, records, strict=True)])
    key, _ = small_benchmarks.BEST[name]
    floor = {"pope": 2 / 3, "mathvista": 50.0, "visualprocessbench": 100 / 3}  # what a rule makes of nonsense
    assert figure(result, key) <= floor.get(name, 0.0) + 1e-9
    assert result["counts"]["answered"] == len(items)
    for record in records:
        benchmark.verdict(Row(1, record))
