"""The step of single tokens against the general pass of the decoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tiny_models import VOCABULARY, tiny_config
from vedere.infer.cache import Cache
from vedere.infer.engine import Engine, Request
from vedere.infer.fused_step import token_step
from vedere.infer.sampling import SamplingParams
from vedere.infer.token_step import TokenStep
from vedere.models.adapters import LoRA, attach, learn
from vedere.models.decoder import Decoder
from vedere.models.quantized import pack_weights


def decoder(dtype: torch.dtype = torch.float32, **changes: Any) -> Decoder:
    torch.manual_seed(0)
    plain = {"visual_ffn": False, "visual_attention": False}
    model = Decoder(tiny_config(**(plain | changes)).decoder)
    for name, weight in model.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(weight, mean=1.0, std=0.3)
    return model.to(dtype).eval()


@torch.inference_mode()
def steps(model: Decoder, prompts: list[int], call: Callable[..., torch.Tensor], tokens: int = 3) -> torch.Tensor:
    """Hidden states of a few new tokens after prompts of these lengths, ``[tokens, S, D]``."""
    cache = Cache(model.config, dtype=model.embed.weight.dtype, slots=len(prompts), capacity=64)
    for slot, length in enumerate(prompts):
        window = cache.window(slot, [length])
        model(model.embed(torch.arange(length) + slot), torch.arange(length), [0, length], cache=window)
        cache.commit(window)
    out = []
    for token in range(tokens):
        window = cache.window(0, [1] * len(prompts))
        positions = torch.tensor([length + token for length in prompts])
        ids = (positions * 7 + 3) % VOCABULARY
        lengths = [float(length + token + 1) for length in prompts]
        out.append(call(ids, positions, window, lengths))
        cache.commit(window)
    return torch.stack(out)


def generally(model: Decoder) -> Callable[..., torch.Tensor]:
    def call(ids: torch.Tensor, positions: torch.Tensor, window: Any, lengths: list[float]) -> torch.Tensor:
        return model(model.embed(ids), positions, range(len(ids) + 1), cache=window, lengths=lengths)

    return call


SHAPES: list[dict[str, Any]] = [
    {},
    {"visual_ffn": True, "visual_attention": True},
    {"qkv_bias": True, "out_bias": True, "ffn_bias": True},
    {"v2pe": True},
    {"rope_scaling": "dynamic", "max_positions": 8},
    {"partial_rank": 4},
    {"kv_heads": 4},
    {"qk_norm": True},
    {"moe_size": 3, "moe_active": 2},
]


@pytest.mark.parametrize("changes", SHAPES, ids=str)
@pytest.mark.parametrize("prompts", [[5], [9, 4, 17]], ids=str)
def test_it_is_the_general_pass(changes: dict[str, Any], prompts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    model = decoder(**changes)
    expected = steps(model, prompts, generally(model))
    step = TokenStep(model)
    with monkeypatch.context() as patch:  # the layers themselves must not be what answers
        for layer in model.layers:
            patch.setattr(layer, "forward", None)
        monkeypatched = steps_with_general_prompts(model, prompts, step, patch)
    torch.testing.assert_close(monkeypatched, expected, rtol=1e-4, atol=1e-5)


def steps_with_general_prompts(
    model: Decoder, prompts: list[int], step: TokenStep, patch: pytest.MonkeyPatch
) -> torch.Tensor:
    """Like `steps`, with layers that work while prompts are fed and not afterwards."""
    for layer in model.layers:
        patch.delattr(layer, "forward")

    def call(*arguments: Any) -> torch.Tensor:
        with pytest.MonkeyPatch.context() as inner:
            for layer in model.layers:
                inner.setattr(layer, "forward", None)
            return step(*arguments)

    return steps(model, prompts, call)


@pytest.mark.parametrize("form", ["stored", "bf16", "bf16-single", "int8", "int4"])
@pytest.mark.parametrize("prompts", [[5], [9, 4]], ids=str)
def test_with_every_form_of_the_weights(form: str, prompts: list[int]) -> None:
    model = decoder(torch.bfloat16, qkv_bias=True, hidden_size=64, ffn_size=96)
    pack_weights(model, form)  # type: ignore[arg-type]
    expected = steps(model, prompts, generally(model))
    got = steps(model, prompts, token_step(model))
    assert (got - expected).float().norm() < 0.02 * expected.float().norm()


@pytest.mark.parametrize("form", ["stored", "bf16", "bf16-single", "int8", "int4"])
def test_an_attached_adapter_is_not_forgotten(form: str) -> None:
    model = decoder(torch.bfloat16, hidden_size=64, ffn_size=96)
    attach(model, LoRA(rank=4, alpha=4.0))
    without = steps(model, [5], generally(model))  # the low-rank additions begin at zero
    torch.manual_seed(3)
    for parameter in learn(model, "lora"):
        torch.nn.init.normal_(parameter, std=0.3)
    pack_weights(model, form)  # type: ignore[arg-type]
    expected = steps(model, [5], generally(model))
    got = steps(model, [5], TokenStep(model))
    assert (got - expected).float().norm() < 0.02 * expected.float().norm()
    assert (without - expected).float().norm() > 0.1 * expected.float().norm()


def test_what_changes_between_calls_is_seen() -> None:
    model = decoder()
    engine = Engine(model)
    asked = [Request(ids=[1, 2, 3], sampling=SamplingParams(max_new_tokens=5))]

    def logprobs() -> list[float]:
        return [event.logprob for event in engine.generate(asked) if hasattr(event, "logprob")]

    before = logprobs()
    for layer in model.layers:  # another module in the place of the map
        linear = layer.ffn.text.down
        layer.ffn.text.down = torch.nn.Linear(linear.in_features, linear.out_features, bias=False)
    after = logprobs()
    assert len(before) == len(after) == 5
    assert before != after
