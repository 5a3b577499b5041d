"""config.json, three dialects, one meaning: which model a folder of weights holds.

* `original`: the released ``internvl_chat`` folders (InternVL 1.5 to 2.5, Mono-InternVL, V2PE), with ``llm_config`` and
  ``vision_config`` inside. Absent fields take the defaults of the released config *classes*, which are not those of the
  released models: ``bias`` is true, ``ps_version`` is v1, ``rms_norm_eps`` 1e-6, ``rope_theta`` 10000.
* `hf`: the native layout of transformers (``internvl``); `vedere.models.hf_config` reads and writes it.
* `vedere`: ``{"format": "vedere", "family": ..., "model": {...}, "extras": {...}}``.
* `internlm2`, `llama` (Qwen2 too): a bare language model from the hub; `decoder`: the same as vedere caches it, the plain
  `DecoderConfig`.

Model types lie in this line (both InternViTs call themselves ``intern_vit_6b``, Mono calls its language model
``internlm2``), so the family is decided by architectures, fields, and the names of the tensors. Everything in an original
config that is no shape (template, tiling, stop ids, V2PE stride ...) is kept word for word in ``extras`` and written back.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vedere.config import from_dict, nearest, to_dict
from vedere.errors import CheckpointError, ConfigError
from vedere.models.decoder import DecoderConfig
from vedere.models.intern_vit import InternViTConfig
from vedere.models.internvl import InternVLConfig
from vedere.models.mono_internvl import MonoInternVLConfig
from vedere.models.patches import PatchConfig

Layout = Literal["vedere", "original", "hf", "internlm2", "llama", "decoder"]
ModelConfig = MonoInternVLConfig | InternVLConfig | DecoderConfig
FAMILIES: dict[str, type[Any]] = {
    "mono-internvl": MonoInternVLConfig,
    "internvl": InternVLConfig,
    "decoder": DecoderConfig,
}
# What `vedere.infer.prompts.policy_from` takes where a config says nothing; the released class has other defaults.
_TILING = {"dynamic_image_size": True, "use_thumbnail": True, "min_dynamic_patch": 1, "pad2square": False}
_LARGEST = sys.float_info.max  # integers of JSON have no end
_MOST_LAYERS, _WIDEST = 1024, 1 << 24  # a damaged config must not make anyone build a billion layers


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """What config.json says.

    Attributes:
        layout: Dialect, which is also the naming of the weights beside it.
        model: Shape of the model; its class is the family.
        extras: The original config.json (empty in the other dialects unless it was carried over).
    """

    layout: Layout
    model: ModelConfig
    extras: Mapping[str, Any] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """``mono-internvl``, ``internvl`` or ``decoder``."""
        return next(name for name, cls in FAMILIES.items() if isinstance(self.model, cls))


def read_config(directory: Path | str, names: Collection[str] = ()) -> CheckpointConfig:
    """Reads ``directory/config.json`` in any dialect.

    Args:
        directory: Folder of a checkpoint.
        names: Names of the tensors beside it, where known; they settle what the fields leave open.

    Raises:
        CheckpointError: no such file, not JSON, an unknown kind of model, or a field that is missing or unusable.
        ConfigError: a field of vedere's own dialect that does not exist or has a value of the wrong kind.
    """
    path = Path(directory) / "config.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            f"no {path}: expected a checkpoint directory with config.json and *.safetensors; check the path"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({error}); download or write it again") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds a JSON {type(data).__name__}; expected an object; download it again")
    return parse_config(data, names, str(path), Path(directory))


def parse_config(
    data: Mapping[str, Any],
    names: Collection[str] = (),
    where: str = "config.json",
    directory: Path | None = None,
) -> CheckpointConfig:
    """Like `read_config`, from the object itself; ``where`` is how messages call it, ``directory`` what lies beside it."""
    if data.get("model_type") == "internvl":  # a dialect with a file of its own, which reads fields as this one does
        from vedere.models.hf_config import extras_of, parse_hf

        return CheckpointConfig(layout="hf", model=parse_hf(data, names, where), extras=extras_of(data, directory))
    try:
        return _parse(data, names, where)
    except ConfigError as error:  # configs check themselves, but do not know where they came from
        raise ConfigError(f"{where}: {error}") from None


def _parse(data: Mapping[str, Any], names: Collection[str], where: str) -> CheckpointConfig:
    if data.get("format") == "vedere":
        family = str(data.get("family"))
        if family not in FAMILIES:
            raise CheckpointError(
                f"{where}: unknown family '{family}'{nearest(family, FAMILIES)} (valid: {', '.join(FAMILIES)})"
            )
        extras = data.get("extras") or {}
        if not isinstance(data.get("model"), Mapping) or not isinstance(extras, Mapping):
            raise CheckpointError(f"{where}: 'model' and 'extras' must be objects; write the checkpoint again")
        return CheckpointConfig(layout="vedere", model=from_dict(FAMILIES[family], data["model"]), extras=extras)
    kind = data.get("model_type")
    if kind == "internvl_chat":
        return CheckpointConfig(layout="original", model=_original(data, names, where), extras=data)
    if kind == "internlm2":
        bare = _internlm2(_Fields(data, where, ""), visual_ffn=False, visual_attention=False, v2pe=False)
        return CheckpointConfig(layout="internlm2", model=bare, extras=data)
    if kind in ("llama", "qwen2"):
        return CheckpointConfig(layout="llama", model=_llama(data, names, where), extras=data)
    if kind is None and "ffn_size" in data:
        return CheckpointConfig(layout="decoder", model=from_dict(DecoderConfig, data))
    raise CheckpointError(
        f"{where}: model_type is {kind!r}; expected 'internvl_chat' (InternVL, Mono-InternVL), 'internvl' (its native form), "
        "'internlm2', 'llama' or "
        '\'qwen2\' (a bare language model) or a directory written by vedere ("format": "vedere")'
    )


def native_config(model: ModelConfig, extras: Mapping[str, Any]) -> dict[str, Any]:
    """config.json in vedere's own dialect."""
    family = CheckpointConfig(layout="vedere", model=model).family
    return {"format": "vedere", "family": family, "model": to_dict(model), "extras": dict(extras)}


