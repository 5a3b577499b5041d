"""config.json of the native layout: read field by field, with the defaults of transformers' class."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from vedere.errors import CheckpointError
from vedere.models.checkpoints import load_model, read_config
from vedere.models.hf_config import hf_config
from vedere.models.internvl import InternVLConfig
from vedere.models.published import original_config, parse_config


def native(golden, case="internvl-hf"):
    return json.loads((golden / case / "config.json").read_text())


def test_fields_become_the_shape(golden):
    read = read_config(golden / "internvl-hf-6b-style")
    assert (read.layout, read.family) == ("hf", "internvl")
    assert isinstance(read.model, InternVLConfig)
    tower, decoder = read.model.vision, read.model.decoder
    assert (tower.norm, tower.qk_norm, tower.qkv_bias, tower.heads) == ("rms_norm", True, False, 5)
    assert (tower.patches.tile, tower.patches.patch, tower.patches.unshuffle) == (56, 14, "v2")
    assert (decoder.qkv_bias, decoder.out_bias, decoder.rope_theta) == (True, False, 1e6)
    assert read.extras["template"] == "internvl2_5"


def test_absent_fields_take_the_defaults_of_the_class(golden):
    data = native(golden)
    data["vision_config"] = {}
    del data["downsample_ratio"]
    tower = parse_config(data).model.vision
    assert (tower.patches.width, tower.layers, tower.heads, tower.ffn_size) == (1024, 24, 16, 4096)
    assert (tower.patches.tile, tower.patches.downsample, tower.qkv_bias) == (448, 2, False)


def test_what_only_the_native_class_has_is_read_and_stays_native(golden):
    data = native(golden, "internvl-hf-6b-style")
    assert parse_config(data).model.vision.qk_norm_eps is None
    data["vision_config"] |= {"layer_norm_eps": 1e-5, "use_mean_pooling": False}
    model = parse_config(data).model
    assert (model.vision.norm_eps, model.vision.qk_norm_eps, model.vision.final_norm) == (1e-5, 1e-6, True)
    assert parse_config(hf_config(model, {}, image_token=500)).model == model
    with pytest.raises(CheckpointError, match="no norm after the tower and one epsilon for all of its norms"):
        original_config(model, {})


@pytest.mark.parametrize("kind", ["proportional", "yarn", "dynamic", "default"])
@pytest.mark.parametrize("style", ["rope_parameters", "rope_scaling", "type"])
def test_rotary_settings_of_old_and_new_files(golden, kind, style):
    data = native(golden)
    text = data["text_config"]
    del text["rope_parameters"]
    if style == "rope_parameters":
        text["rope_parameters"] = {"rope_type": kind, "factor": 3.0, "rope_theta": 5e5}
    else:
        text |= {
            "rope_theta": 5e5,
            "rope_scaling": {"rope_type" if style == "rope_scaling" else "type": kind, "factor": 3.0},
        }
    if kind == "proportional":
        with pytest.raises(CheckpointError, match=r"rope_type' is 'proportional'|type' is 'proportional'"):
            parse_config(data)
        return
    decoder = parse_config(data).model.decoder
    assert decoder.rope_theta == 5e5
    assert (decoder.rope_scaling, decoder.rope_factor) == (("none", 2.0) if kind == "default" else (kind, 3.0))


def test_the_head_is_tied_by_its_absence_not_by_a_flag_at_the_top(golden, tmp_path):
    data = native(golden)
    data["tie_word_embeddings"] = True
    assert not parse_config(data, ["lm_head.weight"]).model.decoder.tied_head
    (tmp_path / "config.json").write_text(json.dumps(data))
    stored = load_file(golden / "internvl-hf" / "model.safetensors")
    save_file(stored, tmp_path / "model.safetensors")
    assert hasattr(load_model(tmp_path).decoder, "head")
    del stored["language_model.lm_head.weight"]
    save_file(stored, tmp_path / "model.safetensors")
    tied = load_model(tmp_path).decoder
    assert torch.equal(tied.head_weight, tied.embed.weight)
    data["tie_word_embeddings"] = data["text_config"]["tie_word_embeddings"] = False
    (tmp_path / "config.json").write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match=r"1 missing: language_model\.lm_head\.weight"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("", "vision_feature_select_strategy", "full", "'vision_feature_select_strategy' is 'full'; expected one of"),
        ("", "projector_hidden_act", "relu", "'projector_hidden_act' is 'relu'"),
        ("", "downsample_ratio", 0.3, "expected 1 divided by a whole number"),
        ("", "text_config", None, "'text_config' is missing or no object"),
        ("vision_config", "use_mean_pooling", None, "'vision_config.use_mean_pooling' is None; expected true or false"),
        ("vision_config", "image_size", [448, 224], r"image_size' is \[448, 224\]; expected an integer, or a pair"),
        ("vision_config", "patch_size", 0, "expected an integer, or a pair of equal ones"),
        ("vision_config", "num_attention_heads", 7, "expected a divisor of hidden_size 64"),
        ("text_config", "hidden_size", "64", "'text_config.hidden_size' is '64'; expected an integer"),
        ("text_config", "model_type", "gpt_oss", "'text_config.model_type' is 'gpt_oss'; expected one of 'qwen2'"),
        ("text_config", "rope_parameters", 3, "'text_config.rope_parameters' is 3; expected an object or null"),
        ("text_config", "rope_parameters", [], r"'text_config.rope_parameters' is \[\]; expected an object or null"),
        ("text_config", "layer_types", ["x"], "expected only 'full_attention'"),
        (
            "text_config",
            "rope_parameters",
            {"rope_type": "default", "rope_theta": 1e6, "partial_rotary_factor": 0.5},
            "'text_config.rope_parameters.partial_rotary_factor' is 0.5",
        ),
        ("", "vision_config", [], r"'vision_config' is \[\]; expected an object or null"),
        (
            "",
            "image_token_id",
            512,
            "'image_token_id' is 512; expected the id of a token, below text_config.vocab_size 512",
        ),
        (
            "vision_config",
            "layer_norm_eps",
            2,
            "'vision_config.layer_norm_eps' is 2; expected a positive number up to 1",
        ),
    ],
)
def test_unusable_fields_are_named(golden, section, key, value, message):
    data = native(golden)
    data["vision_config"]["use_qk_norm"] = True
    (data[section] if section else data)[key] = value
    with pytest.raises(CheckpointError, match=message):
        parse_config(data)
