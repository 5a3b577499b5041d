"""config.json in its dialects: defaults, families, and what is refused by name."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from vedere.errors import CheckpointError, ConfigError
from vedere.models.checkpoints import load_model
from vedere.models.mono_internvl import MonoInternVLConfig
from vedere.models.published import parse_config, read_config


def original(golden, case="mono-internvl"):
    return json.loads((golden / case / "config.json").read_text())


def test_absent_fields_take_the_defaults_of_the_released_classes(golden):
    data = original(golden)
    for key in ("bias", "rope_scaling", "rms_norm_eps", "rope_theta", "max_position_embeddings", "tie_word_embeddings"):
        del data["llm_config"][key]
    del data["ps_version"]
    config = parse_config(data).model
    assert config.vision.unshuffle == "v1"
    decoder = config.decoder
    assert (decoder.qkv_bias, decoder.out_bias, decoder.ffn_bias) == (True, True, False)
    assert (decoder.norm_eps, decoder.rope_theta, decoder.max_positions) == (1e-6, 10_000.0, 2048)
    assert not decoder.tied_head


@pytest.mark.parametrize("case", ["internvl-qwen2", "internvl-llama", "internvl-internlm2", "internvl-hf"])
def test_a_null_number_of_key_heads_is_one_for_every_query_head(golden, case):
    """Qwen2's class, whose absent field means 32, too."""
    data = original(golden, case)
    llm = data["text_config" if case == "internvl-hf" else "llm_config"]
    llm["num_key_value_heads"] = None
    assert parse_config(data).model.decoder.kv_heads == llm["num_attention_heads"]


def test_v2pe_checkpoints_name_it_in_place_of_a_scaling(golden):
    data = original(golden, "v2pe")
    data["llm_config"]["rope_scaling"] = {"type": "v2pe", "factor": 1.0}
    decoder = parse_config(data).model.decoder
    assert (decoder.v2pe, decoder.rope_scaling) == (True, "none")
    data = original(golden, "internvl-qwen2")
    data["llm_config"]["rope_scaling"] = {"type": "v2pe", "factor": 1.0}
    with pytest.raises(CheckpointError, match=r"rope_scaling.type' is 'v2pe'; expected one of 'default'"):
        parse_config(data)


def test_a_scaling_without_its_factor_is_refused_but_for_yarn(golden):
    data = original(golden, "internvl-qwen2")
    for kind in ("dynamic", "linear", "llama3"):
        data["llm_config"]["rope_scaling"] = {"type": kind, "original_max_position_embeddings": 1024}
        with pytest.raises(CheckpointError, match=r"rope_scaling.factor' is missing; expected a positive number"):
            parse_config(data)
    data["llm_config"]["rope_scaling"]["type"] = "yarn"
    assert parse_config(data).model.decoder.rope_factor == 4  # 4096 / 1024, as transformers has it


def test_tiles_may_have_pixels_beyond_the_last_whole_patch(golden):
    data = original(golden, "internvl-qwen2")
    data["vision_config"]["image_size"] = data["force_image_size"] = 60
    patches = parse_config(data).model.vision.patches
    assert (patches.tile, patches.grid, patches.tokens_per_tile) == (60, 4, 4)
    data["force_image_size"] = 70
    with pytest.raises(ConfigError, match="a tile of 70 px has 5 x 5 patches of 14 px, which cannot be joined 2 x 2"):
        parse_config(data)


