"""Folders of the first XComposer as released: names of tensors and config.json (arXiv 2309.15112).

Sizes of tower and sampler stand in no released config.json, only in the code; a folder of other sizes has the objects
``visual_encoder`` and ``perceive_sampler`` beside the official fields. The adapters stand in ``internlm_lora``
(``llama_lora`` in an early revision; null: none). Missing fields take the defaults of the released class, which are not the
released values (32 queries). Two buffers in the files, the rotary frequencies and BERT's position ids, follow from the code:
they are ignored when reading and written again.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, get_args

import torch
from torch import Tensor

from vedere.errors import CheckpointError
from vedere.models.config_fields import MOST_LAYERS, Fields
from vedere.models.decoder import DecoderConfig
from vedere.models.eva import EvaConfig
from vedere.models.key_rules import KeyMap, Rule, Same, Stacked
from vedere.models.keymaps import LLAMA, OWN, LanguageNames, language_rules
from vedere.models.patches import PatchConfig
from vedere.models.perceive_sampler import SamplerConfig
from vedere.models.shape_causes import Shape
from vedere.models.xcomposer import Adapted, LowRankConfig, XComposerConfig, adapted_rows

MODEL_TYPE = "InternLMXComposer"
BUFFERS = (".rotary_emb.inv_freq", "Qformer.bert.embeddings.position_ids")
_LANGUAGE = "internlm_model."
_BERT_POSITIONS = 512
_FOREIGN_PART = {part: f"self_attn.{part}_proj" for part in "qkvo"} | {
    part: f"mlp.{part}_proj" for part in ("up", "down")
}


def extras_of(data: Mapping[str, Any], model: XComposerConfig) -> dict[str, Any]:
    """The fields of config.json, and what the released code does without saying so: one square, the prompt."""
    said = {
        "policy": {"kind": "square", "sampled": model.tokens_per_picture},
        "template": "ixc1",
        "system_message": "none",  # the first revision of the VL model; "original" is the later one's meta instruction
    }
    return said | dict(data)


def _one(own: str, foreign: str, shape: Shape, foreign_shape: Shape | None = None) -> Rule:
    return Rule(own, shape, (foreign,), (foreign_shape or shape,), Same())


def _affine(own: str, foreign: str, rows: int, columns: int = 0) -> list[Rule]:
    """Weight and bias of a linear map, or of a norm where there are no columns."""
    shape = (rows, columns) if columns else (rows,)
    return [_one(f"{own}.weight", f"{foreign}.weight", shape), _one(f"{own}.bias", f"{foreign}.bias", (rows,))]


def _tower(config: EvaConfig) -> list[Rule]:
    patches, c = config.patches, config.patches.width
    positions, place = patches.table_grid**2 + 1, "visual_encoder."
    rules = [
        _one("vision.cls", f"{place}cls_token", (c,), (1, 1, c)),
        _one("vision.positions", f"{place}pos_embed", (positions, c), (1, positions, c)),
        _one("vision.patch.weight", f"{place}patch_embed.proj.weight", (c, 3, patches.patch, patches.patch)),
        _one("vision.patch.bias", f"{place}patch_embed.proj.bias", (c,)),
        *_affine("vision.norm", "ln_vision", c),
    ]
    for number in range(config.layers):
        own, block = f"vision.layers.{number}", f"{place}blocks.{number}"
        rules += [
            *_affine(f"{own}.norm1", f"{block}.norm1", c),
            *_affine(f"{own}.norm2", f"{block}.norm2", c),
            *(_one(f"{own}.attention.{n}_bias", f"{block}.attn.{n}_bias", (c,)) for n in "qv" if config.qkv_bias),
            _one(f"{own}.attention.qkv.weight", f"{block}.attn.qkv.weight", (3 * c, c)),
            *_affine(f"{own}.attention.out", f"{block}.attn.proj", c, c),
            *_affine(f"{own}.fc1", f"{block}.mlp.fc1", config.ffn_size, c),
            *_affine(f"{own}.fc2", f"{block}.mlp.fc2", c, config.ffn_size),
        ]
    return rules


def _sampler(config: SamplerConfig) -> list[Rule]:
    c, place = config.width, "Qformer.bert."
    rules = [
        _one("sampler.queries", "query_tokens", (config.queries, c), (1, config.queries, c)),
        *_affine("sampler.norm", f"{place}embeddings.LayerNorm", c),
    ]
    for number in range(config.layers):
        own, layer = f"sampler.layers.{number}", f"{place}encoder.layer.{number}"
        attentions = [("attention", "attention", c)]
        if config.crosses(number):
            attentions.append(("cross", "crossattention", config.picture_width))
        for name, foreign, source in attentions:
            rules += [
                *_affine(f"{own}.{name}.query", f"{layer}.{foreign}.self.query", c, c),
                *_affine(f"{own}.{name}.key", f"{layer}.{foreign}.self.key", c, source),
                *_affine(f"{own}.{name}.value", f"{layer}.{foreign}.self.value", c, source),
                *_affine(f"{own}.{name}.out", f"{layer}.{foreign}.output.dense", c, c),
                *_affine(f"{own}.{name}.norm", f"{layer}.{foreign}.output.LayerNorm", c),
            ]
        rules += [
            *_affine(f"{own}.fc1", f"{layer}.intermediate_query.dense", config.ffn_size, c),
            *_affine(f"{own}.fc2", f"{layer}.output_query.dense", c, config.ffn_size),
            *_affine(f"{own}.norm", f"{layer}.output_query.LayerNorm", c),
        ]
    return rules


def _adapters(decoder: DecoderConfig, lora: LowRankConfig) -> list[Rule]:
    rules, rank = [], lora.rank
    for number in range(decoder.layers):
        own, layer = f"decoder.layers.{number}", f"{_LANGUAGE}{LLAMA.layer.format(number)}"
        for name, parts in adapted_rows(decoder, lora.maps).items():
            width = decoder.ffn_size if name.endswith("down") else decoder.hidden_size  # heads are as wide as the model
            places = [layer + _FOREIGN_PART[part] for part in parts]
            ups = tuple((rows, rank) for _, rows in parts.values())
            for leaf, shapes in (("lora_A", ((rank, width),) * len(parts)), ("lora_B", ups)):
                stacked = (sum(rows for rows, _ in shapes), shapes[0][1])
                foreign = tuple(f"{place}.{leaf}.weight" for place in places)
                rules.append(Rule(f"{own}.{name}.low.{leaf}", stacked, foreign, shapes, Stacked()))
    return rules


def key_map(config: XComposerConfig, names: LanguageNames = LLAMA) -> KeyMap:
    """The map of the released files; with `OWN`, of vedere's."""
    width = config.decoder.hidden_size
    rules = [
        *_tower(config.vision),
        *_sampler(config.sampler),
        *_affine("projector", "internlm_proj", width, config.sampler.width),
        _one("image_start", "flag_image_start", (width,), (1, 1, width)),
        _one("image_end", "flag_image_end", (width,), (1, 1, width)),
        *language_rules(config.decoder, names, _LANGUAGE),
        *(_adapters(config.decoder, config.lora) if config.lora else ()),
    ]
    return KeyMap("xcomposer", tuple(rules)) if names is not OWN else KeyMap("xcomposer (vedere)", tuple(rules))


