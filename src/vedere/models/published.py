"""config.json, three dialects, one meaning: which model a folder of weights holds.

* `original`: the released ``internvl_chat`` folders (InternVL 1.5 to 3.5, Mono-InternVL, V2PE), with ``llm_config`` and
  ``vision_config`` inside. Absent fields take the defaults of the released config *classes*, which are not those of the
  released models: ``bias`` is true, ``ps_version`` is v1, ``rms_norm_eps`` 1e-6, ``rope_theta`` 10000.
  Or the first XComposer's (``InternLMXComposer``), which `vedere.models.xcomposer_files` reads and writes.
* `hf`: the native layout of transformers (``internvl``); `vedere.models.hf_config` reads and writes it.
* `vedere`: ``{"format": "vedere", "family": ..., "model": {...}, "extras": {...}}``.
  XComposer2's folders are `original` too; `vedere.models.xcomposer2_files` reads and writes them.
* `internlm2`, `llama` (Qwen2 and Qwen3 too), `phi3`: a bare language model from the hub, called by the names of its tensors;
  `decoder`: the same as vedere caches it, the plain `DecoderConfig`.

Language models, bare or inside, are read by `vedere.models.language_configs`.

Model types lie in this line (both InternViTs call themselves ``intern_vit_6b``, Mono calls its language model
``internlm2``), so the family is decided by architectures, fields, and the names of the tensors. Everything in an original
config that is no shape (template, tiling, stop ids, V2PE stride ...) is kept word for word in ``extras`` and written back.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vedere.config import from_dict, nearest, to_dict
from vedere.errors import CheckpointError, ConfigError
from vedere.models import xcomposer2_files
from vedere.models.config_fields import Fields
from vedere.models.decoder import DecoderConfig
from vedere.models.internvl import InternVLConfig
from vedere.models.kept_files import KEPT_FILES
from vedere.models.keymaps import Naming
from vedere.models.language_configs import KINDS, kind_of, read_language, write_language
from vedere.models.mono_internvl import MonoInternVLConfig
from vedere.models.patches import PatchConfig
from vedere.models.vision_configs import ORIGINAL, read_downsample, read_tower, tower_fields
from vedere.models.xcomposer import XComposerConfig
from vedere.models.xcomposer2 import XComposer2Config
from vedere.plan import MOST_TILES

Layout = Literal["vedere", "original", "hf", "internlm2", "llama", "phi3", "decoder"]
ModelConfig = MonoInternVLConfig | InternVLConfig | XComposerConfig | XComposer2Config | DecoderConfig
FAMILIES: dict[str, type[Any]] = {
    "mono-internvl": MonoInternVLConfig,
    "internvl": InternVLConfig,
    "xcomposer": XComposerConfig,
    "xcomposer2": XComposer2Config,
    "decoder": DecoderConfig,
}
_LANGUAGE = "language_model."  # prefix of the names of its tensors
# What `vedere.infer.prompts.policy_from` takes where a config says nothing; the released class has other defaults.
_TILING = {"dynamic_image_size": True, "use_thumbnail": True, "min_dynamic_patch": 1, "pad2square": False}


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """What config.json says.

    Attributes:
        layout: Dialect, which is also the naming of the weights beside it.
        model: Shape of the model; its class is the family.
        extras: The original config.json (empty in the other dialects unless it was carried over).
        language: Names of the language model's tensors inside the layout ``original``.
    """

    layout: Layout
    model: ModelConfig
    extras: Mapping[str, Any] = field(default_factory=dict)
    language: Naming = "internlm2"

    @property
    def family(self) -> str:
        """A key of `FAMILIES`."""
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
    try:
        if data.get("model_type") == "internvl":  # a dialect with a file of its own, which knows this one
            from vedere.models.hf_config import extras_of, parse_hf

            native = parse_hf(data, names, where)
            extras = extras_of(data, directory, native.vision.patches.tile)
            return CheckpointConfig(layout="hf", model=native, extras=extras)
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
    if xcomposer2_files.is_xcomposer2(data, names):
        return CheckpointConfig(layout="original", model=xcomposer2_files.read(data, names, where), extras=data)
    if kind == "internvl_chat":
        model, naming = _original(data, names, where)
        return CheckpointConfig(layout="original", model=model, extras=data, language=naming)
    if kind == "InternLMXComposer":
        from vedere.models import xcomposer_files

        first = xcomposer_files.parse(data, where)
        extras = xcomposer_files.extras_of(data, first)
        return CheckpointConfig(layout="original", model=first, extras=extras, language="llama")
    if isinstance(kind, str) and kind in KINDS:
        bare = read_language(Fields(data, where, ""), kind, names)
        return CheckpointConfig(layout=KINDS[kind].naming, model=bare, extras=data)
    if kind is None and "ffn_size" in data:
        return CheckpointConfig(layout="decoder", model=from_dict(DecoderConfig, data))
    raise CheckpointError(
        f"{where}: model_type is {kind!r}; expected 'internvl_chat' (InternVL, Mono-InternVL), 'internvl' (its native form), "
        f"'InternLMXComposer' (XComposer), "
        f'{", ".join(map(repr, KINDS))} (a bare language model) or a directory written by vedere ("format": "vedere")'
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
    if isinstance(model, XComposerConfig):
        from vedere.models.xcomposer_files import write

        return write(model, extras)
    if isinstance(model, XComposer2Config):
        return xcomposer2_files.write(model, extras)
    mono = isinstance(model, MonoInternVLConfig)
    patches = model.vision if isinstance(model, MonoInternVLConfig) else model.vision.patches
    if patches.stem:
        raise CheckpointError(
            f"the released code knows no stem ({', '.join(patches.stem)}) before the patches; save the model with "
            'layout="vedere" instead'
        )
    if isinstance(model, InternVLConfig) and (model.vision.final_norm or model.vision.qk_norm_eps is not None):
        raise CheckpointError(
            "the released code has no norm after the tower and one epsilon for all of its norms; given: final_norm "
            f"{model.vision.final_norm}, norm_eps {model.vision.norm_eps}, qk_norm_eps {model.vision.qk_norm_eps}; save the "
            'model with layout="hf" or "vedere" instead'
        )
    data = _TILING | {key: copy.deepcopy(value) for key, value in extras.items() if key != KEPT_FILES}
    data |= {
        "model_type": "internvl_chat",
        "architectures": ["InternVLChatModel"],
        "downsample_ratio": 1 / patches.downsample,
        "ps_version": patches.unshuffle,
        "force_image_size": patches.tile,
        "select_layer": model.vision.select_layer if isinstance(model, InternVLConfig) else -1,
    }
    vision = dict(data.get("vision_config") or {})
    vision |= {
        "architectures": ["InternVisionPatchModel" if mono else "InternVisionModel"],
        "model_type": "intern_vit_patch" if mono else "intern_vit_6b",
        "hidden_size": patches.width,
        "patch_size": patches.patch,
        "image_size": patches.table_tile or patches.tile,
        "num_channels": 3,
    }
    if isinstance(model, InternVLConfig):
        vision |= tower_fields(model.vision, ORIGINAL)
    data["vision_config"] = vision
    given = data.get("llm_config")
    llm = write_language(model.decoder, given if isinstance(given, dict) else {}, only="internlm2" if mono else None)
    if mono:
        llm["architectures"] = ["InternLM2VEForCausalLM"]
    if model.decoder.visual_attention:
        llm["visual_attention_experts"] = True  # ours; the released config class keeps unknown fields
    data["llm_config"] = llm
    version = data.get("rope_pos_id_version", "default")
    if model.decoder.v2pe != (version != "default"):
        data["rope_pos_id_version"] = "v2pe_fix" if model.decoder.v2pe else "default"
    return data


def language_naming(data: Mapping[str, Any]) -> Naming:
    """How the tensors of the language model are called in an original folder with this config.json."""
    if xcomposer2_files.is_xcomposer2(data):
        return "internlm2"
    return KINDS[kind_of(Fields(data.get("llm_config"), "config.json", "llm_config"))].naming


def _original(
    data: Mapping[str, Any], names: Collection[str], where: str
) -> tuple[MonoInternVLConfig | InternVLConfig, Naming]:
    top, llm = Fields(data, where, ""), Fields(data.get("llm_config"), where, "llm_config")
    vision = Fields(data.get("vision_config"), where, "vision_config")
    mono = (
        "InternLM2VEForCausalLM" in llm.texts("architectures")
        or llm.data.get("model_type") == "internlm2ve"
        or vision.data.get("model_type") == "intern_vit_patch"
        or any(".feed_forward_ve." in name for name in names)
    )
    patches = _patches(top, vision)
    _check_tiling(top)
    version = top.only("rope_pos_id_version", ["default", "v2pe_fix", "v2pe_rnd"], "default")
    inner = [name.removeprefix(_LANGUAGE) for name in names if name.startswith(_LANGUAGE)]
    if mono:
        top.only("select_layer", [-1], -1)
        llm.only("model_type", ["internlm2", "internlm2ve"], "internlm2")
        if not set(llm.texts("architectures")) <= {"InternLM2VEForCausalLM", "InternLM2ForCausalLM"}:
            raise llm.fail("architectures", "['InternLM2VEForCausalLM'], the only language model of Mono-InternVL")
        attention = llm.flag("visual_attention_experts", False) or any(n.endswith(".wqkv_ve.weight") for n in inner)
        decoder = read_language(
            llm, "internlm2", inner, visual_ffn=True, visual_attention=attention, v2pe=version != "default"
        )
        return MonoInternVLConfig(vision=patches, decoder=decoder), "internlm2"
    kind = kind_of(llm)
    decoder = read_language(llm, kind, inner, v2pe=version != "default")
    tower = read_tower(top, vision, patches, ORIGINAL)
    return InternVLConfig(vision=tower, decoder=decoder), KINDS[kind].naming


def _check_tiling(top: Fields) -> None:
    """Fields that are no shape, and that a prompt reads much later: refused with the rest; null is absent."""
    for key in ("dynamic_image_size", "use_thumbnail", "pad2square"):
        top.only(key, [True, False, None], None)
    most = top.size("max_dynamic_patch", 12, MOST_TILES)
    top.size("min_dynamic_patch", 1, most)


def _patches(top: Fields, vision: Fields) -> PatchConfig:
    vision.only("num_channels", [3], 3)
    trained = vision.size("image_size", 224)
    tile = top.size("force_image_size", trained, 8 * trained)  # beyond that no table of positions means anything
    return PatchConfig(
        width=vision.size("hidden_size", 3200),
        patch=vision.size("patch_size", 14),
        tile=tile,
        downsample=read_downsample(top),
        unshuffle=top.only("ps_version", ["v1", "v2"], "v1"),
        table_tile=0 if tile == trained else trained,
    )
