"""A model that says what a file says."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vedere.compose.prompts import SECOND, Brief
from vedere.compose.scripted import STEPS, ScriptedModel
from vedere.compose.steps import StreamingModel
from vedere.errors import ConfigError, VedereError

WRITE = SECOND.write(Brief(title="t"))


@given(st.text(max_size=60))
def test_pieces_join_to_the_answer(text):
    assert "".join(ScriptedModel({"write": text}).stream(WRITE)) == text


def test_answers_are_used_in_turn_and_the_last_one_again():
    model = ScriptedModel({"write": ["a", {"error": "gone"}, "b"]})
    assert isinstance(model, StreamingModel)
    assert model.answer(WRITE) == "a"
    with pytest.raises(VedereError, match=r"^gone$"):
        model.answer(WRITE)
    assert [model.answer(WRITE) for _ in range(3)] == ["b"] * 3


def test_steps_are_those_of_the_prompts():
    """A step that no prompt has could never be answered."""
    asked = [WRITE, SECOND.expand("x"), SECOND.rewrite("x"), SECOND.abbreviate("x"), SECOND.insert("a", "b", "c")]
    assert {prompt.step for prompt in asked} <= set(STEPS)


def test_a_file(tmp_path):
    path = tmp_path / "script.json"
    path.write_text(json.dumps({"write": "a b", "pace": 0}))
    assert list(ScriptedModel.load(path).stream(WRITE)) == ["a", " b"]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ({"wrte": "a"}, "no step 'wrte'; did you mean 'write'?"),
        ({"write": 1}, "the answers to 'write' are 1; expected a text"),
        ({"write": []}, "the answers to 'write' are []"),
        ({"write": [{"error": 1}]}, "expected a text"),
        ({"write": "a", "pace": -1}, "a pace of -1; expected seconds between two words, 0 to 10"),
        ({"write": "a", "pace": "fast"}, "a pace of 'fast'"),
        ([], "holds a list; expected an object"),
    ],
)
def test_bad_scripts_are_explained(tmp_path, script, message):
    path = tmp_path / "script.json"
    path.write_text(json.dumps(script))
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        ScriptedModel.load(path)
    assert str(path) in str(caught.value)


def test_no_script_and_no_answer(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        ScriptedModel.load(tmp_path / "none.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ConfigError, match="is no JSON"):
        ScriptedModel.load(tmp_path / "x.json")
    with pytest.raises(ConfigError, match="the script answers spot; add answers to 'write'"):
        ScriptedModel({"spot": "a"}).answer(WRITE)
