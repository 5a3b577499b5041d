"""Forms of weights: what they keep, what they refuse, and that models in them answer alike."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from vedere.errors import CheckpointError, ConfigError
from vedere.infer.engine import Engine, Request
from vedere.infer.sampling import SamplingParams
from vedere.models.adapters import LoRA, attach, learn
from vedere.models.checkpoints import save_model
from vedere.models.decoder import Decoder, DecoderConfig
from vedere.models.full_scores import attention
from vedere.models.quantized import QuantLinear, choose_form, pack_weights
from vedere.models.weight_forms import (
    GROUP,
    Blocked,
    ByteColumns,
    ByteRows,
    Columns,
    block_width,
    can_pack,
    expand_groups,
    has_bags,
    quantise_groups,
    quantise_rows,
)

SMALL = DecoderConfig(
    hidden_size=64, ffn_size=96, layers=2, heads=4, kv_heads=2, head_dim=16, vocab_size=130, qkv_bias=True
)


@pytest.fixture(params=["rows", "torch"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which kernels read the forms: those that numba compiles, or torch's own, as without numba."""
    if request.param == "rows":
        pytest.importorskip("numba")
    else:
        without_numba(monkeypatch)
    return str(request.param)


def without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("row_forms", "quantized"):
        monkeypatch.setattr(f"vedere.models.{place}.has_compiler", lambda: False)


needs_onednn = pytest.mark.skipif(not can_pack(), reason="no bfloat16 matmul in this build of oneDNN")


