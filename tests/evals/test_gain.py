"""Multi-modal gain and leakage: the definitions, what cannot be compared, runs without pictures, the command."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import small_benchmarks
from scripted import SCRIPT, run, start
from vedere.cli import main
from vedere.errors import ConfigError, RecordError
from vedere.evals.gain import Credits, credits_of, gain
from vedere.evals.items import Settings

RIGHTS = st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=30)


def credits(rights, source="a.jsonl") -> Credits:
    values = {str(number): float(one) for number, one in enumerate(rights)}
    return Credits(benchmark="mmstar", source=source, values=values, groups={name: name for name in values})


@given(RIGHTS)
def test_gain_and_leakage_are_differences_of_scores(rows):
    seen, blind, base = (credits(column) for column in zip(*rows, strict=True))
    found = gain(seen, blind, base)
    scores = [sum(one.values.values()) / len(rows) for one in (seen, blind, base)]
    assert [found[name] for name in ("with_pictures", "without_pictures", "text_only_base")] == pytest.approx(scores)
    assert found["multimodal_gain"] == pytest.approx(scores[0] - scores[1])
    assert found["leakage"] == pytest.approx(max(0, scores[1] - scores[2]))
    assert "leakage" not in gain(seen, blind)


@given(RIGHTS)
def test_pictures_that_change_nothing_give_no_gain_and_no_error(rows):
    seen, *_ = (credits(column) for column in zip(*rows, strict=True))
    found = gain(seen, seen)
    assert (found["multimodal_gain"], found["gain_standard_error"]) == (0, 0)


def test_other_questions_or_benchmarks_are_refused():
    three, two = credits([1, 0, 1]), credits([1, 0], "b.jsonl")
    with pytest.raises(
        RecordError, match=r"a.jsonl and b.jsonl are not about the same questions \(1 are in one .* as '2'"
    ):
        gain(three, two)
    with pytest.raises(RecordError, match=r"b.jsonl is of pope, a.jsonl of mmstar; expected runs of one benchmark"):
        gain(credits([1, 0]), replace(two, benchmark="pope"))


def rows(*given: str) -> list[dict]:
    asked = {"question": "Which?\nOptions: A: red, B: blue", "answer": "A", "category": "math"}
    return [{"index": number, **asked, "prediction": one} for number, one in enumerate(given)]


def test_the_command_compares_files(tmp_path, capsys):
    for name, found in (("seen", "AAAB"), ("blind", "ABAB"), ("base", "BBAB")):
        small_benchmarks.lines(tmp_path / f"{name}.jsonl", rows(*found))
    argv = ["score", "mmstar", str(tmp_path / "seen.jsonl"), "--blind", str(tmp_path / "blind.jsonl")]
    assert main([*argv, "--base", str(tmp_path / "base.jsonl"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["acc"] == found["gain"]["with_pictures"] == 0.75
    assert (found["gain"]["multimodal_gain"], found["gain"]["leakage"], found["gain"]["n"]) == (0.25, 0.25, 4)
    assert main(argv) == 0
    assert "gain · multimodal_gain" in capsys.readouterr().out
    assert main([*argv[:3], "--base", str(tmp_path / "base.jsonl")]) != 0
    assert "--base is compared with --blind; give both" in capsys.readouterr().err


def test_a_blind_run_shows_no_picture_and_its_log_is_compared(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    data = small_benchmarks.mmstar(tmp_path / "data")
    right = iter("ABC")
    start({"model": lambda text, messages: next(right)})
    seen = run("mmstar", data, tmp_path / "seen")
    start({"model": lambda text, messages: "A"})
    blind = run("mmstar", data, tmp_path / "blind", settings=Settings(blind=True))
    for _, text, messages in SCRIPT.asked:
        assert "Which colour" in text
        assert "image" not in {getattr(part, "type", "") for message in messages for part in message.content}
    logs = [str(tmp_path / name / one["log"]) for name, one in (("seen", seen), ("blind", blind))]
    assert main(["score", "log", logs[0], "--blind", logs[1], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["figures"]["gain"]
    assert found["multimodal_gain"] == pytest.approx(seen["figures"]["acc"] - blind["figures"]["acc"])
    assert found["without_pictures"] == pytest.approx(1 / 3)


def test_what_gives_no_credit_or_has_words_of_its_own_is_refused(tmp_path):
    small_benchmarks.lines(tmp_path / "a.jsonl", [{"split": "random", "TP": 1, "FP": 0, "TN": 1, "FN": 0}])
    with pytest.raises(RecordError, match="pope gives no credit for each row"):
        credits_of(tmp_path / "a.jsonl", "pope")
    with pytest.raises(ConfigError, match="open-images has words of its own for that; give --prompts blind in place"):
        run("open-images", tmp_path, tmp_path / "out", settings=Settings(blind=True))