@pytest.mark.parametrize("model_type", ["internlm2", "internlm2ve"])
def test_mono_is_told_by_architecture_type_or_tensors(golden, model_type):
    data = original(golden)
    data["llm_config"]["model_type"] = model_type
    assert isinstance(parse_config(data).model, MonoInternVLConfig)
    del data["llm_config"]["architectures"]
    data["vision_config"]["model_type"] = "intern_vit_6b"
    names = ["language_model.model.layers.0.feed_forward_ve.w1.weight"]
    assert isinstance(parse_config(data, names).model, MonoInternVLConfig)
    assert isinstance(parse_config(data).model, MonoInternVLConfig) == (model_type == "internlm2ve")


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("llm_config", "hidden_size", None, "'llm_config.hidden_size' is None; expected an integer"),
        ("llm_config", "num_hidden_layers", 10**9, "'llm_config.num_hidden_layers' is 1000000000; expected an integer"),
        ("llm_config", "num_attention_heads", 5, "expected a divisor of hidden_size 64"),
        ("llm_config", "num_attention_heads", 0, "expected an integer from 1"),
        ("llm_config", "hidden_act", "gelu", "'llm_config.hidden_act' is 'gelu'; expected one of 'silu'"),
        ("llm_config", "bias", "no", "'llm_config.bias' is 'no'; expected true or false"),
        ("llm_config", "rms_norm_eps", -1, "expected a positive number"),
        ("llm_config", "rms_norm_eps", 1.5, "'llm_config.rms_norm_eps' is 1.5; expected a positive number up to 1"),
        ("llm_config", "rope_theta", None, "'llm_config.rope_theta' is None; expected a positive number"),
        (
            "llm_config",
            "rope_scaling",
            {"type": "dynamic", "factor": 0.5},
            "rope_scaling.factor' is 0.5; expected at least 1",
        ),
        ("llm_config", "architectures", ["Qwen2ForCausalLM"], "the only language model of Mono-InternVL"),
        ("llm_config", "rope_theta", 1, "'llm_config.rope_theta' is 1; expected a number above 1"),
        ("llm_config", "rope_scaling", "", "'llm_config.rope_scaling' is ''; expected an object or null"),
        ("llm_config", "rope_scaling", False, "'llm_config.rope_scaling' is False; expected an object or null"),
        ("llm_config", "layer_types", ["chunked_attention"], "expected only 'full_attention'"),
        ("llm_config", "partial_rotary_factor", 0.5, "'llm_config.partial_rotary_factor' is 0.5"),
        (
            "llm_config",
            "rope_scaling",
            {"type": "dynamic", "factor": 2.0, "partial_rotary_factor": 0.5},
            "'llm_config.rope_scaling.partial_rotary_factor' is 0.5",
        ),
        (
            "llm_config",
            "rope_parameters",
            {"rope_type": "default", "rope_theta": 5e5},
            "'llm_config.rope_parameters.rope_theta' is 500000.0; expected 1e.06, as llm_config.rope_theta says",
        ),
        (
            "llm_config",
            "rope_scaling",
            {"type": "yarn"},  # which InternLM2's code does not have
            "rope_scaling.type' is 'yarn'; expected one of 'default', 'dyn",
        ),
        ("llm_config", "model_type", "qwen2", "expected one of 'internlm2', 'internlm2ve'"),
        ("", "force_image_size", 560, "'force_image_size' is 560; expected an integer from 1 to 448"),
        ("", "downsample_ratio", 0.3, "expected 1 divided by a whole number"),
        ("", "select_layer", -2, "'select_layer' is -2; expected one of -1"),
        ("", "ps_version", "v3", "expected one of 'v1', 'v2'"),
        ("", "use_thumbnail", "yes", "'use_thumbnail' is 'yes'; expected one of True, False, None"),
        ("", "dynamic_image_size", [], "expected one of True, False, None"),
        ("", "max_dynamic_patch", 0, "'max_dynamic_patch' is 0; expected an integer from 1 to 1024"),
        ("", "min_dynamic_patch", 13, "'min_dynamic_patch' is 13; expected an integer from 1 to 12"),
        ("", "min_dynamic_patch", 1.5, "'min_dynamic_patch' is 1.5; expected an integer from 1 to 12"),
        ("", "llm_config", None, "'llm_config' is missing or no object"),
        ("", "model_type", "llava", "model_type is 'llava'; expected 'internvl_chat'"),
    ],
)
def test_unusable_fields_are_named(golden, section, key, value, message):
    data = original(golden)
    (data[section] if section else data)[key] = value
    with pytest.raises(CheckpointError, match=message.replace("(", r"\(")):
        parse_config(data)


def test_own_config_names_the_nearest_family(tmp_path):
    with pytest.raises(CheckpointError, match="unknown family 'mono-internv'; did you mean 'mono-internvl'"):
        parse_config({"format": "vedere", "family": "mono-internv", "model": {}})
    with pytest.raises(CheckpointError, match="'model' and 'extras' must be objects"):
        parse_config({"format": "vedere", "family": "decoder", "model": []})
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="holds a JSON list; expected an object"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text('{"a"')
    with pytest.raises(CheckpointError, match="cannot be read as JSON"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("name", "embed", "head"),
    [
        ("internvl-qwen2", "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"),
        ("internvl-internlm2", "language_model.model.tok_embeddings.weight", "language_model.output.weight"),
        ("mono-internvl", "language_model.model.tok_embeddings.weight", "language_model.output.weight"),
        ("internvl-hf", "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"),
    ],
)
@pytest.mark.parametrize("kept", ["embedding", "head", "both"])
def test_of_a_tied_pair_a_file_may_hold_either(golden, tmp_path, name, embed, head, kept):
    config = json.loads((golden / name / "config.json").read_text())
    config["text_config" if name == "internvl-hf" else "llm_config"]["tie_word_embeddings"] = True
    tensors = load_file(golden / name / "model.safetensors")
    table = tensors.pop(embed)
    tensors.pop(head)
    tensors |= {
        place: table.clone()
        for place in ((embed, head) if kept == "both" else (embed if kept == "embedding" else head,))
    }
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = load_model(tmp_path)
    assert model.decoder.config.tied_head == (kept != "both")
    assert torch.equal(model.decoder.embed.weight, table)
    assert torch.equal(model.decoder.head_weight, table)
    config["text_config" if name == "internvl-hf" else "llm_config"]["tie_word_embeddings"] = False
    (tmp_path / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    if kept != "both":
        with pytest.raises(CheckpointError, match=(head if kept == "embedding" else embed).replace(".", r"\.")):
            load_model(tmp_path)
