"""The step whose layers are compiled, against the general pass: nearer to float32, for all shapes, slots and lengths."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
from test_token_step import decoder, generally, steps

from vedere.infer.engine import Engine, Request
from vedere.infer.fused_step import FusedStep, compile_step, token_step
from vedere.infer.sampling import SamplingParams
from vedere.infer.token_step import TokenStep
from vedere.models.adapters import LoRA, attach
from vedere.models.decoder import Decoder
from vedere.models.quantized import pack_weights
from vedere.models.row_forms import FEW, use_threads

pytest.importorskip("numba")
use_threads()  # numba's threads start outside of what is pretended below

WIDE = {"hidden_size": 64, "ffn_size": 96}
SHAPES: list[dict[str, Any]] = [
    {},
    {"visual_ffn": True, "visual_attention": True},
    {"qkv_bias": True, "out_bias": True, "ffn_bias": True},
    {"v2pe": True},
    {"rope_scaling": "dynamic", "max_positions": 8},
    {"kv_heads": 1},
    {"kv_heads": 4},
    {"qk_norm": True},
]


def fused(model: Decoder, form: str = "bf16-single") -> FusedStep:
    pack_weights(model, form)  # type: ignore[arg-type]
    step = token_step(model)
    assert isinstance(step, FusedStep)
    return step


def error(got: torch.Tensor, exact: torch.Tensor) -> float:
    return float((got.float() - exact).norm() / exact.norm())


@pytest.mark.parametrize("changes", SHAPES, ids=str)
@pytest.mark.parametrize("prompts", [[5], [30, 4, 17]], ids=str)
def test_it_is_nearer_to_float32_than_the_general_pass(changes: dict[str, Any], prompts: list[int]) -> None:
    model = decoder(torch.bfloat16, **WIDE, **changes)
    wide = decoder(torch.float32, **WIDE, **changes)
    wide.load_state_dict({name: value.float() for name, value in model.state_dict().items()})
    exact, general = steps(wide, prompts, generally(wide)), steps(model, prompts, generally(model))
    got = steps(model, prompts, fused(model))
    assert error(got, exact) < max(error(general, exact), 0.004)
    assert 0 < error(general, exact) < 0.05


@pytest.mark.parametrize("form", ["bf16-single", "int8", "int4"])
@pytest.mark.parametrize("threads", [1, 3])
def test_answers_do_not_depend_on_who_is_beside_them_nor_on_threads(form: str, threads: int) -> None:
    model = decoder(torch.bfloat16, **WIDE)
    step = fused(model, form)
    together = steps(model, [9, 60, 4], step, tokens=4)
    with mock.patch("torch.get_num_threads", return_value=threads):
        alone = steps(model, [9], step, tokens=4)
    assert error(alone[:, 0], together[:, 0].float()) < 0.004


def test_more_answers_than_it_takes_go_the_general_way() -> None:
    model = decoder(torch.bfloat16, **WIDE)
    step = fused(model)
    prompts = [3 + n for n in range(FEW + 1)]
    expected = steps(model, prompts, generally(model))
    assert error(steps(model, prompts, step), expected.float()) < 0.02


def test_it_is_not_for_what_has_more_than_maps() -> None:
    mixture = decoder(torch.bfloat16, **WIDE, moe_size=3, moe_active=2)
    assert isinstance(token_step(pack_weights(mixture, "int8")), TokenStep)  # type: ignore[arg-type]
    adapted = decoder(torch.bfloat16, **WIDE)
    attach(adapted, LoRA(rank=4, alpha=4.0))
    assert isinstance(token_step(pack_weights(adapted, "int8")), TokenStep)  # type: ignore[arg-type]
    assert isinstance(token_step(decoder(torch.bfloat16, **WIDE)), TokenStep)


@pytest.mark.parametrize("form", ["bf16-single", "int8"])
def test_long_answers_while_the_cache_grows(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each token has the log-probability that one general pass over all of them gives it."""
    model = decoder(torch.bfloat16, **WIDE)
    used: list[int] = []
    plain = FusedStep.__call__

    def counted(self: FusedStep, *arguments: Any) -> torch.Tensor:
        used.append(len(arguments[0]))
        return plain(self, *arguments)

    monkeypatch.setattr(FusedStep, "__call__", counted)
    engine = Engine(pack_weights(model, form))  # type: ignore[arg-type]
    asked = [Request(ids=list(range(1, n)), sampling=SamplingParams(max_new_tokens=90)) for n in (4, 9)]
    ends = {event.request: event for event in engine.generate(asked) if hasattr(event, "reason")}
    assert used
    assert max(used) == 2
    for number, request in enumerate(asked):
        ids = torch.tensor([*request.ids, *ends[number].ids[:-1]])
        with torch.inference_mode():
            logits = model.logits(model(model.embed(ids), torch.arange(len(ids)), [0, len(ids)]))
        logprobs = logits.log_softmax(-1)[len(request.ids) - 1 :]
        told = logprobs.gather(1, torch.tensor(ends[number].ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(ends[number].logprobs), told, rtol=0, atol=0.1)


def test_compiling_is_said_once_and_kept() -> None:
    said: list[str] = []
    compile_step("int8", said.append)
    assert said in ([], ["compiling the CPU's code for this form of weights, once"])
    said.clear()
    compile_step("int8", said.append)
    assert said == []
