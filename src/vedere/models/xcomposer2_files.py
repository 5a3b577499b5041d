"""Released files of XComposer2, 4KHD and XComposer-2.5's base: names of tensors and config.json, both ways.

The whole tower stands behind ``vit.vision_tower.``, the projector is ``vision_proj.0`` and ``.2``, the language model keeps
InternLM2's names without a prefix, each linear map with ``Plora_A`` and ``Plora_B`` beside it (arXiv 2404.06512; names by the
released code). ``plora_sub_GN`` is the end of a row in both maps, ``plora_glb_GN`` the separator.

config.json says little: neither tower nor tiles nor merge nor rank, and ``architectures`` may name plain InternLM2. A folder is
of this family by ``auto_map``, ``model_type`` or the names of its tensors; tile and kind of views follow from the tensors
where they are at hand (the position table has a row a patch), else from ``img_size``, which 4KHD does not have. The tower is
that of every release, CLIP ViT-L/14. Small recordings say what differs in ``vision_config``, ``plora_r``, ``plora_alpha``
and ``sub_image_size``, and so does this file when it writes another shape than the released ones.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from vedere.errors import CheckpointError
from vedere.models.clip_vit import ClipViTConfig
from vedere.models.config_fields import MOST_LAYERS, Fields
from vedere.models.key_rules import KeyMap, Rule, Stacked
from vedere.models.keymaps import INTERNLM2, LanguageNames, language_rules, linear_rules, same_rule
from vedere.models.language_configs import read_language, write_language
from vedere.models.patches import PatchConfig
from vedere.models.xcomposer2 import XComposer2Config

ARCHITECTURE = "InternLMXComposer2ForCausalLM"
UNUSED = (
    "vit.vision_tower.vision_model.post_layernorm.weight",
    "vit.vision_tower.vision_model.post_layernorm.bias",
    "vit.vision_tower.vision_model.embeddings.position_ids",
)
"""Tensors that some files carry and no released code uses."""
_SEPARATOR = "plora_glb_GN"
_POSITIONS = "vit.vision_tower.vision_model.embeddings.position_embedding.weight"
_RANK = 256


def is_xcomposer2(data: Mapping[str, Any], names: Collection[str] = ()) -> bool:
    """Whether a config.json (and the tensors beside it) are of this family."""
    auto = data.get("auto_map")
    classes = list(auto.values()) if isinstance(auto, Mapping) else []
    named = data.get("architectures")
    classes += named if isinstance(named, list) else [named]
    return (
        data.get("model_type") == "internlmxcomposer2"
        or any(str(name).rpartition(".")[2] == ARCHITECTURE for name in classes)
        or (data.get("model_type") in ("internlm", "internlm2") and any(".Plora_A." in name for name in names))
    )


def read(data: Mapping[str, Any], names: Collection[str], where: str) -> XComposer2Config:
    """The model of a config.json.

    Args:
        data: The whole object.
        names: Names of the tensors, or the tensors by name, whose shapes then settle what the fields leave open.
        where: How messages call the file.

    Raises:
        CheckpointError: a field that is missing or unusable.
    """
    top = Fields(data, where, "")
    vision = Fields(data.get("vision_config") or {}, where, "vision_config")
    patch, width = vision.size("patch_size", 14), vision.size("hidden_size", 1024)
    table = names.get(_POSITIONS) if isinstance(names, Mapping) else None
    hd = _SEPARATOR in names if names else "sub_image_size" in data or "img_size" not in data
    side = "sub_image_size" if hd else "img_size"
    tile = top.size(side, 336)
    if table is not None and side not in data:
        tile = patch * math.isqrt(max(1, len(table) - 1))
    vision.only("hidden_act", ["quick_gelu"], "quick_gelu")
    vision.only("num_channels", [3], 3)
    merge = 2 if hd else 1
    if tile % (patch * merge):
        raise top.fail(side, f"a multiple of {patch * merge}")
    heads = vision.size("num_attention_heads", 16)
    if width % heads:
        raise vision.fail("num_attention_heads", f"a divisor of hidden_size {width}")
    return XComposer2Config(
        vision=ClipViTConfig(
            patches=PatchConfig(width=width, patch=patch, tile=tile, downsample=merge, bias=False),
            layers=vision.size("num_hidden_layers", 24, MOST_LAYERS),
            heads=heads,
            ffn_size=vision.size("intermediate_size", 4096),
            norm_eps=vision.number("layer_norm_eps", 1e-5),
        ),
        decoder=read_language(
            top,
            "internlm2",
            names,
            partial_rank=top.size("plora_r", _RANK),
            partial_alpha=top.number("plora_alpha", float(_RANK)),
        ),
        views="hd" if hd else "square",
    )


def write(model: XComposer2Config, extras: Mapping[str, Any]) -> dict[str, Any]:
    """config.json as the released code reads it: ``extras`` with every shape replaced by the model's.

    Raises:
        CheckpointError: InternLM2's config has no place for the language model.
    """
    kept = {key: value for key, value in extras.items() if key not in ("sub_image_size", "img_size", "vision_config")}
    data = write_language(model.decoder, {}, only="internlm2")
    data = kept | data | {"model_type": "internlmxcomposer2", "architectures": [ARCHITECTURE]}
    if "rope_scaling" in extras and read_language(
        Fields(data | {"rope_scaling": extras["rope_scaling"]}, "", ""), "internlm2"
    ) == (read_language(Fields(data, "", ""), "internlm2")):
        data["rope_scaling"] = extras["rope_scaling"]
    tower, patches = model.vision, model.vision.patches
    data["sub_image_size" if model.views == "hd" else "img_size"] = patches.tile
    data["vision_config"] = dict(extras.get("vision_config") or {}) | {
        "hidden_size": patches.width,
        "intermediate_size": tower.ffn_size,
        "num_hidden_layers": tower.layers,
        "num_attention_heads": tower.heads,
        "image_size": patches.tile,
        "patch_size": patches.patch,
        "num_channels": 3,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": tower.norm_eps,
    }
    return data | {"plora_r": model.decoder.partial_rank, "plora_alpha": model.decoder.partial_alpha}


def key_map(model: XComposer2Config, names: LanguageNames = INTERNLM2) -> KeyMap:
    """The map of the released files; with `vedere.models.keymaps.OWN`, of vedere's.

    Raises:
        CheckpointError: a language model without partial LoRA, which the released files always have.
    """
    if not model.decoder.partial_rank and names is INTERNLM2:
        raise CheckpointError(
            'the released files of XComposer2 have partial LoRA, this model has none; save it with layout="vedere"'
        )
    tower, patches = model.vision, model.vision.patches
    width, ffn, foreign = patches.width, tower.ffn_size, "vit.vision_tower.vision_model"
    rules = [
        same_rule(
            "vision.patch.weight",
            f"{foreign}.embeddings.patch_embedding.weight",
            (width, 3, patches.patch, patches.patch),
        ),
        same_rule("vision.cls", f"{foreign}.embeddings.class_embedding", (width,)),
        same_rule("vision.positions", _POSITIONS, (patches.table_grid**2 + 1, width)),
        *_norm("vision.pre_norm", f"{foreign}.pre_layrnorm", width),
    ]
    for number in range(tower.layers):
        own, layer = f"vision.layers.{number}", f"{foreign}.encoder.layers.{number}"
        qkv = [f"{layer}.self_attn.{name}_proj" for name in "qkv"]
        rules += [
            *_norm(f"{own}.norm1", f"{layer}.layer_norm1", width),
            *_norm(f"{own}.norm2", f"{layer}.layer_norm2", width),
            Rule(
                f"{own}.attention.qkv.weight",
                (3 * width, width),
                tuple(f"{name}.weight" for name in qkv),
                ((width, width),) * 3,
                Stacked(),
            ),
            Rule(
                f"{own}.attention.qkv.bias",
                (3 * width,),
                tuple(f"{name}.bias" for name in qkv),
                ((width,),) * 3,
                Stacked(),
            ),
            *linear_rules(f"{own}.attention.out", f"{layer}.self_attn.out_proj", width, width, True),
            *linear_rules(f"{own}.ffn.fc1", f"{layer}.mlp.fc1", ffn, width, True),
            *linear_rules(f"{own}.ffn.fc2", f"{layer}.mlp.fc2", width, ffn, True),
        ]
    hidden, merged = model.decoder.hidden_size, model.merged_width
    rules += [
        *linear_rules("projector.fc1", "vision_proj.0", hidden, merged, True),
        *linear_rules("projector.fc2", "vision_proj.2", hidden, hidden, True),
    ]
    if model.views == "hd":
        rules += [
            same_rule("row_end", "plora_sub_GN", (merged,), (1, 1, 1, merged)),
            same_rule("separator", _SEPARATOR, (merged,), (1, 1, merged)),
        ]
    return KeyMap("xcomposer2", (*rules, *language_rules(model.decoder, names)))


def _norm(own: str, foreign: str, width: int) -> list[Rule]:
    return [same_rule(f"{own}.{leaf}", f"{foreign}.{leaf}", (width,)) for leaf in ("weight", "bias")]
