"""Differences of tensors come with the tensor, both shapes and the likely cause; damaged configs with an error, never more."""

import copy
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_internvl
from vedere.errors import CheckpointError, ConfigError
from vedere.models import hf_names
from vedere.models.checkpoints import key_map
from vedere.models.diagnosis import check_shapes, likely_cause
from vedere.models.internvl import InternVL
from vedere.models.language_configs import KINDS
from vedere.models.published import parse_config

VISION = {
    "model_type": "intern_vit_6b",
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 3,
    "intermediate_size": 24,
    "image_size": 28,
    "patch_size": 7,
    "qkv_bias": True,
    "qk_normalization": False,
    "norm_type": "layer_norm",
}
LANGUAGE = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 40,
    "rope_theta": 10000.0,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
OWN = {
    "internlm2": {"bias": False},
    "qwen3": {"head_dim": 8},
    "qwen3_moe": {"head_dim": 4, "moe_intermediate_size": 12, "num_experts": 3, "num_experts_per_tok": 2},
    "phi3": {
        "rope_scaling": {"type": "longrope", "short_factor": [1.0, 2.0], "long_factor": [2, 4]},
        "original_max_position_embeddings": 32,
    },
    "llama": {
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        }
    },
}


def config_of(kind, llm=(), vision=(), **top):
    language = LANGUAGE | {"architectures": [KINDS[kind].architecture], "model_type": kind} | OWN.get(kind, {})
    return {
        "model_type": "internvl_chat",
        "downsample_ratio": 0.5,
        "ps_version": "v2",
        "vision_config": VISION | dict(vision),
        "llm_config": language | dict(llm),
    } | top


def shapes_of(*args, **kwargs):
    read = parse_config(config_of(*args, **kwargs))
    return dict(key_map(read.model, "original", read.language).foreign_shapes)


def cause(found, expected):
    return likely_cause(found, expected)


@pytest.mark.parametrize(
    ("files", "config", "said"),
    [
        ("qwen3", "qwen2", "looks like Qwen3: q_norm present"),
        ("qwen2", "qwen3", "looks like Qwen2: biases on q_proj"),
        ("llama", "qwen3", "config.json describes a Qwen3 (q_norm), the files have none"),
        ("qwen2", "llama", "looks like Qwen2: biases on q_proj"),
        ("llama", "qwen2", "config.json describes a Qwen2 (biases on q_proj), the files have none"),
        ("qwen3_moe", "qwen3", "looks like Qwen3-MoE"),
        ("qwen3", "qwen3_moe", "config.json describes a mixture of experts"),
        ("internlm2", "llama", "looks like InternLM2: fused wqkv"),
        ("phi3", "llama", "looks like Phi-3: fused qkv_proj"),
        ("llama", "internlm2", "looks like Llama or Qwen"),
    ],
)
def test_another_language_model_is_recognised(files, config, said):
    assert said in cause(shapes_of(files), shapes_of(config))


@pytest.mark.parametrize(
    ("files", "config", "said"),
    [
        ({"llm": {"tie_word_embeddings": True}}, {}, "lm_head.weight was not written"),
        ({}, {"llm": {"tie_word_embeddings": True}}, "config.json ties the head to the embedding"),
        ({"llm": {"vocab_size": 49}}, {}, "the vocabulary has 49 rows, config.json says 40 (vocab_size)"),
        (
            {"llm": {"num_hidden_layers": 1}},
            {},
            "fewer layers than config.json counts (num_hidden_layers; from layer 1",
        ),
        ({"llm": {"num_hidden_layers": 4}}, {}, "more layers than config.json counts (num_hidden_layers; from layer 2"),
        (
            {"vision": {"num_hidden_layers": 2}},
            {},
            "fewer layers than config.json counts (num_hidden_layers; from layer 2",
        ),
        ({"llm": {"num_key_value_heads": 1}}, {}, "num_key_value_heads"),
        ({"llm": {"num_attention_heads": 8}}, {}, "num_key_value_heads"),
        ({"llm": {"hidden_size": 32}}, {}, "another width than config.json says (hidden_size)"),
        ({"llm": {"intermediate_size": 25}}, {}, "another width than config.json says (intermediate_size)"),
        ({"llm": {"attention_bias": True}}, {}, "o_proj has a bias (attention_bias"),
        ({}, {"llm": {"attention_bias": True}}, "config.json gives o_proj a bias (attention_bias"),
        ({"llm": {"mlp_bias": True}}, {}, "the feed-forward maps have biases (mlp_bias"),
        ({}, {"llm": {"mlp_bias": True}}, "config.json gives the feed-forward maps biases (mlp_bias)"),
        ({"vision": {"hidden_size": 32}}, {}, "the tower has another width than config.json says"),
        ({"vision": {"intermediate_size": 25}}, {}, "(vision_config.intermediate_size)"),
        ({"downsample_ratio": 0.25}, {}, "(downsample_ratio, vision_config.hidden_size)"),
        ({"vision": {"image_size": 56}}, {}, "position table is made for tiles of another size"),
        ({"vision": {"qk_normalization": True}}, {}, "looks like InternViT-6B"),
        ({}, {"vision": {"qk_normalization": True}}, "config.json describes an InternViT-6B"),
        ({"vision": {"qkv_bias": False}}, {}, "the files have none"),
        ({}, {"vision": {"norm_type": "rms_norm"}}, "LayerNorm biases"),
    ],
)
def test_another_shape_is_recognised(files, config, said):
    assert said in cause(shapes_of("llama", **files), shapes_of("llama", **config))