def buffers(config: XComposerConfig) -> dict[str, Tensor]:
    """The tensors of the released files that no parameter holds."""
    decoder = config.decoder
    steps = torch.arange(0, decoder.head_dim, 2, dtype=torch.float32) / decoder.head_dim
    frequencies = 1.0 / decoder.rope_theta**steps
    found = {f"{_LANGUAGE}model.layers.{n}.self_attn{BUFFERS[0]}": frequencies.clone() for n in range(decoder.layers)}
    return found | {BUFFERS[1]: torch.arange(_BERT_POSITIONS)[None]}


def parse(data: Mapping[str, Any], where: str = "config.json") -> XComposerConfig:
    """The model of a config.json.

    Raises:
        CheckpointError: a field that is missing, unusable, or asks for what cannot be computed here.
        ConfigError: fields that do not fit together.
    """
    top = Fields(data, where, "")
    top.only("hidden_act", ["silu"], "silu")
    converted = top.flag(
        "intern_converted_llm", True
    )  # false: the same attention, without biases whatever the switch says
    hidden, heads = top.size("hidden_size"), top.size("num_attention_heads")
    if hidden % heads:
        raise top.fail("num_attention_heads", f"a divisor of hidden_size {hidden}")
    bias = converted and top.flag("kqvo_bias", True)
    decoder = DecoderConfig(
        hidden_size=hidden,
        ffn_size=top.size("intermediate_size"),
        layers=top.size("num_hidden_layers", most=MOST_LAYERS),
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        vocab_size=top.size("vocab_size"),
        norm_eps=top.number("rms_norm_eps", 1e-5),
        rope_theta=10_000.0,
        max_positions=top.size("max_position_embeddings", 2048),
        qkv_bias=bias,
        out_bias=bias,
        tied_head=top.only("tie_word_embeddings", [False], False),
    )
    vision = _read_tower(data, where)
    return XComposerConfig(
        decoder=decoder,
        vision=vision,
        sampler=_read_sampler(data, where, top.size("num_query_token", 32), vision.patches.width),
        lora=_read_adapters(data, where),
    )


def _read_tower(data: Mapping[str, Any], where: str) -> EvaConfig:
    if data.get("visual_encoder") is None:
        return EvaConfig()
    fields = Fields(data["visual_encoder"], where, "visual_encoder")
    for name, off in (
        ("qk_scale", None),
        ("init_values", None),
        ("use_rel_pos_bias", False),
        ("use_shared_rel_pos_bias", False),
    ):
        fields.only(name, [off], off)  # switches of the released builder that it never sets
    fields.only("use_abs_pos_emb", [True], True)
    width = fields.size("embed_dim")
    patches = PatchConfig(
        width=width, patch=fields.size("patch_size", 14), tile=fields.size("img_size", 224), downsample=1
    )
    return EvaConfig(
        patches=patches,
        layers=fields.size("depth", most=MOST_LAYERS),
        heads=fields.size("num_heads"),
        ffn_size=int(width * fields.number("mlp_ratio", 4.3637)),
        norm_eps=fields.number("layer_norm_eps", 1e-6),
        qkv_bias=fields.flag("qkv_bias", True),
    )


