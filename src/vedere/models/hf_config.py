"""config.json of the native transformers layout (``model_type internvl``), read and written (transformers 5.23).

The same model as an original InternVL folder (arXiv 2504.10479), described by `InternVLForConditionalGeneration`'s fields. What
differs, and what follows from it here:

* Absent fields take the defaults of that class: no attention biases, LayerNorm, 448 / 14 pixels, a tied head at the top level.
  Whether the head is tied is decided by the presence of its tensor, then by ``text_config``.
* The tower's q/k norms have a fixed epsilon of 1e-6, whatever ``layer_norm_eps`` says.
* Without ``use_mean_pooling`` a LayerNorm follows the last block; features of another layer do not pass it.
* There is one order of the unshuffle (v2), no template, no tiling (`vedere.models.hf_pixels` reads it) and no system message.
* InternLM2 is a Llama there; rotary settings stand in ``rope_parameters`` (older files: ``rope_theta``, ``rope_scaling``).

`extras_of` says the rest in the original's words, which the whole package reads. A config.json that was made from another
dialect carries the one it came from under ``converted_from``, so that converting back loses no field.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from vedere.errors import CheckpointError
from vedere.models.config_fields import WIDEST, Fields
from vedere.models.decoder import DecoderConfig
from vedere.models.hf_pixels import read_pixels
from vedere.models.internvl import InternVLConfig
from vedere.models.language_configs import KINDS, read_language, write_language
from vedere.models.patches import PatchConfig
from vedere.models.published import CheckpointConfig
from vedere.models.vision_configs import NATIVE, read_downsample, read_tower, tower_fields

MODEL_TYPE = "internvl"
SOURCE = "converted_from"
_QK_EPS = 1e-6
_IMAGE_TOKENS = {151674: 151667, 92553: 92546, 151936: 151671}  # vocabulary -> <IMG_CONTEXT> of the released models
# Fields of a language model's config that are no shape and mean the same in both dialects.
_TEXT_FIELDS = (
    "attention_dropout",
    "bos_token_id",
    "eos_token_id",
    "initializer_range",
    "max_window_layers",
    "pad_token_id",
    "sliding_window",
    "use_cache",
    "use_sliding_window",
)
_VISION_FIELDS = {  # ours: theirs
    "attention_dropout": "attention_dropout",
    "dropout": "hidden_dropout_prob",
    "initializer_range": "initializer_range",
    "initializer_factor": "layer_scale_init_value",
}
_NATIVE = ("qwen2", "llama", "qwen3", "qwen3_moe")  # kinds that transformers has under their own names


def parse_hf(data: Mapping[str, Any], names: Collection[str] = (), where: str = "config.json") -> InternVLConfig:
    """The shape that a native config describes.

    Args:
        data: The object.
        names: Names of the tensors beside it, where known; they tell whether the head is tied.
        where: How messages call the file.

    Raises:
        CheckpointError: a field that is missing or unusable, or a setting that vedere's tower does not have.
    """
    top = Fields(data, where, "")
    vision = top.inner("vision_config")
    top.only("vision_feature_select_strategy", ["default"], "default")
    top.only("projector_hidden_act", ["gelu"], "gelu")
    vision.only("model_type", ["internvl_vision"], "internvl_vision")
    vision.only("num_channels", [3], 3)
    vision.only("use_absolute_position_embeddings", [True], True)
    vision.only("use_mask_token", [False], False)
    patches = PatchConfig(
        width=vision.size("hidden_size", 1024),
        patch=_side(vision, "patch_size", 14),
        tile=_side(vision, "image_size", 448),
        downsample=read_downsample(top),
        unshuffle="v2",
    )
    tower = read_tower(top, vision, patches, NATIVE)
    own_eps = _QK_EPS if tower.qk_norm and tower.norm_eps != _QK_EPS else None
    tower = dataclasses.replace(tower, qk_norm_eps=own_eps, final_norm=not vision.flag("use_mean_pooling", True))
    decoder = _decoder(data, names, where)
    for key in ("image_token_id", "image_token_index"):
        if data.get(key) not in (None, 0) and top.size(key) >= decoder.vocab_size:
            raise top.fail(key, f"the id of a token, below text_config.vocab_size {decoder.vocab_size}")
    return InternVLConfig(vision=tower, decoder=decoder)


def _side(fields: Fields, key: str, default: int) -> int:
    """A number of pixels, given as such or as a pair of equal ones."""
    value = fields.data.get(key, default)
    side = value[0] if isinstance(value, (list, tuple)) and len(value) == 2 and value[0] == value[1] else value
    if not isinstance(side, int) or isinstance(side, bool) or not 1 <= side <= WIDEST:
        raise fields.fail(key, "an integer, or a pair of equal ones")
    return side


def _decoder(data: Mapping[str, Any], names: Collection[str], where: str) -> DecoderConfig:
    text, top = Fields(data.get("text_config"), where, "text_config"), Fields(data, where, "")
    kind = text.only("model_type", _NATIVE, "qwen2")
    said, top_said = text.flag("tie_word_embeddings", False), top.flag("tie_word_embeddings", True)
    head, embed = (any(name.endswith(end) for name in names) for end in ("lm_head.weight", "embed_tokens.weight"))
    tied = said and not embed if head else said or (bool(names) and top_said)  # of a tied pair a file may hold either
    plain = {**text.data, "tie_word_embeddings": tied}
    return read_language(Fields(plain, where, "text_config"), kind)


def extras_of(data: Mapping[str, Any], directory: Path | None = None, tile: int = 448) -> dict[str, Any]:
    """What a native folder says beyond the shape, in the words of an original config.json.

    Args:
        data: Its config.json.
        directory: The folder, whose files say how pictures are cut (`vedere.models.hf_pixels`).
        tile: Side of the model's tiles in pixels.

    Raises:
        CheckpointError: files that are damaged, or ask for other pixels than vedere makes.
    """
    tiling, source = read_pixels(directory, tile), data.get(SOURCE)
    if isinstance(source, Mapping) and isinstance(source.get("llm_config"), Mapping):
        whole = (
            source.get("dynamic_image_size") is False and tiling.get("max_dynamic_patch") == 1
        )  # as it was converted
        return copy.deepcopy(dict(source)) | ({} if whole else tiling)
    found: dict[str, Any] = {"template": "internvl2_5", "dynamic_image_size": True, "use_thumbnail": True}
    found |= {"min_dynamic_patch": 1, "max_dynamic_patch": 12, **tiling}
    text = data.get("text_config") or {}
    kind = str(text.get("model_type", "qwen2")) if isinstance(text, Mapping) else "qwen2"
    if isinstance(text, Mapping):
        kept = {key: text[key] for key in _TEXT_FIELDS if key in text}
        found["llm_config"] = {
            "architectures": [KINDS[kind].architecture if kind in KINDS else kind],
            "model_type": kind,
        } | kept
    vision = data.get("vision_config")
    if isinstance(vision, Mapping):
        found["vision_config"] = {own: vision[key] for own, key in _VISION_FIELDS.items() if key in vision}
    return found | {SOURCE: copy.deepcopy(dict(data))}


def image_token_of(directory: Path) -> int | None:
    """Id of the token that stands for a picture, if a native config.json, or one that was made of it, says so."""
    try:
        data = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    places = [data, data.get("extras")] if isinstance(data, Mapping) else []
    places += [place.get(SOURCE) for place in places if isinstance(place, Mapping)]
    found = [
        place.get(key)
        for place in places
        if isinstance(place, Mapping)
        for key in ("image_token_id", "image_token_index")
    ]
    return next((token for token in found if isinstance(token, int)), None)


def is_native(read: CheckpointConfig) -> bool:
    """Whether a folder is native, or was converted from a native one into vedere's layout."""
    return read.layout == "hf" or (read.layout == "vedere" and SOURCE in read.extras)