def _weight(outputs: int, inputs: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(outputs, inputs, generator=generator).to(torch.bfloat16)


@given(st.integers(1, 150), st.integers(1, 5), st.integers(0, 99))
def test_rows_are_half_a_step_off_at_most(outputs: int, groups: int, seed: int) -> None:
    weight = _weight(outputs, groups * GROUP, seed)
    steps, scales = quantise_rows(weight)
    error = (steps.float() * scales.float()[:, None] - weight.float()).abs()
    assert (error <= 0.5 * scales.float()[:, None] * 1.01 + 0.004 * weight.float().abs()).all()


@given(st.integers(1, 3), st.integers(1, 5), st.integers(0, 99))
def test_groups_are_half_a_step_off_at_most(blocks: int, groups: int, seed: int) -> None:
    weight = _weight(64 * blocks, groups * GROUP, seed)
    steps, table = quantise_groups(weight)
    assert steps.min() >= 0
    assert steps.max() <= 15
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(steps, 1)
    error = (expand_groups(packed, table).t().float() - weight.float()).abs()
    step = table[..., 0].t().float().repeat_interleave(GROUP, 1)
    assert (error <= 0.6 * step + 0.01 * weight.float().abs().amax()).all()


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(("form", "most"), [("bf16-single", 0.003), ("int8", 0.02), ("int4", 0.12)])
@pytest.mark.parametrize("rows", [1, 3, 40, 130])
@pytest.mark.parametrize("shape", [(64, 96), (130, 64), (7, 80), (600, 32)])
def test_few_and_many_rows_are_the_same_map(form: str, most: float, rows: int, shape: tuple[int, int]) -> None:
    weight, bias = _weight(*shape), _weight(1, shape[0])[0]
    x = _weight(rows, shape[1], seed=1)
    module = QuantLinear(weight, bias, form)  # type: ignore[arg-type]
    exact = F.linear(x.float(), weight.float(), bias.float())
    got = module(x).float()
    alone = torch.cat([module(row[None]) for row in x]).float()
    assert (got - exact).norm() < most * exact.norm()
    assert (got - alone).norm() < 0.01 * exact.norm()
    assert module(x[None]).shape == (1, rows, shape[0])
    assert module(x[:0]).shape == (0, shape[0])


@pytest.mark.parametrize("rows", [1, 2, 5, 30])
def test_int8_is_the_same_with_and_without_fast_bags(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    weight, bias, x = _weight(300, 64), _weight(1, 300)[0], _weight(rows, 64, seed=1)
    without_numba(monkeypatch)
    found = {}
    for bags, kind in ((has_bags(), ByteColumns if has_bags() else ByteRows), (False, ByteRows)):
        monkeypatch.setattr("vedere.models.quantized.has_bags", lambda b=bags: b)
        module = QuantLinear(weight, bias, "int8")
        assert isinstance(module.kept, kind)
        found[bags] = module(x).float()
    steps, scales = quantise_rows(weight)
    exact = F.linear(x.float(), steps.float() * scales.float()[:, None], bias.float())
    for got in found.values():
        assert (got - exact).norm() < 0.004 * exact.norm()


def test_columns_are_rearranged_maps_where_bags_are_slow_and_stay_where_there_is_no_onednn_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def kinds() -> set[type]:
        model = pack_weights(_model(), "bf16-single")
        return {type(getattr(m, "kept", m)) for m in model.modules() if isinstance(m, (nn.Linear, QuantLinear))}

    without_numba(monkeypatch)
    monkeypatch.setattr("vedere.models.quantized.has_bags", lambda: True)
    assert kinds() == {Columns}
    monkeypatch.setattr("vedere.models.quantized.has_bags", lambda: False)
    assert kinds() == ({Blocked} if can_pack() else {nn.Linear})
    monkeypatch.setattr("vedere.models.quantized.can_pack", lambda: False)
    assert kinds() == {nn.Linear}


@given(st.integers(1, 40_000), st.sampled_from([128, 256]), st.integers(1, 64))
def test_blocks_are_whole_registers_and_share_the_work(outputs: int, widest: int, threads: int) -> None:
    with mock.patch("torch.get_num_threads", return_value=threads):
        width = block_width(outputs, widest)
    assert width % 16 == 0
    assert 64 <= width <= widest
    blocks = -(-outputs // width)
    share = -(-blocks // threads) * width  # of the busiest thread
    assert share <= max(64, 1.2 * outputs / threads + 80)


@needs_onednn
@pytest.mark.parametrize("rows", [1, 3, 40])
def test_rearranged_weights_keep_every_bit(rows: int) -> None:
    weight, bias, x = _weight(130, 96), _weight(1, 130)[0], _weight(rows, 96, seed=1)
    wide = F.linear(x.float(), weight.float(), bias.float())
    got = QuantLinear(weight, bias, "bf16")(x)
    assert (got.float() - wide).abs().max() <= 2**-8 * wide.abs().max()
    assert (got.float() - F.linear(x, weight, bias).float()).norm() < 1e-3 * wide.norm()


def _model(**changes: object) -> Decoder:
    torch.manual_seed(0)
    return Decoder(replace(SMALL, **changes)).to(torch.bfloat16).eval()  # type: ignore[arg-type]


@torch.inference_mode()
def _logits(model: Decoder, visual: bool = False) -> torch.Tensor:
    ids = torch.arange(40) % 100
    types = (torch.arange(40) % 3 == 0).to(torch.uint8) if visual else None
    return model.logits(model(model.embed(ids), torch.arange(40), [0, 40], types))


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("experts", [False, True])
@pytest.mark.parametrize(("form", "most"), [("bf16", 0.02), ("bf16-single", 0.02), ("int8", 0.05), ("int4", 0.4)])
def test_models_answer_alike(tied: bool, experts: bool, form: str, most: float) -> None:
    plain = _logits(_model(tied_head=tied, visual_ffn=experts, visual_attention=experts), experts)
    model = _model(tied_head=tied, visual_ffn=experts, visual_attention=experts)
    packed = _logits(pack_weights(model, form), experts)  # type: ignore[arg-type,assignment]
    assert (packed - plain).norm() < most * plain.norm()
    if form != "bf16" or can_pack():
        assert not any(isinstance(module, nn.Linear) for module in model.modules())
        assert isinstance(model.head, QuantLinear)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(("form", "most"), [("bf16", 0.02), ("bf16-single", 0.02), ("int8", 0.05), ("int4", 0.4)])
def test_members_of_a_mixture_take_the_form_and_the_router_stays(form: str, most: float) -> None:
    def mixture() -> Decoder:
        return _model(moe_size=4, moe_active=2, ffn_size=64)

    plain, model = _logits(mixture()), mixture()
    packed = _logits(pack_weights(model, form))  # type: ignore[arg-type,assignment]
    assert (packed - plain).norm() < most * plain.norm()
    assert isinstance(model.layers[0].ffn.text.router, nn.Linear)
    joint = [name for name, _ in model.named_parameters() if name.endswith(("ffn.text.gate_up", "ffn.text.down"))]
    assert len(joint) == (0 if form != "bf16" or can_pack() else 4)
    chosen = mixture().layers[0].ffn.text.route(_weight(9, 64, seed=2))[1]
    assert torch.equal(model.layers[0].ffn.text.route(_weight(9, 64, seed=2))[1], chosen)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("form", ["bf16", "bf16-single", "int8", "int4"])
def test_the_engine_runs_them(form: str) -> None:
    engine = Engine(pack_weights(_model(), form), chunk=7)  # type: ignore[arg-type]
    asked = [Request(ids=list(range(n)), sampling=SamplingParams(max_new_tokens=4)) for n in (3, 20)]
    ends = [event for event in engine.generate(asked) if hasattr(event, "reason")]
    assert [len(end.ids) for end in ends] == [4, 4]


def test_refusals() -> None:
    with pytest.raises(ConfigError, match=r"unknown form of weights 'int3'.*int4"):
        pack_weights(_model(), "int3")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="needs a model in bfloat16 on a CPU, this one is in float32 on cpu"):
        pack_weights(_model().float(), "int8")


def test_quantised_models_are_not_saved(tmp_path: object) -> None:
    with pytest.raises(CheckpointError, match=r"in the form int8.*weights='stored'"):
        save_model(pack_weights(_model(), "int8"), tmp_path)  # type: ignore[arg-type]


def test_small_models_stay_as_stored() -> None:
    assert choose_form(_model()) == "stored"


@pytest.mark.parametrize(("heads", "kv_heads", "length", "keys"), [(4, 4, 70, 70), (6, 2, 65, 130), (4, 1, 3, 9)])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_written_out_attention(
    heads: int, kv_heads: int, length: int, keys: int, causal: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, h, n, 16) for h, n in ((heads, length), (kv_heads, keys), (kv_heads, keys)))
    mask = torch.ones(length, keys, dtype=torch.bool).tril(keys - length) if causal else None
    exact = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True).transpose(1, 2)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    # whole, by one or two key heads, and in runs of the fewest queries
    one = heads // kv_heads * length * keys
    for most in (1 << 25, one, 2 * one, heads * keys):
        monkeypatch.setattr("vedere.models.full_scores.MOST", most)
        got = attention(q.to(dtype), k.to(dtype), v.to(dtype), causal=causal)
        assert (got.float() - exact).norm() < tolerance * exact.norm()


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("form", ["int8", "int4", "bf16", "bf16-single"])
def test_a_map_with_lora_keeps_it_in_every_form(form: str) -> None:
    torch.manual_seed(5)
    model = Decoder(SMALL).to(torch.bfloat16).eval()
    attach(model, LoRA(rank=4, alpha=4.0))
    for parameter in learn(model, "lora"):
        torch.nn.init.normal_(parameter, std=0.3)
    place, x = "layers.1.ffn.text.down", _weight(3, 96)
    with torch.no_grad():
        adapted = model.get_submodule(place)(x).float()
        added = adapted - F.linear(x, model.get_submodule(place).weight).float()
        pack_weights(model, form)  # type: ignore[arg-type]
        error = model.get_submodule(place)(x).float() - adapted
    assert error.norm() < 0.12 * adapted.norm()
    assert added.norm() > 0.3 * adapted.norm()  # losing it would be seen


@pytest.mark.parametrize("compiler", [True, False])
def test_large_models_take_the_form_that_suits_the_answers_at_once(
    compiler: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vedere.models.quantized._LARGE", 0)
    monkeypatch.setattr("vedere.models.quantized.has_compiler", lambda: compiler)
    monkeypatch.setattr("vedere.models.quantized.can_pack", lambda: True)
    assert [choose_form(_model(), n) for n in (1, 4, 8)] == ["bf16-single"] * 2 * compiler + ["bf16"] * (
        3 - 2 * compiler
    )
    monkeypatch.setattr("vedere.models.quantized.can_pack", lambda: False)
    assert [choose_form(_model(), n) for n in (1, 8)] == (["bf16-single"] if compiler else ["stored"]) * 2
    assert choose_form(_model().float()) == "stored"