def test_other_causes_are_recognised():
    good = shapes_of("llama")
    assert "prefix 'model.'" in cause({f"model.{name}": shape for name, shape in good.items()}, good)
    inner = {n.removeprefix("language_model."): s for n, s in good.items() if n.startswith("language_model.")}
    whole = {n: s for n, s in good.items() if n.startswith("language_model.")}
    assert "lack the prefix 'language_model.'" in cause(inner, whole)
    adapters = good | {"language_model.base_model.model.lm_head.lora_A.default.weight": (8, 16)}
    assert "LoRA adapters" in cause(adapters, good)
    native = {"vision_tower.embeddings.cls_token": (1, 1, 16)}
    assert "native layout" in cause(native, good)
    assert "empty tensors" in cause(good | {"mlp1.1.weight": (0,)}, good)
    assert "transposed" in cause(good | {"mlp1.1.weight": good["mlp1.1.weight"][::-1]}, good)
    assert not cause(good, good)


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        (
            "language_model.lm_head.weight",
            (39, 16),
            "'language_model.lm_head.weight' is cut off along axis 0 (39 of 40)",
        ),
        ("language_model.model.layers.0.mlp.up_proj.weight", (24, 32), "too long along axis 1 (32 for 16)"),
        ("vision_model.encoder.layers.1.mlp.fc1.weight", (16, 24), "is transposed"),
        ("vision_model.encoder.layers.1.mlp.fc1.weight", (1, 24, 16), "axes of length one that do not belong there"),
        ("vision_model.encoder.layers.1.mlp.fc1.weight", (24 * 16,), "as many numbers as it should, in another form"),
        ("mlp1.1.weight", (3, 5), "of another model or not a whole tensor"),
        ("vision_model.embeddings.position_embedding", (1, 17, 8), "cut off along axis 2 (8 of 16)"),
        ("vision_model.embeddings.position_embedding", (1, 16, 17), "is transposed"),
        (
            "vision_model.embeddings.position_embedding",
            (17, 16),
            "axes of length one that do not belong there, or lacks",
        ),
    ],
)
def test_damage_to_one_tensor_is_not_laid_to_the_config(name, shape, said):
    good = shapes_of("llama")
    found = cause(good | {name: shape}, good)
    assert said in found
    assert "no other is" in found
    assert "config.json" not in found


def test_names_of_our_own_layout_tell_the_same_causes():
    good = key_map(tiny_internvl.config()).own_shapes
    assert "is transposed" in cause(good | {"vision.positions": good["vision.positions"][::-1]}, good)
    assert "cut off along axis 1 (23 of 24)" in cause(good | {"vision.positions": (17, 23)}, good)
    assert "position table is made for tiles of another size" in cause(good | {"vision.positions": (26, 24)}, good)
    for changes, said in (
        ({"ffn_size": 50}, "(intermediate_size)"),
        ({"kv_heads": 4}, "num_key_value_heads"),
        ({"tower": {"ffn_size": 44}}, "(vision_config.intermediate_size)"),
    ):
        assert said in cause(key_map(tiny_internvl.config(**changes)).own_shapes, good)


