"""``vedere eval`` and ``vedere score log``: what goes where, what a user is told, and a kill in the middle of a run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import small_benchmarks
from fake_endpoint import said, serve
from vedere.cli import main


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    status = main(list(argv))
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FAKE_API_KEY", "key")
    (tmp_path / "data").mkdir()
    return small_benchmarks.pope(tmp_path / "data")


def options(url: str, out: Path) -> list[str]:
    return ["--model", "openai-api/fake/small", "--base-url", url, "--out", str(out), "--retries", "0"]


def test_json_is_one_object_and_the_log_scores_the_same(capsys, data, tmp_path):
    with serve(lambda number, body: said("yes")) as endpoint:
        argv = ["eval", "pope", "--data", str(data), *options(endpoint.url, tmp_path / "out")]
        status, out, err = run(capsys, *argv, "--json")
    result = json.loads(out)
    assert (status, out.count("\n"), result["figures"]["acc"]) == (0, 1, 0.5)
    assert "4 of 4 questions" in err
    log = tmp_path / "out" / result["log"]
    status, again, _ = run(capsys, "score", "log", str(log), "--json")
    assert (status, json.loads(again)["figures"]) == (0, result["figures"])
    status, table, _ = run(capsys, "score", "log", str(log))
    assert "yes_ratio" in table
    assert "answered" in table


def test_tables_name_who_answered_and_where_everything_is(capsys, data, tmp_path):
    with serve(lambda number, body: said("no")) as endpoint:
        argv = ["eval", "pope", "--data", str(data), *options(endpoint.url, tmp_path / "out")]
        run(capsys, *argv)
        status, out, err = run(capsys, *argv)
    assert status == 0
    assert "4 answers were there already" in err
    assert "openai-api/fake/small" in out
    assert "prompts official" in out
    assert "inspect view --log-dir" in out


def test_unanswered_questions_are_exit_status_1(capsys, data, tmp_path):
    broken = ["thing 2"]

    def script(number: int, body: object) -> object:
        return (500, {}, b"broken") if any(text in json.dumps(body) for text in broken) else said("yes")

    with serve(script) as endpoint:
        argv = ["eval", "pope", "--data", str(data), *options(endpoint.url, tmp_path / "out"), "--connections", "1"]
        status, out, err = run(capsys, *argv, "--json")
        assert (status, json.loads(out)["counts"]["failed"]) == (1, 1)
        assert "1 of 4 questions have no answer" in err
        assert "Run the same command again to ask them" in err
        broken.clear()
        assert run(capsys, *argv, "--json")[0] == 0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["popo", "--data", "x"], "unknown benchmark 'popo'; did you mean 'pope'"),
        (["pope"], "where are the files of pope? Give its file or folder (--data PATH"),
        (["pope", "--data", "nowhere"], "nowhere does not exist; expected the benchmark's file"),
        (["pope", "--data", "x", "--model", "gpt-4o"], "model 'gpt-4o' is neither a shipped model nor a folder"),
        (["pope", "--data", "x", "--limit", "0"], "limit 0; expected at least 1"),
    ],
)
def test_what_cannot_run_is_one_message(argv, message, capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("VEDERE_BENCHMARKS", raising=False)
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, "eval", *argv, "--json")
    assert status == 2
    assert message in json.loads(out)["error"]["message"]
    assert message in err


def test_a_folder_of_benchmarks_stands_in_for_data(capsys, monkeypatch, tmp_path):
    (tmp_path / "pope").mkdir()
    small_benchmarks.pope(tmp_path / "pope")
    monkeypatch.setenv("VEDERE_BENCHMARKS", str(tmp_path))
    monkeypatch.setenv("FAKE_API_KEY", "key")
    with serve(lambda number, body: said("yes")) as endpoint:
        status, _, _ = run(capsys, "eval", "pope", *options(endpoint.url, tmp_path / "out"), "--limit", "2", "--json")
    assert status == 0


def listen_to_ctrl_c() -> None:
    """A process started in the background of a script ignores it, and so do its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_goes_on_and_asks_nothing_twice(ended_by, capsys, data, tmp_path):
    """kill -9 or Ctrl-C between two answers; the second start asks the rest."""
    out = tmp_path / "out"
    answers = out / "answers.jsonl"

    def script(number: int, body: object) -> object:
        if number == 2:
            time.sleep(30)
        return said(("yes", "no")[number % 2])

    with serve(script) as endpoint:
        argv = ["eval", "pope", "--data", str(data), *options(endpoint.url, out), "--connections", "1"]
        command = [sys.executable, "-m", "vedere", *argv, "--json"]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listen_to_ctrl_c
        )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and len(endpoint.asked) < 3:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(ended_by)
        shown, told = process.communicate(timeout=120)
        if ended_by == signal.SIGINT:
            assert (process.returncode, json.loads(shown)["error"]["kind"]) == (130, "KeyboardInterrupt")
            assert "the answers so far are kept" in told
        kept = [json.loads(line)["key"] for line in answers.read_text().splitlines()]
        assert len(kept) == 2
        before = len(endpoint.asked)
        status, text, _ = run(capsys, *argv, "--json")
        result = json.loads(text)
        assert (status, result["reused"], result["counts"]["answered"]) == (0, 2, 4)
        assert len(endpoint.asked) == before + 2
    keys = [json.loads(line)["key"] for line in answers.read_text().splitlines()]
    assert keys[:2] == kept
    assert len(set(keys)) == 4
