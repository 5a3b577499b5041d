"""Key maps: exact inverses, the published definitions, complete key sets."""

import dataclasses
import json
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from vedere.errors import CheckpointError
from vedere.models import key_rules, keymaps
from vedere.models.checkpoints import key_map
from vedere.models.decoder import Decoder, DecoderConfig
from vedere.models.intern_vit import InternViTConfig
from vedere.models.internvl import InternVL, InternVLConfig
from vedere.models.mono_internvl import MonoInternVL, MonoInternVLConfig
from vedere.models.patches import PatchConfig
from vedere.models.published import parse_config

PATCHES = PatchConfig(width=12, patch=4, tile=16)


@st.composite
def decoder_configs(draw, visual=True, qwen3=False):
    kv_heads, head_dim = draw(st.integers(1, 3)), 2 * draw(st.integers(1, 3))
    heads = kv_heads * draw(st.integers(1, 3))
    mixture = draw(st.integers(0, 3)) if qwen3 else 0
    return DecoderConfig(
        hidden_size=draw(st.integers(1, 9)) if qwen3 else heads * head_dim,
        qk_norm=qwen3 and draw(st.booleans()),
        moe_size=mixture,
        moe_active=min(mixture, 1),
        ffn_size=draw(st.integers(1, 7)),
        layers=draw(st.integers(1, 3)),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=draw(st.integers(1, 9)),
        qkv_bias=draw(st.booleans()),
        out_bias=draw(st.booleans()),
        ffn_bias=not mixture and draw(st.booleans()),
        tied_head=draw(st.booleans()),
        visual_ffn=visual and draw(st.booleans()),
        visual_attention=visual and draw(st.booleans()),
    )


def distinct(shapes):
    """Tensors in which no two numbers are equal, so that any misplaced row shows."""
    start, tensors = 0, {}
    for name, shape in shapes.items():
        count = torch.Size(shape).numel()
        tensors[name] = torch.arange(start, start + count, dtype=torch.float64).reshape(shape)
        start += count
    return tensors


def assert_inverse(key_map):
    own, foreign = distinct(key_map.own_shapes), distinct(key_map.foreign_shapes)
    for there, start in (
        (key_map.to_own(key_map.to_foreign(own)), own),
        (key_map.to_foreign(key_map.to_own(foreign)), foreign),
    ):
        assert there.keys() == start.keys()
        assert all(torch.equal(there[name], start[name]) for name in start)
    every = torch.cat([tensor.flatten() for tensor in key_map.to_own(foreign).values()])
    assert len(every.unique()) == len(every) == sum(tensor.numel() for tensor in foreign.values())


@settings(max_examples=15, deadline=None)
@given(decoder_configs())
def test_internlm2_and_back_is_exact(config):
    mono = MonoInternVLConfig(vision=PATCHES, decoder=config)
    assert_inverse(keymaps.mono_internvl(mono))


@settings(max_examples=15, deadline=None)
@given(decoder_configs(visual=False))
def test_llama_and_gguf_and_back_are_exact(config):
    assert_inverse(keymaps.llama(config))
    assert_inverse(keymaps.phi3(config))
    assert_inverse(keymaps.gguf(config))


@settings(max_examples=15, deadline=None)
@given(decoder_configs(visual=False, qwen3=True))
def test_qwen3_and_its_mixture_and_back_are_exact(config):
    assert_inverse(keymaps.llama(config))
    with torch.device("meta"):
        state = Decoder(config).state_dict()
    shapes = {f"decoder.{name}": tuple(tensor.shape) for name, tensor in state.items()}
    assert shapes == keymaps.llama(config).own_shapes == keymaps.own(config).own_shapes


def test_what_a_family_has_no_names_for_is_refused():
    shape = {"hidden_size": 8, "ffn_size": 6, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 4, "vocab_size": 5}
    for family in (keymaps.internlm2, keymaps.phi3, keymaps.gguf):
        with pytest.raises(CheckpointError, match="have no place for norms of query and key heads"):
            family(DecoderConfig(**shape, qk_norm=True))
        with pytest.raises(CheckpointError, match="have no place for a mixture"):
            family(DecoderConfig(**shape, moe_size=2, moe_active=1))


