"""``vedere score``: what goes to standard output, and what a user is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vedere.cli import main
from vedere.evals.benchmarks import SCORING_RULES_VERSION

CASES = Path(__file__).parents[1] / "evals" / "cases"


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    status = main(["score", *argv])
    out, err = capsys.readouterr()
    return status, out, err


def test_json_is_one_object_with_the_expected_keys(capsys):
    folder = CASES / "llava_wild_llava1.5_13b"
    status, out, err = run(capsys, "llava-wild", str(folder / "cases.jsonl"), "--json")
    figures = json.loads(out)
    assert (status, err, out.count("\n")) == (0, "", 1)
    assert set(figures) == {*json.loads((folder / "expected.json").read_text()), "scoring"}
    assert figures["run1"]["all"][0] == pytest.approx(72.8, abs=0.05)
    assert figures["scoring"] | {"counts": {}} == {
        "benchmark": "llava-wild",
        "rules": SCORING_RULES_VERSION,
        "counts": {},
    }
    assert figures["scoring"]["counts"]["rows"] == 180


def test_the_table_shows_the_same_figures(capsys):
    status, out, _ = run(capsys, "video-mme", str(CASES / "videomme_synthetic" / "cases.jsonl"))
    assert status == 0
    (line,) = [line for line in out.splitlines() if line.startswith("overall ")]
    assert line.split() == ["overall", "correct", "92", "answered", "155", "acc", "59.3548"]
    assert "unanswered" in out


def test_verdicts_are_written_a_row_each(tmp_path, capsys):
    path = tmp_path / "in.jsonl"
    rows = [{"id": n, "answer": "yes", "prediction": text} for n, text in enumerate(("Yes", "No", "Yes"))]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    status, _, err = run(capsys, "pope", str(path), "--verdicts", str(tmp_path / "out.jsonl"))
    assert status == 0
    assert "1 rows repeat an earlier question and are left out" in err
    verdicts = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert verdicts[1] == {"line": 2, "credit": 0.0, "extracted": "no"}
    assert len(verdicts) == 3


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("popes", "", "unknown benchmark 'popes'; did you mean 'pope'?"),
        ("pope", '{"id": 1}', "in.jsonl line 1: no field 'answer' (the row has 'id'); expected 'answer' or 'label'"),
        ("pope", '{"id": 1, "answer": "yes", "prediction": ""}\n{', "in.jsonl line 2 is no JSON"),
        ("mme", "\n\n", "holds no answers; expected one JSON object a line"),
    ],
)
def test_errors_name_line_and_expectation(tmp_path, capsys, name, text, message):
    path = tmp_path / "in.jsonl"
    path.write_text(text)
    status, out, err = run(capsys, name, str(path), "--json")
    assert status == 2
    assert message in err
    assert message in json.loads(out)["error"]["message"]
