"""``vedere video-mme``: what each command prints and writes, and what a user is told."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from vedere.cli import main
from vedere.evals.items import Frames, Item, Settings
from vedere.evals.video_mme.dataset import VIDEO_MME

sys.path.append(str(Path(__file__).parents[1] / "evals" / "video_mme"))
import film_stand_ins


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    status = main(["video-mme", *map(str, argv)])
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return film_stand_ins.write_set(tmp_path_factory.mktemp("cli") / "set", clips=5)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    place = tmp_path_factory.mktemp("results")
    for name, seed, right in (("a", 1, 0.5), ("b", 2, 0.9)):
        lines = [json.dumps(vars(one)) for one in film_stand_ins.outcomes(12, seed, right)]
        (place / f"{name}.jsonl").write_text("\n".join(lines))
    return place


def test_check_lists_what_is_missing(capsys, folder):
    status, out, _ = run(capsys, "check", folder)
    assert status == 1
    assert "5 of 6 videos can be asked about" in out
    assert "1 videos are missing:\n  006" in out
    status, out, _ = run(capsys, "check", folder, "--videos", folder / "data", "--depth", "listed", "--json")
    found = json.loads(out)
    assert (status, found["missing"], found["usable"], found["comparable"]) == (1, ["006"], 5, False)
    assert found["without_subtitles"] == ["002", "004", "006"]


def test_table(capsys, results):
    status, out, _ = run(capsys, "table", f"frames={results / 'a.jsonl'}", f"frames+subtitles={results / 'b.jsonl'}")
    assert status == 0
    assert out.startswith("overall and by duration\nsetting")
    assert "by task type" in out
    status, out, _ = run(capsys, "table", results / "a.jsonl", "--json")
    assert json.loads(out)["frames"]["cells"]["all"]["overall"]["questions"] == 36


def test_table_by_combinations(capsys, results):
    status, out, _ = run(capsys, "table", results / "a.jsonl", "--by", "duration", "task_type")
    assert status == 0
    assert out.startswith("by duration and task type\nduration")
    status, out, _ = run(capsys, "table", results / "a.jsonl", "--by", "domain", "--json")
    assert json.loads(out)["head"] == ["domain", "questions", "frames"]


def test_canvas_writes_the_picture_that_a_model_is_given(capsys, folder, tmp_path):
    film, out = folder / "data" / f"{film_stand_ins.media_id(1)}.mp4", tmp_path / "canvas.png"
    status, text, _ = run(capsys, "canvas", film, "--frames", "4", "--out", out, "--json")
    assert (status, json.loads(text)) == (
        0,
        {"picture": str(out), "size": [2240, 560], "tiles": 4, "frames": [6, 18, 30, 43]},
    )
    one = Item(
        id="1",
        parts=(Frames(file=film), "?"),
        options={one: f"{one}. x" for one in "ABCD"},
        metadata={"video": "", "subtitles": ""},
    )
    given = VIDEO_MME.prompt(one, Settings(frames=4, frame_layout="canvas")).media[0].images()[0]
    assert Image.open(out).tobytes() == given.tobytes()
    status, text, _ = run(capsys, "canvas", film, "--frames", "100", "--out", out)
    assert text.startswith(f"{out}: 64 frames, ")
    status, _, err = run(capsys, "canvas", film, "--frame-rule", "midle", "--out", out)
    assert status == 2
    assert "rule 'midle'; did you mean 'middle'?" in err


def test_collect_writes_the_official_file(capsys, folder, tmp_path):
    answers = tmp_path / "answers.jsonl"
    lines = [{"question_id": row["question_id"], "response": "B"} for row in film_stand_ins.rows(5)][1:]
    answers.write_text("".join(json.dumps(line) + "\n" for line in lines))
    status, out, _ = run(capsys, "collect", folder, answers, "--out", tmp_path / "r.json", "--json")
    assert status == 0
    assert json.loads(out) == {"videos": 6, "missing": ["006"], "unanswered": 1, "repeated": 0}
    status, out, err = run(capsys, "table", tmp_path / "r.json")
    assert status == 0
    assert "frames: 1 videos are missing and not counted: 006" in err


def test_compare_writes_a_page(capsys, results, tmp_path):
    page = tmp_path / "page.html"
    named = (
        f"one:frames={results / 'a.jsonl'}",
        f"two:frames={results / 'b.jsonl'}",
        f"two:audio={results / 'a.jsonl'}",
    )
    status, out, _ = run(capsys, "compare", *named, "--out", page, "--title", "Ours", "--json")
    assert status == 0
    assert json.loads(out)["runs"] == ["one · frames", "two · frames", "two · audio"]
    assert "<title>Ours</title>" in page.read_text()


def test_certificates(capsys, folder, tmp_path):
    page, marks = tmp_path / "page.html", tmp_path / "marks.jsonl"
    status, out, err = run(capsys, "certificate", "--page", page, "--questions", folder, "--sample", "6")
    assert (status, out) == (0, f"{page}: 6 questions; open it in a browser\n")
    assert "do not pass it on" in err
    for who, end in (("a", 4), ("b", 6)):
        entry = {"question_id": "001-1", "annotator": who, "video_seconds": 40, "clips": [[2, end]]}
        marks.open("a").write(json.dumps(entry) + "\n")
    status, out, _ = run(capsys, "certificate", marks, "--questions", folder)
    assert status == 0
    (line,) = [line.split() for line in out.splitlines() if line.startswith("short")]
    assert line == ["short", "1", "40.0", "3.0", "3.0", "7.5", "%", "1.0", "26.0,", "28.8"]
    assert "1 pairs of annotators, mean overlap 0.50" in out
    status, out, _ = run(capsys, "certificate", marks, "--json")
    assert json.loads(out)["agreement"] == {"pairs": 1, "overlap": 0.5}


def test_balance_and_answerable(capsys, folder, results):
    status, out, _ = run(capsys, "balance", folder)
    assert "18 questions about 6 videos" in out
    assert status == 1
    status, out, _ = run(capsys, "balance", folder, "--json")
    assert json.loads(out)["questions"] == 18
    status, out, _ = run(capsys, "answerable", results / "a.jsonl", results / "b.jsonl")
    assert status == 0
    assert "2 runs, 36 questions: " in out
    assert "questions answered by at least 2 runs, to be revised" in out
    status, out, _ = run(capsys, "answerable", results / "a.jsonl", "--needed", "1", "--json")
    found = json.loads(out)
    assert len(found["revise"]) / 36 == pytest.approx(found["accuracy"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["chek"], "unknown command 'video-mme chek'; did you mean 'check'?"),
        (["table", "frames"], "'frames' is no file and names none; expected SETTING=FILE"),
        (["table"], "no result named; expected SETTING=FILE"),
        (["table", "frames=none.json"], "none.json cannot be read"),
        (["certificate"], "no annotations named; give JSONL files, or --page PAGE --questions FILE"),
        (["certificate", "--page", "x.html"], "--page needs --questions"),
        (["transcribe", ".", "--out", "x"], "no weights of a speech recogniser named"),
    ],
)
def test_mistakes_are_explained(capsys, monkeypatch, tmp_path, argv, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VEDERE_WHISPER", raising=False)
    if argv[0] == "transcribe":
        film_stand_ins.write_clip(tmp_path / "a.mp4", sound=True)
    status, _, err = run(capsys, *argv)
    assert status == 2
    assert message in err


def test_help_names_the_commands(capsys):
    status, out, _ = run(capsys, "--help")
    assert status == 0
    for name in (
        "check",
        "transcribe",
        "canvas",
        "collect",
        "table",
        "compare",
        "certificate",
        "balance",
        "answerable",
    ):
        assert f"\n  {name} " in out