def test_names_of_qwen3_and_phi3_are_those_of_their_releases():
    shape = {"hidden_size": 8, "ffn_size": 6, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 4, "vocab_size": 5}
    moe = keymaps.llama(DecoderConfig(**shape, qk_norm=True, moe_size=2, moe_active=1)).foreign_shapes
    layer = "model.layers.0."
    assert moe[layer + "self_attn.k_norm.weight"] == (4,)
    assert moe[layer + "mlp.gate.weight"] == (2, 8)
    assert moe[layer + "mlp.experts.1.up_proj.weight"] == (6, 8)
    assert moe[layer + "mlp.experts.1.down_proj.weight"] == (8, 6)
    phi = keymaps.phi3(DecoderConfig(**shape)).foreign_shapes
    assert phi[layer + "self_attn.qkv_proj.weight"] == (16, 8)
    assert phi[layer + "mlp.gate_up_proj.weight"] == (12, 8)


@settings(max_examples=8, deadline=None)
@given(
    decoder_configs(),
    st.sampled_from(["layer_norm", "rms_norm"]),
    st.booleans(),
    st.booleans(),
    st.integers(1, 3),
)
def test_own_names_are_those_of_the_models(config, norm, qkv_bias, qk_norm, layers):
    tower = InternViTConfig(
        patches=PATCHES, layers=layers, heads=3, ffn_size=5, norm=norm, qkv_bias=qkv_bias, qk_norm=qk_norm
    )
    plain = dataclasses.replace(config, visual_ffn=False, visual_attention=False)
    cases = [
        (MonoInternVL, MonoInternVLConfig(vision=PATCHES, decoder=config), keymaps.mono_internvl),
        *(
            (InternVL, InternVLConfig(vision=tower, decoder=plain), partial(keymaps.internvl, names=names))
            for names in (*keymaps.NAMINGS.values(), keymaps.OWN)
        ),
    ]
    for model, whole, family in cases:
        key_map = family(whole)
        assert_inverse(key_map)
        with torch.device("meta"):
            state = model(whole).state_dict()
        assert {name: tuple(tensor.shape) for name, tensor in state.items()} == key_map.own_shapes
    with torch.device("meta"):
        state = Decoder(plain).state_dict()
    shapes = {f"decoder.{name}": tuple(tensor.shape) for name, tensor in state.items()}
    assert shapes == keymaps.llama(plain).own_shapes == keymaps.gguf(plain).own_shapes == keymaps.own(plain).own_shapes


def test_fused_rows_are_query_heads_then_key_then_value_in_each_group():
    heads, kv_heads, d = 6, 2, 4
    names = [
        f"q{g * 3 + j}" for g in range(kv_heads) for j in range(3)
    ]  # query head index = group * 3 + place in group
    blocks = {name: torch.randn(d, 5) for name in [*names, "k0", "k1", "v0", "v1"]}
    fused = torch.cat([blocks[n] for n in ("q0", "q1", "q2", "k0", "v0", "q3", "q4", "q5", "k1", "v1")])
    joined = key_rules.Grouped(heads, kv_heads, d).join([fused], tuple(fused.shape))
    assert torch.equal(joined, torch.cat([blocks[n] for n in (*names, "k0", "k1", "v0", "v1")]))


def test_gguf_halves_are_interleaved_as_llama_cpp_writes_them():
    def written(weights, heads):  # the permutation of llama.cpp's converter
        return weights.reshape(heads, 2, -1, weights.shape[1]).swapaxes(1, 2).reshape(weights.shape)

    query, key, value = torch.randn(24, 5), torch.randn(8, 5), torch.randn(8, 5)
    parts = [written(query, 6), written(key, 2), value]
    assert torch.equal(key_rules.PairedHalves(6, 2).join(parts, (40, 5)), torch.cat([query, key, value]))