def hf_config(model: InternVLConfig, extras: Mapping[str, Any], image_token: int | None = None) -> dict[str, Any]:
    """config.json for transformers: what the model is, over what the folder that it came from said.

    Args:
        model: Shape.
        extras: `vedere.models.published.CheckpointConfig.extras`.
        image_token: Id of ``<IMG_CONTEXT>``; None takes it from ``extras`` or from the size of a released vocabulary. If that
            says nothing either, the field is left out: no id is better than a wrong one.

    Raises:
        CheckpointError: the native class has no such model.
    """
    tower, patches, source = model.vision, model.vision.patches, extras.get(SOURCE)
    if patches.table_tile:
        raise CheckpointError(
            f"the native config has one size of tiles; this model's positions were trained at {patches.table_tile} px and run "
            f'at {patches.tile} px; save the model with layout="original" or "vedere"'
        )
    eps = tower.norm_eps if tower.qk_norm_eps is None else tower.qk_norm_eps
    strange = []
    if patches.unshuffle != "v2":
        strange.append(f"one order of the unshuffle (v2, given: {patches.unshuffle})")
    if patches.stem:
        strange.append(f"no stem (given: {', '.join(patches.stem)})")
    if tower.qk_norm and eps != _QK_EPS:
        strange.append(f"q/k norms of epsilon {_QK_EPS} (given: {eps})")
    if strange:
        raise CheckpointError(
            f'the native layout has {", ".join(strange)}; save the model with layout="original" or "vedere"'
        )
    base = copy.deepcopy(dict(source)) if isinstance(source, Mapping) and source.get("model_type") == MODEL_TYPE else {}
    original = {key: value for key, value in extras.items() if key != SOURCE}
    text = _text_config(model.decoder, original.get("llm_config") or {}, base.get("text_config") or {})
    token = image_token if image_token is not None else base.get("image_token_id", base.get("image_token_index"))
    token = _IMAGE_TOKENS.get(model.decoder.vocab_size) if token is None else token
    if token is not None and not 0 <= token < model.decoder.vocab_size:
        raise CheckpointError(
            f"the token that stands for a picture has the id {token}, beyond the vocabulary of {model.decoder.vocab_size}; "
            "give another id, or the tokenizer of this model"
        )
    base.pop("image_token_index", None)
    given = original.get("vision_config") or {}
    vision = {theirs: given[own] for own, theirs in _VISION_FIELDS.items() if own in given}
    vision |= dict(base.get("vision_config") or {})
    vision |= {
        "model_type": "internvl_vision",
        "hidden_size": patches.width,
        **tower_fields(tower, NATIVE),
        "image_size": [patches.tile] * 2,
        "patch_size": [patches.patch] * 2,
        "num_channels": 3,
        "use_absolute_position_embeddings": True,
        "use_mask_token": False,
        "use_mean_pooling": not tower.final_norm,
    }
    defaults = {"projector_hidden_act": "gelu", "vision_feature_select_strategy": "default"}
    data = (defaults | base) | {
        "architectures": ["InternVLForConditionalGeneration"],
        "model_type": MODEL_TYPE,
        **({} if token is None else {"image_token_id": token}),
        "image_seq_length": patches.tokens_per_tile,
        "downsample_ratio": 1 / patches.downsample,
        "vision_feature_layer": tower.select_layer,
        "tie_word_embeddings": model.decoder.tied_head,
        "vision_config": vision,
        "text_config": text,
    }
    if not base and "llm_config" in original:
        data[SOURCE] = copy.deepcopy(original)
    return data


def _text_config(c: DecoderConfig, given: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    if c.visual_ffn or c.visual_attention or c.v2pe:
        raise CheckpointError(
            'transformers has no class for visual experts or V2PE; save the model with layout="original" or "vedere"'
        )
    kept = dict(base) if base else {key: given[key] for key in _TEXT_FIELDS if key in given}
    named = (base or given).get("model_type")
    reasons = []
    for kind in sorted(_NATIVE, key=lambda kind: kind != named):
        try:
            data = write_language(c, kept, only=kind)
        except CheckpointError as error:
            reasons.append(str(error))
            continue
        if "rope_theta" in data or "rope_parameters" not in data:
            data["rope_parameters"] = _rope_parameters(data)
        return data | {"architectures": [KINDS[kind].architecture]}
    raise CheckpointError(f"no class of transformers has this language model: {reasons[0]}")


def _rope_parameters(text: dict[str, Any]) -> dict[str, Any]:
    """Takes base and scaling of an older config out of ``text``, as one object of a newer one."""
    scaling = dict(text.pop("rope_scaling", None) or {})
    kind = scaling.pop("type", "default")
    return {"rope_type": kind, **scaling, "rope_theta": text.pop("rope_theta", 10_000.0)}
