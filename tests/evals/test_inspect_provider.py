"""Local models behind Inspect: the answers of a session, batched, with errors that concern one question alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    ContentImage,
    ContentText,
    GenerateConfig,
    get_model,
)

import small_benchmarks
import tiny_internvl
import vedere
from vedere.errors import ConfigError, MediaError, PromptError
from vedere.evals.inspect_provider import VedereAPI
from vedere.evals.items import Frames, Picture, Prompt, Settings
from vedere.evals.run import EvalConfig, evaluate, rescore
from vedere.models.delta import tensors_sha256

FEW = GenerateConfig(max_tokens=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return tiny_internvl.folder(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def api(folder: Path) -> VedereAPI:
    return VedereAPI(str(folder), batch=3)


def together(api: VedereAPI, prompts: list[Prompt]) -> list[Any]:
    """Answers, or what was raised, of prompts that are asked at once."""

    async def ask() -> list[Any]:
        calls = [api.generate_prompt(prompt, FEW) for prompt in prompts]
        return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(ask())


def prompt(number: int, **fields: Any) -> Prompt:
    return Prompt(parts=(Picture(source=small_benchmarks.picture(number)), f"Disc {number}?"), **fields)


def test_answers_are_those_of_a_session_however_they_are_batched(api, folder):
    session = vedere.load(folder)
    prompts = [prompt(number) for number in range(7)]
    alone = [session.chat(f"Disc {n}?", images=[small_benchmarks.picture(n)], max_new_tokens=6).text for n in range(7)]
    found = together(api, prompts)
    assert [one.completion for one in found] == alone
    assert found[0].usage.output_tokens == 6
    assert found[0].stop_reason == "max_tokens"


def test_a_question_that_cannot_be_asked_does_not_harm_the_others(api):
    broken = Prompt(parts=(Picture(source=b"no picture"), "What?"))
    long = Prompt(parts=("word " * 5000,))
    first, second, third, fourth = together(api, [prompt(1), broken, long, prompt(2)])
    assert isinstance(second, MediaError)
    assert "positions" in str(third)
    assert first.completion == together(api, [prompt(1)])[0].completion
    assert fourth.completion == together(api, [prompt(2)])[0].completion


def test_the_beginning_of_an_answer_and_the_limit_of_tiles_reach_the_model(api):
    plain, begun, few = together(
        api,
        [
            Prompt(parts=("Say",)),
            Prompt(parts=("Say",), prefill="The answer is"),
            Prompt(parts=(Picture(source=small_benchmarks.picture(1, side=200)), "Say"), max_tiles=1),
        ],
    )
    assert begun.usage.input_tokens > plain.usage.input_tokens
    (many,) = together(api, [Prompt(parts=(Picture(source=small_benchmarks.picture(1, side=200)), "Say"))])
    assert few.usage.input_tokens <= many.usage.input_tokens


def test_frames_are_a_video_for_a_local_model(api, folder):
    film = Path(__file__).parents[2] / "examples" / "square.mp4"
    (found,) = together(api, [Prompt(parts=(Frames(file=film, indices=(0, 4, 8)), "What happens?"))])
    session = vedere.load(folder)
    medium = session.prompts.frames(Frames(file=film, indices=(0, 4, 8)).images(), "film")
    assert found.completion == session.chat("What happens?", videos=[medium], max_new_tokens=6).text


def test_any_task_of_inspect_can_ask_with_pictures_history_and_system(api, folder):
    data = f"data:image/png;base64,{small_benchmarks.encoded(1)}"
    messages = [
        ChatMessageSystem(content="Be short."),
        ChatMessageUser(content=[ContentImage(image=data), ContentText(text="First?")]),
        ChatMessageAssistant(content="One."),
        ChatMessageUser(content="Second?"),
    ]
    output = asyncio.run(api.generate(messages, [], "none", FEW))
    session = vedere.load(folder)
    history = [
        vedere.infer.session.Exchange(question="<image>\nFirst?", answer="One.", images=[small_benchmarks.picture(1)])
    ]
    expected = session.chat("Second?", history=history, system="Be short.", max_new_tokens=6)
    assert output.completion == expected.text


@pytest.mark.parametrize(
    ("messages", "config", "message"),
    [
        ([ChatMessageAssistant(content="a")], FEW, "the conversation's roles are none; expected user and assistant"),
        (
            [ChatMessageUser(content=[ContentImage(image="https://example.org/a.png")])],
            FEW,
            r"a picture begins with 'https://example.org/a.png' .*expected a data URL",
        ),
        (
            [ChatMessageUser(content="q")],
            GenerateConfig(stop_seqs=["x"]),
            "take neither stop sequences nor several choices",
        ),
    ],
)
def test_what_local_models_do_not_have_is_refused(messages, config, message, api):
    with pytest.raises(PromptError, match=message):
        asyncio.run(api.generate(messages, [], "none", config))


def test_the_hash_is_that_of_the_weights(api, folder):
    assert asyncio.run(api.sha256()) == tensors_sha256(vedere.load(folder).model.state_dict())


def test_a_model_that_is_not_there_is_named_for_every_question(tmp_path):
    missing = VedereAPI(str(tmp_path / "nowhere"))
    errors = together(missing, [prompt(1), prompt(2)])
    assert all(isinstance(one, ConfigError) and "nowhere' is neither a folder" in str(one) for one in errors)


def test_the_provider_is_registered(folder):
    model = get_model(f"vedere/{folder}", memoize=False)
    assert isinstance(model.api, VedereAPI)


def test_a_benchmark_runs_on_a_local_folder(folder, tmp_path):
    (tmp_path / "data").mkdir()
    data = small_benchmarks.ccbench(tmp_path / "data")
    config = EvalConfig(
        benchmark="ccbench", data=data, model=str(folder), out=tmp_path / "out", settings=Settings(prompts="xcomposer")
    )
    result = evaluate(config)
    assert (result["complete"], result["counts"]["answered"]) == (True, 8)
    assert result["model"]["sha256"] == tensors_sha256(vedere.load(folder).model.state_dict())
    (log,) = (tmp_path / "out" / "logs").glob("*.eval")
    assert rescore(log)["figures"] == result["figures"]