@pytest.mark.parametrize(
    ("case", "family"),
    [
        ("mono-internvl", "mono-internvl"),
        ("mono-internvl-two-images", "mono-internvl"),
        ("v2pe", "internvl-internlm2"),
        ("internvl-internlm2", "internvl-internlm2"),
        ("internvl-qwen2", "internvl-llama"),
        ("internvl-llama", "internvl-llama"),
        ("internvit-6b-style", "internvl-llama"),
    ],
)
def test_golden_files_have_exactly_the_expected_tensors(golden, case, family):
    config = parse_config(json.loads((golden / case / "config.json").read_text()))
    names = key_map(config.model, config.layout, config.language)
    found = {name: tuple(t.shape) for name, t in load_file(golden / case / "model.safetensors").items()}
    assert found == names.foreign_shapes
    assert names.family == family


def test_released_mono_internvl_has_3_11_billion_parameters():
    decoder = DecoderConfig(
        hidden_size=2048,
        ffn_size=8192,
        layers=24,
        heads=16,
        kv_heads=8,
        head_dim=128,
        vocab_size=92553,
        visual_ffn=True,
    )
    key_map = keymaps.mono_internvl(MonoInternVLConfig(vision=PatchConfig(width=1024), decoder=decoder))
    shapes = key_map.foreign_shapes
    assert shapes["language_model.model.layers.23.attention.wqkv.weight"] == (4096, 2048)
    assert shapes["vision_model.embeddings.position_embedding"] == (1, 1025, 1024)
    total = sum(torch.Size(shape).numel() for shape in shapes.values())
    assert round(total / 1e6, 1) == 3111.4
    more = dataclasses.replace(decoder, visual_attention=True)
    extra = keymaps.mono_internvl(MonoInternVLConfig(vision=PatchConfig(width=1024), decoder=more)).foreign_shapes
    assert sum(torch.Size(extra[name]).numel() for name in extra.keys() - shapes.keys()) == 24 * 3 * 2048 * 2048


def small_map(**changes):
    base = DecoderConfig(
        hidden_size=8, ffn_size=6, layers=3, heads=2, kv_heads=1, head_dim=4, vocab_size=5, visual_ffn=True
    )
    return keymaps.mono_internvl(MonoInternVLConfig(vision=PATCHES, decoder=dataclasses.replace(base, **changes)))


def test_missing_surplus_and_misshapen_tensors_are_all_listed_shortened():
    key_map = small_map()
    tensors = distinct(key_map.foreign_shapes)
    for number in range(3):
        del tensors[f"language_model.model.layers.{number}.feed_forward_ve.w1.weight"]
    del tensors["language_model.model.layers.1.ffn_norm.weight"]
    tensors["language_model.model.layers.0.lora.weight"] = torch.zeros(1)
    tensors["language_model.model.layers.2.lora.weight"] = torch.zeros(1)
    tensors["mlp1.1.bias"] = torch.zeros(9)
    with pytest.raises(CheckpointError) as caught:
        key_map.to_own(tensors, "/here")
    message = str(caught.value)
    assert message.startswith("/here is not a complete 'mono-internvl' checkpoint of this config")
    assert "4 missing:" in message
    assert "language_model.model.layers.{0-2}.feed_forward_ve.w1.weight (3)" in message
    assert "language_model.model.layers.1.ffn_norm.weight" in message
    assert "2 surplus: language_model.model.layers.{0,2}.lora.weight (2)" in message
    assert "1 misshapen: mlp1.1.bias is [9], expected [8]" in message
    assert "config.json" in message


def test_a_hundred_kinds_of_surplus_tensors_stay_readable():
    key_map = small_map()
    tensors = distinct(key_map.foreign_shapes) | {f"extra{i}": torch.zeros(1) for i in range(100)}
    with pytest.raises(CheckpointError, match=r"100 surplus: .* and 92 more kinds"):
        key_map.to_own(tensors)


def test_a_renamed_tensor_is_recognised():
    key_map = small_map()
    tensors = distinct(key_map.foreign_shapes)
    tensors["language_model.output.weigth"] = tensors.pop("language_model.output.weight")
    with pytest.raises(CheckpointError, match=r"did you mean 'language_model\.output\.weight'"):
        key_map.to_own(tensors)


def test_visual_experts_have_no_place_in_a_bare_language_model():
    config = DecoderConfig(
        hidden_size=8, ffn_size=6, layers=1, heads=2, kv_heads=1, head_dim=4, vocab_size=5, visual_ffn=True
    )
    with pytest.raises(CheckpointError, match="'llama' have no place for visual experts"):
        keymaps.llama(config)
