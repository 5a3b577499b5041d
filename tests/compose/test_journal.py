"""Answers that are kept: nothing is asked twice, a kill loses no answer, and another model is another matter."""

import json

import pytest
from composing import Memory, Script, picture
from hypothesis import given, settings
from hypothesis import strategies as st

from vedere.compose.journal import Journal
from vedere.compose.prompts import FIRST, Brief
from vedere.compose.scripted import ScriptedModel
from vedere.compose.steps import Draft, pipeline, run
from vedere.errors import ConfigError, VedereError

ANSWERS = {"write": "A lake.\nA bridge.", "spot": "<Seg0><Seg1>", "caption": ['lake"', 'bridge"'], "select": ["A", "B"]}
PICTURES = tuple(picture(f"p{number}", "lake bridge") for number in range(8))


def composed(model, path, identity="m"):
    journal = Journal(model, path, identity)
    return run(pipeline(journal, Memory(*PICTURES), FIRST), Draft.of(Brief(title="x"))), journal


def test_a_second_run_asks_nothing_and_gives_the_same(tmp_path):
    path = tmp_path / "deep" / "a.jsonl"
    first, journal = composed(Script(**ANSWERS), path)
    assert (journal.asked, journal.replayed) == (6, 0)
    silent = Script()
    again, journal = composed(silent, path)
    assert (journal.asked, journal.replayed, silent.prompts) == (0, 6, [])
    assert again == first
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert [line["step"] for line in lines] == ["write", "spot", "caption", "caption", "select", "select"]
    assert lines[0]["prompt"].startswith(" <|User|>:根据给定标题")
    assert lines[4]["pictures"] == ["p0", "p1", "p2", "p3"]


@settings(deadline=None, max_examples=25)  # every answer is flushed to the disk
@given(cut=st.integers(0, 3000))
def test_a_run_that_was_killed_anywhere_goes_on_to_the_same_article(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("journal")
    whole, _ = composed(Script(**ANSWERS), folder / "whole.jsonl")
    data = (folder / "whole.jsonl").read_bytes()
    (folder / "cut.jsonl").write_bytes(data[:cut])
    kept = data[:cut].count(b"\n")
    steps = ["write", "spot", "caption", "caption", "select", "select"]
    rest = {step: list(given)[steps[:kept].count(step) :] for step, given in {
        step: [answers] if isinstance(answers, str) else answers for step, answers in ANSWERS.items()
    }.items()}  # fmt: skip
    again, journal = composed(Script(**{step: given for step, given in rest.items() if given}), folder / "cut.jsonl")
    assert (again, journal.replayed, journal.asked) == (whole, kept, 6 - kept)
    assert (folder / "cut.jsonl").read_bytes() == data


def test_another_model_seed_or_picture_is_asked(tmp_path):
    path = tmp_path / "a.jsonl"
    composed(Script(**ANSWERS), path)
    _, other = composed(Script(**ANSWERS), path, identity="another")
    assert (other.asked, other.replayed) == (6, 0)


def test_the_same_question_again_is_asked_again(tmp_path):
    prompt = FIRST.write(Brief(title="x"))
    journal = Journal(Script(write=["one", "two"]), tmp_path / "a.jsonl")
    assert [journal.answer(prompt), journal.answer(prompt)] == ["one", "two"]
    again = Journal(Script(write="three"), tmp_path / "a.jsonl")
    assert [again.answer(prompt) for _ in range(3)] == ["one", "two", "three"]


def test_pieces_come_through_and_an_error_is_no_answer(tmp_path):
    prompt = FIRST.write(Brief(title="x"))
    journal = Journal(ScriptedModel({"write": ["A calm lake.", {"error": "broken"}]}), tmp_path / "a.jsonl")
    assert len(list(journal.stream(prompt))) == 3
    with pytest.raises(VedereError, match="broken"):
        journal.answer(prompt)
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("line", [b"{}", b"text", b"[1]", b'{"key": "x"}'])
def test_a_file_that_is_no_journal_is_refused_and_kept(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_bytes(line + b"\n")
    with pytest.raises(ConfigError, match=r"a\.jsonl, line 1: no entry of a journal; remove the file"):
        Journal(Script(), path)
    assert path.read_bytes() == line + b"\n"


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        Journal(Script(write="x"), tmp_path / "file" / "a.jsonl").answer(FIRST.write(Brief(title="x")))