def original_config(model: ModelConfig, extras: Mapping[str, Any]) -> dict[str, Any]:
    """config.json as the released code reads it: ``extras`` with every shape replaced by the model's.

    Raises:
        CheckpointError: the released code has no such model.
    """
    if isinstance(model, DecoderConfig):
        raise CheckpointError(
            'a bare language model has no original InternVL layout; save it with layout="vedere" instead'
        )
    mono = isinstance(model, MonoInternVLConfig)
    patches = model.vision if isinstance(model, MonoInternVLConfig) else model.vision.patches
    if patches.stem:
        raise CheckpointError(
            f"the released code knows no stem ({', '.join(patches.stem)}) before the patches; save the model with "
            'layout="vedere" instead'
        )
    data = _TILING | copy.deepcopy(dict(extras))
    data |= {
        "model_type": "internvl_chat",
        "architectures": ["InternVLChatModel"],
        "downsample_ratio": 1 / patches.downsample,
        "ps_version": patches.unshuffle,
        "force_image_size": patches.tile,
        "select_layer": -1,
    }
    vision = dict(data.get("vision_config") or {})
    vision |= {
        "architectures": ["InternVisionPatchModel" if mono else "InternVisionModel"],
        "model_type": "intern_vit_patch" if mono else "intern_vit_6b",
        "hidden_size": patches.width,
        "patch_size": patches.patch,
        "image_size": patches.tile,
        "num_channels": 3,
    }
    if isinstance(model, InternVLConfig):
        tower = model.vision
        vision |= {
            "num_hidden_layers": tower.layers,
            "num_attention_heads": tower.heads,
            "intermediate_size": tower.ffn_size,
            "norm_type": tower.norm,
            "layer_norm_eps": tower.norm_eps,
            "qkv_bias": tower.qkv_bias,
            "qk_normalization": tower.qk_norm,
            "hidden_act": "gelu",
        }
    data["vision_config"] = vision
    data["llm_config"] = dict(data.get("llm_config") or {}) | _internlm2_fields(model.decoder)
    version = data.get("rope_pos_id_version", "default")
    if model.decoder.v2pe != (version != "default"):
        data["rope_pos_id_version"] = "v2pe_fix" if model.decoder.v2pe else "default"
    return data


