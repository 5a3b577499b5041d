"""Models behind an OpenAI-compatible endpoint: what is sent, time-outs, rate limits, errors, secrets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import small_benchmarks
from fake_endpoint import Endpoint, said, serve
from vedere.errors import VedereError
from vedere.evals.items import Settings
from vedere.evals.run import EvalConfig, evaluate

SECRET = "sk-secret-of-the-test"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between tries take no time; the key is in the environment."""

    async def at_once(seconds: float) -> None:
        return None

    monkeypatch.setattr("inspect_ai.model._retry._sleep", at_once)
    monkeypatch.setenv("FAKE_API_KEY", SECRET)


def run(endpoint: Endpoint, tmp_path: Path, **fields: Any) -> dict[str, Any]:
    data = tmp_path / "data"
    if not data.exists():
        data.mkdir()
        small_benchmarks.scienceqa(data)
    given: dict[str, Any] = {"retries": 3, "timeout": 30, **fields}
    config = EvalConfig(
        benchmark="scienceqa",
        data=data,
        model="openai-api/fake/small",
        base_url=endpoint.url,
        out=tmp_path / "out",
        settings=Settings(),
        **given,
    )
    return evaluate(config)


def test_pictures_texts_and_limits_are_sent_and_the_key_is_written_nowhere(tmp_path):
    with serve(lambda number, body: said("A")) as endpoint:
        result = run(endpoint, tmp_path)
    assert result["complete"]
    body = min(endpoint.asked, key=lambda one: json.dumps(one["messages"]))
    (message,) = body["messages"]
    kinds = [part["type"] for part in message["content"]]
    assert kinds == ["image_url", "text"]
    assert message["content"][1]["text"].startswith("Hint: Look.\nQuestion: Which colour is disc ")
    sent = {one["messages"][0]["content"][0]["image_url"]["url"] for one in endpoint.asked}
    assert sent == {f"data:image/png;base64,{small_benchmarks.encoded(n)}" for n in range(2)}
    assert (body["temperature"], body.get("max_completion_tokens", body.get("max_tokens"))) == (0.0, 128)
    assert {name.lower(): value for name, value in endpoint.headers[0].items()}["authorization"] == f"Bearer {SECRET}"
    for path in (tmp_path / "out").rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()
    assert result["model"]["endpoint"].startswith("127.0.0.1:")


def test_what_passes_is_asked_again(tmp_path):
    replies = [
        (429, {"Retry-After": "0"}, b'{"error": {"message": "slow down"}}'),
        (500, {}, b"oops"),
    ]

    def script(number: int, body: dict[str, Any]) -> Any:
        return replies[number] if number < len(replies) else said("A" if "disc 0" in json.dumps(body) else "B")

    with serve(script) as endpoint:
        result = run(endpoint, tmp_path, connections=1)
    assert (result["complete"], len(endpoint.asked), result["figures"]["acc"]) == (True, 4, 1.0)


def test_a_silent_endpoint_times_out_and_the_next_run_goes_on(tmp_path):
    answered: list[str] = []

    def script(number: int, body: dict[str, Any]) -> Any:
        if answered and "late" not in answered:
            return None  # silence
        answered.append("early" if not answered else "late")
        return said("A")

    with serve(script) as endpoint:
        first = run(endpoint, tmp_path, timeout=1, retries=1, connections=1)
        assert (first["complete"], first["counts"]["answered"], first["counts"]["failed"]) == (False, 1, 1)
        assert first["first_failure"].startswith("the endpoint did not answer in time (")
        assert "--timeout and --retries" in first["first_failure"]
        asked = len(endpoint.asked)
        answered.append("late")
        second = run(endpoint, tmp_path)
        assert (second["complete"], second["reused"], len(endpoint.asked)) == (True, 1, asked + 1)


def test_a_wrong_key_ends_the_run_with_what_the_endpoint_said(tmp_path):
    denied = (401, {}, b'{"error": {"message": "Incorrect API key provided"}}')
    with serve(lambda number, body: denied) as endpoint, pytest.raises(VedereError, match="Incorrect API key provided"):
        run(endpoint, tmp_path)
    assert len(endpoint.asked) == 2  # not again and again


@pytest.mark.parametrize(
    "text", ["", "z" * 100_000, "答案是A", "A\ud83d"], ids=["empty", "100 kB", "Chinese", "half a pair"]
)
def test_odd_answers_are_kept_as_they_are(text, tmp_path):
    with serve(lambda number, body: said(text)) as endpoint:
        result = run(endpoint, tmp_path)
        again = run(endpoint, tmp_path)
    assert (result["complete"], again["reused"], len(endpoint.asked)) == (True, 2, 2)
    assert again["figures"] == result["figures"]


def test_a_body_that_is_no_completion_is_a_failed_question(tmp_path):
    with (
        serve(lambda number, body: (200, {}, b'"hello"')) as endpoint,
        pytest.raises(VedereError, match="no item has an answer"),
    ):
        run(endpoint, tmp_path, retries=0)
