"""The first XComposer: original files, totals, adapters, refusals. Its numbers are in tests/parity."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from vedere.errors import CheckpointError, ConfigError, PromptError
from vedere.models.adapters import LoRA, attach, detach_lora, merge_lora, save_adapter
from vedere.models.checkpoints import key_map, load_model, read_config, save_model
from vedere.models.footprint import model_shape, parameters
from vedere.models.low_rank import LoRALinear, LowRank
from vedere.models.perceive_sampler import PerceiveSampler, SamplerConfig
from vedere.models.published import original_config, parse_config
from vedere.models.releases import XCOMPOSER_7B
from vedere.models.xcomposer import LowRankConfig, XComposer
from vedere.models.xcomposer_files import buffers
from vedere.plan import SquarePolicy, plan_media

NAME = "xcomposer-1"


@pytest.fixture(scope="module")
def model(golden):
    return load_model(golden / NAME)


def test_the_original_files_survive_bit_for_bit(golden, model, tmp_path):
    save_model(model, tmp_path, layout="original", extras=read_config(golden / NAME).extras)
    before, after = load_file(golden / NAME / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert after.keys() == before.keys()
    computed = buffers(model.config).keys()
    assert len(computed) == 3
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items() if name not in computed)
    rotary = "internlm_model.model.layers.1.self_attn.rotary_emb.inv_freq"
    torch.testing.assert_close(after[rotary], before[rotary], rtol=1e-6, atol=0)
    given = json.loads((golden / NAME / "config.json").read_text())
    written = json.loads((tmp_path / "config.json").read_text())
    assert {"policy", "statistics"}.isdisjoint(written)
    moved = {name for name in given if given[name] != written[name]}
    assert moved <= {"visual_encoder"}  # mlp_ratio: another number of the same width
    assert read_config(tmp_path).model == model.config


def test_vederes_own_layout_and_back(model, tmp_path):
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert again.config == model.config
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    "name",
    [
        "flag_image_end",
        "Qformer.bert.encoder.layer.2.crossattention.self.key.weight",
        "internlm_model.model.layers.1.mlp.up_proj.lora_B.weight",  # without it a lenient loader gives a ruined model
    ],
)
def test_a_missing_tensor_is_refused_by_name(golden, tmp_path, name):
    tensors = load_file(golden / NAME / "model.safetensors")
    del tensors[name]
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((golden / NAME / "config.json").read_text())
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        load_model(tmp_path)


def test_totals_of_the_release():
    """0.99 B tower, 0.11 B sampler, 7.32 B language model with biases, 0.38 B adapters."""
    with torch.device("meta"):
        model = XComposer(XCOMPOSER_7B)
    counts = {"lora": 0, "decoder": 0, "vision": 0, "sampler": 0, "projector": 0, "image_start": 0, "image_end": 0}
    for name, parameter in model.named_parameters():
        counts["lora" if ".lora_" in name else name.split(".")[0]] += parameter.numel()
    d, f, r = 4096, 11008, 256
    assert counts["lora"] == 32 * (2 * r * (d + d) + 2 * r * (d + f))
    assert counts["decoder"] == 32 * (4 * d * d + 4 * d + 3 * d * f + 2 * d) + d + 2 * 103170 * d
    c, h = 1408, 6144
    block = 4 * c + 3 * c * c + 2 * c + c * c + c + 2 * c * h + h + c
    assert counts["vision"] == 39 * block + c + 257 * c + 3 * 196 * c + c + 2 * c  # 986 M
    assert counts["image_start"] == counts["image_end"] == 4096
    assert parameters(XCOMPOSER_7B).total == sum(counts.values())
    assert f"{sum(counts.values()) / 1e9:.2f}" == "8.80"
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {"image_start", "image_end"}
    names = key_map(XCOMPOSER_7B, "original").foreign_shapes
    assert names["visual_encoder.blocks.38.attn.q_bias"] == (1408,)
    assert "visual_encoder.blocks.39.attn.q_bias" not in names
    assert names["internlm_model.model.layers.31.mlp.down_proj.lora_A.weight"] == (256, 11008)


def test_merged_adapters_answer_alike_and_are_not_nothing(golden, tmp_path):
    model = load_model(golden / NAME)
    ids, places = torch.arange(20, 40), torch.arange(20)
    with torch.no_grad():
        adapted = model(ids, places, [0, 20])
        lows = [part for part in model.modules() if isinstance(part, LowRank)]
        assert len(lows) == 3 * model.config.decoder.layers
        assert all(block.abs().max() > 0 for low in lows for block in low.lora_B.split([n for _, n in low.parts]))
        merge_lora(model)
        merged = model(ids, places, [0, 20])
    torch.testing.assert_close(merged, adapted, rtol=0, atol=2e-5)
    assert model.config.lora is None
    assert set(model.state_dict()) == set(key_map(model.config).own_shapes)
    save_model(
        model, tmp_path, layout="original", extras=read_config(golden / NAME).extras
    )  # a release without adapters
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path)(ids, places, [0, 20]), merged)
        plain = detach_lora(load_model(golden / NAME))(ids, places, [0, 20])
    assert (plain - adapted).abs().max() > 0.01


def test_adapters_of_the_release_are_a_folder_of_peft_and_refuse_a_second_one(golden, tmp_path):
    model = load_model(golden / NAME)
    save_adapter(model, tmp_path)
    saved, released = load_file(tmp_path / "adapter_model.safetensors"), load_file(golden / NAME / "model.safetensors")
    factors = {name: tensor for name, tensor in released.items() if ".lora_" in name}
    assert saved.keys() == {f"base_model.model.{name}" for name in factors}
    assert all(torch.equal(saved[f"base_model.model.{name}"], tensor) for name, tensor in factors.items())
    with pytest.raises(ConfigError, match=r"has a LoRA already; merge it first"):
        attach(model, LoRA(rank=2, alpha=2))
    merge_lora(model)
    assert attach(model, LoRA(rank=2, alpha=2, targets=("q_proj",), naming="llama"))


def test_adapters_touch_their_rows_only():
    base = torch.nn.Linear(6, 12)
    low = LowRank(6, [(0, 4), (8, 4)], 2, 4.0)
    adapted = LoRALinear(base, low)
    x = torch.randn(5, 6)
    assert torch.equal(adapted(x), base(x))  # B starts at zero
    with torch.no_grad():
        low.lora_B[4:].normal_()
        moved = adapted(x) - base(x)
    assert torch.equal(moved[:, :8], torch.zeros(5, 8))
    by_hand = 2.0 * x @ low.lora_A[2:].T @ low.lora_B[4:].T
    torch.testing.assert_close(moved[:, 8:], by_hand)
    half = LoRALinear(torch.nn.Linear(6, 12).bfloat16(), low)
    assert half(x.bfloat16()).dtype == torch.bfloat16  # float32 adapters on a half-precision base
    expected = torch.nn.functional.linear(x.bfloat16(), half.weight, half.bias).float()
    expected[:, 8:] += 2.0 * x.bfloat16().float() @ low.lora_A[2:].T @ low.lora_B[4:].T
    assert torch.equal(half(x.bfloat16()), expected.bfloat16())


def test_the_sampler_looks_at_the_picture_in_even_layers_and_is_blind_to_its_order():
    config = SamplerConfig(queries=3, width=8, layers=4, heads=2, ffn_size=12, picture_width=6)
    sampler = PerceiveSampler(config).eval()
    assert [hasattr(layer, "cross") for layer in sampler.layers] == [True, False, True, False]
    picture = torch.randn(2, 5, 6)
    with torch.no_grad():
        seen = sampler(picture)
        assert seen.shape == (2, 3, 8)
        torch.testing.assert_close(sampler(picture.flip(1)), seen, rtol=0, atol=1e-5)
        assert not torch.allclose(sampler(picture + 1), seen, atol=1e-3)


def test_a_picture_takes_66_positions_and_no_other_number(model):
    plan = plan_media(640, 480, SquarePolicy(tile=224, downsample=1, sampled=XCOMPOSER_7B.tokens_per_picture))
    assert plan.tokens == 66
    assert plan.resized == (224, 224)
    pixels = torch.zeros(1, 3, 56, 56)
    types = torch.ones(7, dtype=torch.long)
    with pytest.raises(PromptError, match=r"7 visual positions for 8 visual features \(8 a tile\)"):
        model.embed(torch.zeros(7, dtype=torch.long), types, pixels)


def test_config_decides_about_adapters_and_says_what_it_cannot_do(golden):
    data = json.loads((golden / NAME / "config.json").read_text())
    early = {key: value for key, value in data.items() if key != "internlm_lora"} | {
        "llama_lora": data["internlm_lora"]
    }
    assert parse_config(early).model == parse_config(data).model
    plain = parse_config(data | {"internlm_lora": None}).model
    assert plain.lora is None
    assert parse_config(original_config(plain, {})).model == plain
    given = data["internlm_lora"]
    for change, message in (
        (
            {"internlm_lora": given | {"learn_param": ["q", "gate"]}},
            r"'internlm_lora.learn_param' is \['q', 'gate'\]; expected some of q, k, v, o, ffn, each once",
        ),
        ({"internlm_lora": given | {"learn_param": ["q", "q"]}}, r"expected some of q, k, v, o, ffn, each once"),
        (
            {"internlm_lora": given | {"learn_param": "qv"}},
            r"is 'qv'; expected a list of the adapted maps: q, k, v, o, ffn",
        ),
        (
            {"visual_encoder": data["visual_encoder"] | {"qk_scale": 0.5}},
            r"'visual_encoder.qk_scale' is 0.5; expected one of None",
        ),
        ({"tie_word_embeddings": True}, r"'tie_word_embeddings' is True; expected one of False"),
        ({"num_attention_heads": 3}, r"'num_attention_heads' is 3; expected a divisor of hidden_size 64"),
    ):
        with pytest.raises(CheckpointError, match=message):
            parse_config(data | change)
    with pytest.raises(ConfigError, match="the sampler reads tokens of width 7, the tower writes 1408"):
        dataclasses.replace(XCOMPOSER_7B, sampler=SamplerConfig(picture_width=7))
    grouped = dataclasses.replace(XCOMPOSER_7B, decoder=dataclasses.replace(XCOMPOSER_7B.decoder, kv_heads=8))
    with pytest.raises(CheckpointError, match='layout="vedere"'):
        original_config(grouped, {})


def test_what_a_config_leaves_out_is_what_the_released_class_says(golden):
    data = json.loads((golden / NAME / "config.json").read_text())
    full = parse_config(data).model
    silent = ("rms_norm_eps", "kqvo_bias", "intern_converted_llm", "max_position_embeddings", "hidden_act")
    assert parse_config({name: value for name, value in data.items() if name not in silent}).model == full
    assert (
        parse_config({name: value for name, value in data.items() if name != "num_query_token"}).model.sampler.queries
        == 32
    )
    lora = parse_config(data | {"internlm_lora": {"learn_param": ["o", "k"]}}).model.lora
    assert lora == LowRankConfig(rank=8, alpha=16.0, dropout=0.05, maps=("o", "k"))
    assert parse_config(data | {"internlm_lora": data["internlm_lora"] | {"lora_dropout": 0}}).model.lora.dropout == 0
    assert parse_config(data | {"internlm_lora": data["internlm_lora"] | {"learn_param": []}}).model.lora is None
    plain = parse_config(data | {"intern_converted_llm": False}).model.decoder  # its attention never has biases
    assert (plain.qkv_bias, plain.out_bias) == (False, False)


@pytest.mark.parametrize("maps", [("q",), ("o", "k"), ("ffn",), ("k", "v", "q", "o", "ffn")])
def test_other_choices_of_adapted_maps_make_other_files_and_come_back(golden, tmp_path, maps):
    data = json.loads((golden / NAME / "config.json").read_text())
    shape = parse_config(data | {"internlm_lora": data["internlm_lora"] | {"learn_param": list(maps)}}).model
    assert shape.lora.maps == maps
    names = {name for name in key_map(shape, "original").foreign_shapes if ".lora_A." in name and ".layers.0." in name}
    kept = {name.rsplit(".", 3)[1] for name in names}
    assert kept == {f"{m}_proj" for m in maps if m != "ffn"} | ({"up_proj", "down_proj"} if "ffn" in maps else set())
    save_model(XComposer(shape), tmp_path, layout="original")
    assert read_config(tmp_path).model == shape
    assert json.loads((tmp_path / "config.json").read_text())["lora_cfg"]["learn_param"] == list(maps)
    assert parameters(shape).total == sum(p.numel() for p in load_model(tmp_path).parameters())


def test_adapters_that_the_released_code_does_not_have_are_refused():
    for maps in (("gate",), (), ("q", "q")):
        with pytest.raises(ConfigError, match="expected some of q, k, v, o, ffn, each once, or no adapters"):
            LowRankConfig(maps=maps)


def test_named_in_vedere_plan():
    shape = model_shape("xcomposer-vl-7b")
    assert shape.extras["policy"]["sampled"] == 66
    assert shape.extras["template"] == "ixc1"


def test_files_of_mixed_dtypes_load_as_bfloat16_unless_told_otherwise(golden, tmp_path):
    tensors = load_file(golden / NAME / "model.safetensors")
    kept = ("norm", "lora_", "embed")
    save_file(
        {n: t if any(k in n for k in kept) else t.half() for n, t in tensors.items()}, tmp_path / "model.safetensors"
    )
    (tmp_path / "config.json").write_text((golden / NAME / "config.json").read_text())
    assert load_model(tmp_path).dtype == torch.bfloat16
    assert load_model(tmp_path, torch.float32).dtype == torch.float32
    assert load_model(golden / NAME).dtype == torch.float32  # of one dtype: as stored