def _internlm2_fields(c: DecoderConfig) -> dict[str, Any]:
    if c.qkv_bias != c.out_bias or c.ffn_bias or c.head_dim * c.heads != c.hidden_size:
        raise CheckpointError(
            f"the original layout has one switch for attention biases, none for the FFN, and heads as wide as the model: "
            f"qkv_bias {c.qkv_bias}, out_bias {c.out_bias}, ffn_bias {c.ffn_bias}, {c.heads} heads of {c.head_dim} for "
            f'width {c.hidden_size} do not fit it; save with layout="vedere"'
        )
    fields: dict[str, Any] = {
        "architectures": ["InternLM2VEForCausalLM" if c.visual_ffn else "InternLM2ForCausalLM"],
        "model_type": "internlm2",
        "hidden_size": c.hidden_size,
        "intermediate_size": c.ffn_size,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "vocab_size": c.vocab_size,
        "rms_norm_eps": c.norm_eps,
        "rope_theta": c.rope_theta,
        "rope_scaling": {"type": "dynamic", "factor": c.rope_factor} if c.rope_scaling == "dynamic" else None,
        "max_position_embeddings": c.max_positions,
        "bias": c.qkv_bias,
        "hidden_act": "silu",
        "tie_word_embeddings": c.tied_head,
    }
    if c.visual_attention:
        fields["visual_attention_experts"] = True  # ours; the released config class keeps unknown fields
    return fields


