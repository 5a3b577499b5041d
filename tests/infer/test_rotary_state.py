"""Answers that grow past the length their rotary frequencies were made for: engine against a loop that spells the rule out."""

import dataclasses

import pytest
import torch

from vedere.errors import ConfigError, ContextError
from vedere.infer.cache import Cache
from vedere.infer.engine import Engine, Finished, Request
from vedere.infer.sampling import SamplingParams
from vedere.models.decoder import Decoder, DecoderConfig
from vedere.models.positions import rotary_table
from vedere.models.rope_scaling import RotaryState, frequencies, table_scale

DYNAMIC = DecoderConfig(
    hidden_size=32,
    ffn_size=24,
    layers=2,
    heads=4,
    kv_heads=1,
    head_dim=8,
    vocab_size=40,
    rope_theta=100.0,
    max_positions=16,
    rope_scaling="dynamic",
)
LONGROPE = dataclasses.replace(
    DYNAMIC,
    rope_scaling="longrope",
    max_positions=64,
    rope_original_positions=16,
    rope_short=(1.0, 1.0, 1.0, 1.0),
    rope_long=(1.0, 2.0, 4.0, 8.0),
)
PROMPTS = [torch.arange(10) % 40, torch.arange(21) * 3 % 40, torch.arange(15) * 7 % 40]


def decoder(config: DecoderConfig) -> Decoder:
    torch.manual_seed(3)
    built = Decoder(config).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3 if parameter.shape[0] < 40 else 1)
    return built


def by_hand(model: Decoder, ids: torch.Tensor, new: int, longest: float = 0) -> tuple[list[int], list[float], float]:
    """Greedy ids, their log-probabilities, and the longest length seen, with one table a step."""
    config, cache, found, logprobs = model.config, Cache(model.config), [], []
    positions = torch.arange(len(ids))
    for _ in range(new):
        length = float(positions[-1]) + 1
        longest = max(longest, length) if config.rope_scaling == "dynamic" else length
        table = rotary_table(
            positions, 8, config.rope_theta, torch.float32, frequencies(config, longest), table_scale(config)
        )
        model.rotary = lambda *_, table=table: table
        cache.reserve(1, int(length))
        window = cache.window(0, [len(ids)])
        with torch.inference_mode():
            logits = model.logits(model(model.embed(ids), positions, [0, len(ids)], cache=window)[-1])
        cache.commit(window)
        ids, positions = logits.argmax()[None], positions[-1:] + 1
        found.append(int(ids))
        logprobs.append(float(logits.log_softmax(-1).max()))
    del model.rotary
    return found, logprobs, longest


def requests(new: int) -> list[Request]:
    return [Request(ids=ids, sampling=SamplingParams(max_new_tokens=new)) for ids in PROMPTS]


def answers(engine: Engine, asked: list[Request]) -> list[Finished]:
    done = [event for event in engine.generate(asked) if isinstance(event, Finished)]
    return sorted(done, key=lambda event: event.request)


@pytest.mark.parametrize("config", [DYNAMIC, LONGROPE])
@pytest.mark.parametrize(("max_batch", "chunk"), [(1, 512), (3, 4), (2, 7)])
def test_a_request_grows_as_in_a_fresh_instance(config, max_batch, chunk):
    model = decoder(config)
    wanted = [by_hand(model, ids, 11) for ids in PROMPTS]
    engine = Engine(model, max_batch=max_batch, chunk=chunk)
    for _ in range(2):  # what was asked before does not matter
        found = answers(engine, requests(11))
        assert [list(event.ids) for event in found] == [ids for ids, _, _ in wanted]
        logprobs = torch.tensor([event.logprobs for event in found])
        torch.testing.assert_close(logprobs, torch.tensor([row for _, row, _ in wanted]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("config", [DYNAMIC, LONGROPE])
def test_keys_stay_as_they_were_rotated(config):
    """The rule matters: with one table for the whole answer, logits are others."""
    model = decoder(config)
    _, kept, _ = by_hand(model, PROMPTS[0], 11)
    ids = list(PROMPTS[0])
    anew = []
    with torch.inference_mode():
        for _ in range(11):
            everything = torch.tensor(ids)
            logits = model.logits(model(model.embed(everything), torch.arange(len(ids)), [0, len(ids)])[-1])
            anew.append(float(logits.log_softmax(-1).max()))
            ids.append(int(logits.argmax()))
    crossing = 16 - len(PROMPTS[0]) + 1
    assert kept[:crossing] == pytest.approx(anew[:crossing], abs=1e-5)
    assert kept[crossing:] != pytest.approx(anew[crossing:], abs=1e-5)


def test_an_instance_with_a_history_answers_by_it():
    model = decoder(DYNAMIC)
    state = RotaryState(DYNAMIC)
    engine = Engine(model, max_batch=1, history=state)
    longest = 0.0
    for ids, request in zip([*PROMPTS, PROMPTS[0]], [*requests(5), requests(5)[0]], strict=True):
        wanted, logprobs, longest = by_hand(model, ids, 5, longest)
        (found,) = answers(engine, [request])
        assert list(found.ids) == wanted
        assert found.logprobs == pytest.approx(logprobs, abs=1e-5)
        assert state.length == longest
    fresh = answers(Engine(model), requests(5))[0]
    assert fresh.logprobs != pytest.approx(found.logprobs, abs=1e-5)  # the last question was the first one


def test_a_shared_state_takes_the_longest_of_a_pass():
    model = decoder(DYNAMIC)
    engine = Engine(model, history=RotaryState(DYNAMIC))
    together = answers(engine, requests(1))
    for event, ids in zip(together, PROMPTS, strict=True):
        assert event.logprobs == pytest.approx(by_hand(model, ids, 1, 21)[1], abs=1e-5)


def test_limits_of_stretched_contexts():
    engine = Engine(decoder(DYNAMIC))
    assert engine.max_positions == 32
    with pytest.raises(ContextError, match="33 positions, but the model has 32"):
        engine.check(Request(ids=torch.arange(10), sampling=SamplingParams(max_new_tokens=23)))
    assert Engine(decoder(DYNAMIC), max_positions=100).max_positions == 100  # NTK has no end of its own
    for config in (LONGROPE, dataclasses.replace(DYNAMIC, v2pe=True)):
        with pytest.raises(ConfigError, match=f"at most the model's {config.max_positions} positions"):
            Engine(decoder(config), max_positions=100)