def _read_sampler(data: Mapping[str, Any], where: str, queries: int, picture_width: int) -> SamplerConfig:
    if data.get("perceive_sampler") is None:
        return SamplerConfig(queries=queries, picture_width=picture_width)
    fields = Fields(data["perceive_sampler"], where, "perceive_sampler")
    fields.only("hidden_act", ["gelu"], "gelu")
    return SamplerConfig(
        queries=queries,
        width=fields.size("hidden_size"),
        layers=fields.size("num_hidden_layers", most=MOST_LAYERS),
        heads=fields.size("num_attention_heads"),
        ffn_size=fields.size("intermediate_size"),
        picture_width=fields.size("encoder_width", picture_width),
        cross_every=fields.size("cross_attention_freq", 2),
        norm_eps=fields.number("layer_norm_eps", 1e-12),
    )


def _read_adapters(data: Mapping[str, Any], where: str) -> LowRankConfig | None:
    name = next((key for key in ("internlm_lora", "llama_lora") if data.get(key) is not None), None)
    if name is None:
        return None
    fields = Fields(data[name], where, name)
    if not isinstance(fields.data.get("learn_param"), list):
        raise fields.fail("learn_param", "a list of the adapted maps: q, k, v, o, ffn")
    learns = tuple(fields.texts("learn_param"))
    if not learns:
        return None  # nothing is adapted, whatever the rank
    if len(set(learns)) < len(learns) or set(learns) - set(get_args(Adapted)):
        raise fields.fail("learn_param", "some of q, k, v, o, ffn, each once (what the released code can adapt)")
    dropout = fields.data.get("lora_dropout", 0.05)
    return LowRankConfig(
        rank=fields.size("lora_r", 8),
        alpha=fields.number("lora_alpha", 16.0),
        dropout=fields.number("lora_dropout", 0.05) if dropout else 0.0,
        maps=learns,  # type: ignore[arg-type]  # checked above
    )


def write(model: XComposerConfig, extras: Mapping[str, Any]) -> dict[str, Any]:
    """config.json as the released code reads it: ``extras`` with every shape replaced by the model's.

    Raises:
        CheckpointError: the released code has no such decoder.
    """
    c = model.decoder
    if c.kv_heads != c.heads or c.qkv_bias != c.out_bias or c.rope_scaling != "none" or c.rope_theta != 10_000.0:
        raise CheckpointError(
            "the released XComposer code has as many key heads as query heads, biases on all four maps or on none, and plain "
            'rotary frequencies of base 10000; save this model with layout="vedere" instead'
        )
    data = copy.deepcopy({key: value for key, value in extras.items() if key not in ("policy", "statistics")})
    data |= {
        "architectures": ["InternLMXComposerForCausalLM"],
        "model_type": MODEL_TYPE,
        "hidden_size": c.hidden_size,
        "intermediate_size": c.ffn_size,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "vocab_size": c.vocab_size,
        "max_position_embeddings": c.max_positions,
        "hidden_act": "silu",
        "rms_norm_eps": c.norm_eps,
        "bias": c.qkv_bias,
        "kqvo_bias": c.qkv_bias,
        "intern_converted_llm": True,
        "num_query_token": model.sampler.queries,
        "tie_word_embeddings": c.tied_head,
    }
    adapters = None
    if model.lora is not None:
        adapters = {"freeze": False} | (data.get("internlm_lora") or data.get("llama_lora") or {})
        adapters |= {
            "learn_param": list(model.lora.maps),
            "lora_r": model.lora.rank,
            "lora_alpha": model.lora.alpha,
            "lora_dropout": model.lora.dropout,
        }
    data.pop("llama_lora", None)
    data["internlm_lora"] = data["lora_cfg"] = adapters
    tower, sampler = model.vision, model.sampler
    if tower != EvaConfig():
        data["visual_encoder"] = {
            "img_size": tower.patches.tile,
            "patch_size": tower.patches.patch,
            "embed_dim": tower.patches.width,
            "depth": tower.layers,
            "num_heads": tower.heads,
            "mlp_ratio": (tower.ffn_size + 0.5) / tower.patches.width,  # the code takes int(width * ratio)
            "qkv_bias": tower.qkv_bias,
            "layer_norm_eps": tower.norm_eps,
        }
    if sampler != SamplerConfig(queries=sampler.queries, picture_width=sampler.picture_width):
        data["perceive_sampler"] = {
            "hidden_size": sampler.width,
            "num_attention_heads": sampler.heads,
            "num_hidden_layers": sampler.layers,
            "intermediate_size": sampler.ffn_size,
            "cross_attention_freq": sampler.cross_every,
            "layer_norm_eps": sampler.norm_eps,
            "hidden_act": "gelu",
            "encoder_width": sampler.picture_width,
        }
    return data