class _Fields:
    """Reads fields of one JSON object and says which object and file a bad one was in."""

    def __init__(self, data: Any, where: str, name: str) -> None:
        if not isinstance(data, Mapping):
            raise CheckpointError(f"{where}: '{name}' is missing or no object; download config.json again")
        self.data, self.where, self.name = data, where, name

    def fail(self, key: str, expected: str) -> CheckpointError:
        given = repr(self.data[key]) if key in self.data else "missing"
        place = f"{self.name}.{key}" if self.name else key
        return CheckpointError(f"{self.where}: '{place}' is {given}; expected {expected}; correct config.json")

    def size(self, key: str, default: int | None = None, most: int = _WIDEST) -> int:
        value = self.data.get(key)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise self.fail(key, f"an integer from 1 to {most}")
        return value

    def number(self, key: str, default: float) -> float:
        value = self.data.get(key, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value <= _LARGEST:
            raise self.fail(key, "a positive number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.data.get(key, default)
        if not isinstance(value, bool):
            raise self.fail(key, "true or false")
        return value

    def only(self, key: str, allowed: Collection[Any], default: Any) -> Any:
        value = self.data.get(key, default)
        if value not in allowed:
            raise self.fail(key, "one of " + ", ".join(map(repr, allowed)))
        return value

    def texts(self, key: str) -> list[str]:
        value = self.data.get(key) or []
        return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _original(data: Mapping[str, Any], names: Collection[str], where: str) -> MonoInternVLConfig | InternVLConfig:
    top, llm = _Fields(data, where, ""), _Fields(data.get("llm_config"), where, "llm_config")
    vision = _Fields(data.get("vision_config"), where, "vision_config")
    top.only("select_layer", [-1], -1)
    mono = (
        "InternLM2VEForCausalLM" in llm.texts("architectures")
        or llm.data.get("model_type") == "internlm2ve"
        or vision.data.get("model_type") == "intern_vit_patch"
        or any(".feed_forward_ve." in name for name in names)
    )
    ratio = top.number("downsample_ratio", 0.5)
    if ratio > 1 or (1 / ratio) % 1:
        raise top.fail("downsample_ratio", "1 divided by a whole number")
    vision.only("num_channels", [3], 3)
    patches = PatchConfig(
        width=vision.size("hidden_size", 3200),
        patch=vision.size("patch_size", 14),
        tile=vision.size("image_size", 224),
        downsample=round(1 / ratio),
        unshuffle=top.only("ps_version", ["v1", "v2"], "v1"),
    )
    forced = data.get("force_image_size")
    if forced is not None and forced != patches.tile:
        raise top.fail(
            "force_image_size", f"vision_config.image_size {patches.tile} (the position table is made for it)"
        )
    visual_attention = mono and (
        llm.flag("visual_attention_experts", False) or any(name.endswith(".wqkv_ve.weight") for name in names)
    )
    version = top.only("rope_pos_id_version", ["default", "v2pe_fix", "v2pe_rnd"], "default")
    decoder = _internlm2(llm, visual_ffn=mono, visual_attention=visual_attention, v2pe=version != "default")
    if mono:
        return MonoInternVLConfig(vision=patches, decoder=decoder)
    tower = InternViTConfig(
        patches=patches,
        layers=vision.size("num_hidden_layers", 48, _MOST_LAYERS),
        heads=vision.size("num_attention_heads", 25),
        ffn_size=vision.size("intermediate_size", 12800),
        norm=vision.only("norm_type", ["layer_norm", "rms_norm"], "rms_norm"),
        norm_eps=vision.number("layer_norm_eps", 1e-6),
        qkv_bias=vision.flag("qkv_bias", False),
        qk_norm=vision.flag("qk_normalization", True),
    )
    vision.only("hidden_act", ["gelu"], "gelu")
    if patches.width % tower.heads:
        raise vision.fail("num_attention_heads", f"a divisor of hidden_size {patches.width}")
    return InternVLConfig(vision=tower, decoder=decoder)


def _internlm2(llm: _Fields, *, visual_ffn: bool, visual_attention: bool, v2pe: bool) -> DecoderConfig:
    llm.only("model_type", ["internlm2", "internlm2ve"], "internlm2")
    llm.only("hidden_act", ["silu"], "silu")
    hidden, heads = llm.size("hidden_size"), llm.size("num_attention_heads")
    if hidden % heads:
        raise llm.fail("num_attention_heads", f"a divisor of hidden_size {hidden}")
    scaling = llm.data.get("rope_scaling")
    rope = _Fields(scaling or {}, llm.where, f"{llm.name}.rope_scaling".lstrip("."))
    if scaling:
        rope.only("type", ["dynamic"], None)
    bias = llm.flag("bias", True)  # the default of the class; every released model says false
    return DecoderConfig(
        hidden_size=hidden,
        ffn_size=llm.size("intermediate_size"),
        layers=llm.size("num_hidden_layers", most=_MOST_LAYERS),
        heads=heads,
        kv_heads=llm.size("num_key_value_heads", heads),
        head_dim=hidden // heads,
        vocab_size=llm.size("vocab_size"),
        norm_eps=llm.number("rms_norm_eps", 1e-6),
        rope_theta=llm.number("rope_theta", 10_000),
        rope_scaling="dynamic" if scaling else "none",
        rope_factor=rope.number("factor", 2.0),
        max_positions=llm.size("max_position_embeddings", 2048),
        qkv_bias=bias,
        out_bias=bias,
        tied_head=llm.flag("tie_word_embeddings", False),
        visual_ffn=visual_ffn,
        visual_attention=visual_attention,
        v2pe=v2pe,
    )


def _llama(data: Mapping[str, Any], names: Collection[str], where: str) -> DecoderConfig:
    llm = _Fields(data, where, "")
    qwen = data["model_type"] == "qwen2"  # no switches: biases on query, key and value, nowhere else
    llm.only("hidden_act", ["silu"], "silu")
    llm.only("rope_scaling", [None], None)
    llm.only("use_sliding_window", [False], False)
    hidden, heads = llm.size("hidden_size"), llm.size("num_attention_heads")
    rope = data.get("rope_parameters")  # where newer hub configs keep the base
    rope = _Fields({} if rope is None else rope, where, "rope_parameters")
    rope.only("rope_type", ["default"], "default")
    bias = not qwen and llm.flag("attention_bias", False)
    return DecoderConfig(
        hidden_size=hidden,
        ffn_size=llm.size("intermediate_size"),
        layers=llm.size("num_hidden_layers", most=_MOST_LAYERS),
        heads=heads,
        kv_heads=llm.size("num_key_value_heads", heads),
        head_dim=llm.size("head_dim", max(1, hidden // heads)),
        vocab_size=llm.size("vocab_size"),
        norm_eps=llm.number("rms_norm_eps", 1e-6),
        rope_theta=llm.number("rope_theta", rope.number("rope_theta", 10_000)),
        max_positions=llm.size("max_position_embeddings", 2048),
        qkv_bias=qwen or bias,
        out_bias=bias,
        ffn_bias=not qwen and llm.flag("mlp_bias", False),
        tied_head=llm.flag("tie_word_embeddings", False) and "lm_head.weight" not in names,
    )