@pytest.mark.parametrize("names", ["old", "new"])
@pytest.mark.parametrize(
    ("change", "of_files", "of_config"),
    [
        ({"qk_norm": True}, "vision_config.use_qk_norm", "use_qk_norm), the files have none"),
        ({"qkv_bias": False}, "vision_config.attention_bias), the files have none", "vision_config.attention_bias"),
        (
            {"final_norm": True},
            "vision_config.use_mean_pooling is false",
            "use_mean_pooling is false), the files have none",
        ),
        ({"norm": "rms_norm"}, "the files have RMSNorms", "vision_config.norm_type is 'layer_norm'"),
    ],
)
def test_native_switches_of_the_tower_are_named(names, change, of_files, of_config):
    plain, other = (hf_names.key_map(tiny_internvl.config(tower=tower), names).foreign_shapes for tower in ({}, change))
    assert of_files in cause(other, plain)
    assert of_config in cause(plain, other)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_damaged_tensor_is_named_with_its_shapes(data):
    kind = data.draw(st.sampled_from(sorted(KINDS)))
    expected = shapes_of(kind)
    name = data.draw(st.sampled_from(sorted(expected)))
    found = dict(expected)
    how = data.draw(st.sampled_from(["missing", "renamed", "misshapen"]))
    given_shape = found.pop(name)
    if how == "renamed":
        found[name.replace(".", "_", 1)] = given_shape
    elif how == "misshapen":
        found[name] = (*given_shape[:-1], given_shape[-1] + 1)
    with pytest.raises(CheckpointError) as caught:
        check_shapes(found, expected, "folder", "internvl")
    message = str(caught.value)
    assert name in message
    assert str(list(given_shape)) in message
    assert "Likely cause: " in message
    if how == "misshapen":
        assert str(list(found[name])) in message
    if how == "renamed":
        assert "renamed" in message or "did you mean" in message


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 200),
    st.sampled_from(
        [10**400, -1, 1 << 40, float("inf"), float("nan"), 1e-300, "", "silu", "yarn", [], {}, [None], [0.0]]
    ),
    st.dictionaries(st.sampled_from(["type", "rope_type", "factor", "short_factor"]), st.none() | st.text(max_size=4)),
    st.text(max_size=8),
)


def outcome(config):
    """(what was read, "") or (None, the error)."""
    try:
        return parse_config(config), ""
    except (CheckpointError, ConfigError) as error:
        return None, str(error)


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_damaged_configs_give_errors_only(data):
    kind = data.draw(st.sampled_from(sorted(KINDS)))
    config = copy.deepcopy(config_of(kind))
    for _ in range(data.draw(st.integers(1, 3))):
        section = data.draw(st.sampled_from(["", "vision_config", "llm_config", "rope_scaling"]))
        place = config if not section else config.get(section)
        if section == "rope_scaling":
            inner = config.get("llm_config")
            place = inner.get("rope_scaling") if isinstance(inner, dict) else None
        if not isinstance(place, dict) or not place:
            continue
        key = data.draw(st.sampled_from(sorted(place, key=str)))
        if data.draw(st.booleans()):
            place[key] = data.draw(ANYTHING)
        else:
            del place[key]
    read, said = outcome(config)
    if read is None:
        assert "config.json" in said
        return
    shapes = key_map(read.model, read.layout, read.language)
    if sum(torch.Size(shape).numel() for shape in shapes.own_shapes.values()) > 10**12 or len(shapes.rules) > 2000:
        return
    if read.layout == "original":
        with torch.device("meta"):
            state = InternVL(read.model).state_dict() if hasattr(read.model.vision, "layers") else {}
        assert {name: tuple(t.shape) for name, t in state.items()} in ({}, shapes.own_shapes)


def test_language_models_that_cannot_be_run_are_refused():
    data = config_of("llama", {"architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss"})
    with pytest.raises(
        CheckpointError, match=r"'llm_config\.architectures' is \['GptOssForCausalLM'\]; expected one of"
    ):
        parse_config(data)
    with pytest.raises(CheckpointError, match=r"'llm_config\.sliding_window' is 32; expected null or at least max_pos"):
        parse_config(config_of("phi3", {"sliding_window": 32}))
    with pytest.raises(CheckpointError, match=r"'llm_config\.mlp_only_layers' is \[0\]"):
        parse_config(config_of("qwen3_moe", {"mlp_only_layers": [0]}))
    scaling = {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0, 2.0]}
    with pytest.raises(ConfigError, match="longrope has 1 short and 2 long factors; expected 2 each"):
        parse_config(config_of("phi3", {"rope_scaling": scaling}))
    with pytest.raises(ConfigError, match="4 active of 3 members"):
        parse_config(config_of("qwen3_moe", {"num_experts_per_tok": 4}))
    assert json.dumps(config_of("phi3"))
