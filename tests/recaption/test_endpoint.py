"""An endpoint that misbehaves: what passes is tried again, what does not is told, the key stays secret."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from typing import Any

import pytest
from PIL import Image

from fake_endpoint import Script, said, serve
from vedere.errors import ConfigError
from vedere.recaption import endpoint as endpoints
from vedere.recaption.captioner import Answer, AnswerConfig, Asked
from vedere.recaption.endpoint import EndpointCaptioner, EndpointConfig, Pace


def questions(count: int) -> list[Asked]:
    image = Image.new("RGB", (40, 30), (200, 30, 30))
    return [Asked(name=f"{n}.png", image=image, prompt=f"What is this? {n}", seed=n) for n in range(count)]


def ask(script: Script, count: int = 1, **changes: Any) -> tuple[dict[str, Answer], Any, EndpointCaptioner]:
    with serve(script) as endpoint:
        settings = {"first_wait": 0.01, "longest_wait": 0.02, "retries": 3, "timeout": 5.0} | changes
        captioner = EndpointCaptioner(EndpointConfig(url=endpoint.url, model="seer", **settings), AnswerConfig())
        return {asked.name: answer for asked, answer in captioner.answers(questions(count))}, endpoint, captioner


def test_a_question_goes_out_with_its_picture_and_comes_back() -> None:
    answers, endpoint, _ = ask(lambda *_: said("a red square"))
    assert answers == {"0.png": Answer(text="a red square")}
    (body,) = endpoint.asked
    picture, text = body["messages"][0]["content"]
    assert text == {"type": "text", "text": "What is this? 0"}
    data = base64.b64decode(picture["image_url"]["url"].removeprefix("data:image/jpeg;base64,"))
    assert Image.open(io.BytesIO(data)).size == (40, 30)
    assert (body["model"], body["seed"], body["temperature"], body["max_tokens"]) == ("seer", 0, 0.0, 128)


@pytest.mark.parametrize(
    "bad",
    [
        (429, {"Retry-After": "0"}, b"slow down"),
        (429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, b""),
        (500, {}, b"oops"),
        (503, {}, b""),
        (200, {}, b"<html>garbage"),
        (200, {}, b"\xff\xfe"),
        (200, {}, json.dumps({"choices": []}).encode()),
        (200, {}, json.dumps({"choices": [{"message": {"content": 7}}]}).encode()),
        (200, {}, b"[" * 100_000),
        (200, {"Content-Length": "50"}, b"cut"),
    ],
    ids=lambda bad: f"{bad[0]}-{bad[2][:6]!r}",
)
def test_what_passes_is_tried_again(bad: Any) -> None:
    def script(number: int, body: dict[str, Any]) -> Any:
        return bad if number < 2 else said("a red square")

    answers, endpoint, captioner = ask(script, timeout=0.3)
    assert answers["0.png"].text == "a red square"
    assert len(endpoint.asked) == 3
    assert captioner.retried == 2
    assert endpoint.asked[0] == endpoint.asked[2]  # the same seed and picture


def test_silence_is_a_time_out_and_tried_again() -> None:
    answers, endpoint, _ = ask(lambda number, _: said("late") if number else None, timeout=0.2)
    assert answers["0.png"].text == "late"
    assert len(endpoint.asked) == 2


def test_retries_end_and_others_go_on() -> None:
    def script(number: int, body: dict[str, Any]) -> Any:
        text = body["messages"][0]["content"][1]["text"]
        return (500, {}, b"broken") if text.endswith("1") else said("fine")

    answers, endpoint, _ = ask(script, 3)
    assert [answers[f"{n}.png"].text for n in (0, 2)] == ["fine", "fine"]
    assert answers["1.png"].error == "status 500: broken, after 4 tries"
    assert len(endpoint.asked) == 6


def test_a_picture_that_is_refused_is_not_tried_again() -> None:
    answers, endpoint, _ = ask(lambda *_: (400, {}, b"bad picture"))
    assert answers["0.png"].error == "refused with status 400: bad picture"
    assert len(endpoint.asked) == 1


def test_settings_that_a_model_does_not_take_are_left_out_of_all_further_questions() -> None:
    """Models that reason know the limit by another name and have one temperature; some servers know no seed."""

    def choosy(_: int, body: dict[str, Any]) -> Any:
        for name in ("seed", "max_tokens", "temperature"):
            if name in body:
                text = f"Unsupported parameter: '{name}' is not supported with this model."
                return 400, {}, json.dumps({"error": {"message": text}}).encode()
        return said(str(body["max_completion_tokens"]))

    answers, endpoint, captioner = ask(choosy, 4, concurrency=1)
    assert [answer.text for answer in answers.values()] == ["128"] * 4
    assert captioner.retried == 0
    assert len(endpoint.asked) == 3 + 4  # each setting is refused once
    assert set(endpoint.asked[-1]) == {"model", "messages", "max_completion_tokens"}
    several, endpoint, _ = ask(choosy, 8, concurrency=4)
    assert {answer.text for answer in several.values()} == {"128"}


def test_another_refusal_that_names_a_setting_is_told() -> None:
    def stubborn(*_: Any) -> Any:
        return 400, {}, b"the value of 'max_completion_tokens' is not supported"

    answers, endpoint, _ = ask(stubborn)
    assert answers["0.png"].error.startswith("refused with status 400: the value of 'max_completion_tokens'")
    assert len(endpoint.asked) == 1


def test_refusals_lengths_and_parts_are_understood() -> None:
    parts = [{"type": "text", "text": "a red "}, {"type": "text", "text": "square \ud800"}]
    replies = [
        said("", message={"content": None, "refusal": "I can't help with that."}),
        said("a red", finish_reason="length"),
        said("", message={"content": parts}),
    ]
    answers, _, _ = ask(lambda number, _: replies[number], 3, concurrency=1)
    assert answers["0.png"].text == "I can't help with that."
    assert not answers["1.png"].complete
    assert answers["2.png"].text == "a red square ?"


def test_a_wrong_key_ends_the_work_and_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEER_KEY", "sk-secret")
    with pytest.raises(ConfigError, match="status 401") as caught:
        ask(lambda *_: (401, {}, b"wrong key sk-secret"), 50, key_variable="SEER_KEY")
    assert "is the key in SEER_KEY right?" in str(caught.value)
    assert "sk-secret" not in str(caught.value)
    monkeypatch.delenv("SEER_KEY")
    with pytest.raises(ConfigError, match="it is not set"):
        ask(lambda *_: (401, {}, b"no key"), key_variable="SEER_KEY")
    with pytest.raises(ConfigError, match="are URL and model right"):
        ask(lambda *_: (404, {}, b"no such model"))


def test_the_key_comes_from_the_environment_and_only_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEER_KEY", "sk-secret")
    _, endpoint, captioner = ask(lambda *_: said("x"), key_variable="SEER_KEY")
    assert endpoint.headers[0]["Authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in json.dumps(captioner.identity)
    monkeypatch.delenv("SEER_KEY")
    _, endpoint, _ = ask(lambda *_: said("x"), key_variable="SEER_KEY")
    assert "Authorization" not in endpoint.headers[0]
    for url in ("http://me:hunter2@host/v1", "https://host/v1?key=hunter2"):
        with pytest.raises(ConfigError, match="put the key into an environment variable") as caught:
            EndpointConfig(url=url, model="seer")
        assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError, match="expected a URL such as"):
        EndpointConfig(url="host/v1", model="seer")


def test_no_more_are_on_their_way_than_asked_for_and_what_came_before_the_end_is_kept() -> None:
    gate = threading.Barrier(3, timeout=5)

    def script(number: int, body: dict[str, Any]) -> Any:
        if number < 3:
            gate.wait()  # three are really there at once
        if number == 3:
            return (403, {}, b"no more")
        time.sleep(0.02)
        return said("fine")

    came = []
    with serve(script) as endpoint:
        captioner = EndpointCaptioner(EndpointConfig(url=endpoint.url, model="seer", concurrency=3))
        with pytest.raises(ConfigError, match="status 403"):
            came.extend(captioner.answers(questions(30)))
    assert endpoint.most == 3
    assert len(endpoint.asked) < 10

    with serve(lambda *_: said("fine")) as endpoint:
        captioner = EndpointCaptioner(EndpointConfig(url=endpoint.url, model="seer", concurrency=3))
        assert len(list(captioner.answers(questions(12)))) == 12
    assert endpoint.most <= 3


def test_starts_are_spaced_and_held_back_together() -> None:
    pace = Pace(per_minute=60)
    assert [pace.start(100.0) for _ in range(3)] == [0.0, 1.0, 2.0]
    pace.hold(110.0)
    assert pace.start(100.0) == 10.0
    assert pace.start(200.0) == 0.0
    assert [Pace(0).start(5.0) for _ in range(3)] == [0.0] * 3
    _, endpoint, _ = ask(lambda *_: said("x"), 4, per_minute=1200)
    gaps = [after - before for before, after in zip(endpoint.times, endpoint.times[1:], strict=False)]
    assert endpoint.times[-1] - endpoint.times[0] > 0.13  # three gaps of 0.05 s
    assert len(gaps) == 3


def test_retry_after_is_heeded() -> None:
    def script(number: int, body: dict[str, Any]) -> Any:
        return said("x") if number else (429, {"Retry-After": "0.3"}, b"")

    _, endpoint, _ = ask(script)
    assert endpoint.times[1] - endpoint.times[0] >= 0.29


def test_ctrl_c_ends_waits_at_once_and_loses_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """One question waits for its next try, one is being answered: the first is given up, the second comes."""
    whole, calls = endpoints.wait, []

    def interrupted(*given: Any, **more: Any) -> Any:
        calls.append(given)
        if len(calls) == 1:
            time.sleep(0.3)
            raise KeyboardInterrupt
        return whole(*given, **more)

    def script(number: int, body: dict[str, Any]) -> Any:
        if body["seed"] == 0:
            return (503, {}, b"")
        time.sleep(0.6)
        return said("fine")

    monkeypatch.setattr(endpoints, "wait", interrupted)
    came: list[tuple[Asked, Answer]] = []
    with serve(script) as endpoint:
        config = EndpointConfig(url=endpoint.url, model="seer", concurrency=2, first_wait=60.0, longest_wait=60.0)
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            came.extend(EndpointCaptioner(config).answers(questions(20)))
    assert [(asked.name, answer.text) for asked, answer in came] == [("1.png", "fine")]
    assert time.monotonic() - begun < 20
