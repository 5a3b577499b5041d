"""The files beside the weights of a native folder that transformers' `AutoProcessor` reads (transformers 5.23).

From what vedere knows: the template becomes ``chat_template.jinja`` (no system message of its own, a picture as
``<IMG_CONTEXT>`` and a newline, as the native folders have it), the tiling ``preprocessor_config.json``, the stop strings
``generation_config.json``. Frames of a video are one tile each, so ``video_preprocessor_config.json`` overrides its class's
384 pixels and CLIP statistics. The tokenizer's own files stay as they are; its config gets the names that the processor
asks for (``start_image_token`` ...). A tiling that the native processor does not have is refused: it has no ``pad2square``
and always a thumbnail.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vedere.errors import CheckpointError
from vedere.models.patches import PatchConfig
from vedere.plan import Policy, SquarePolicy, TilingPolicy
from vedere.text.chat import Template
from vedere.text.jinja import VIDEO, jinja_template
from vedere.text.side_files import read_json
from vedere.text.tokenizer import TOKENIZER_FILES, Tokenizer
from vedere.vision.pixels import mean_std

HF_FILES = (
    "chat_template.jinja",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
)
_PROCESSOR = "InternVLProcessor"
_CODE = ("auto_map", "chat_template", "processor_class", "additional_special_tokens")
_KNOWN_TOKENIZERS = (
    "GPT2Tokenizer",
    "GPT2TokenizerFast",
    "PreTrainedTokenizerFast",
    "Qwen2Tokenizer",
    "Qwen2TokenizerFast",
)
_LLAMA = ("LlamaTokenizer", "LlamaTokenizerFast")
# A class of transformers for each form of a vocabulary, where the folder's own class comes as code. InternLM2's rules are
# those of the sentencepiece library itself; today's LlamaTokenizer would give tokens in reserved places other ids.
_CLASS_OF = dict(
    zip(TOKENIZER_FILES, ("PreTrainedTokenizerFast", "Qwen2Tokenizer", "SentencePieceBackend"), strict=True)
)


def hf_files(
    source: Path, tokenizer: Tokenizer, template: Template, policy: Policy, patches: PatchConfig, max_positions: int
) -> dict[str, str]:
    """Name -> content of every file of `HF_FILES`.

    Args:
        source: Folder that is converted; fields of its tokenizer_config.json and generation_config.json are kept.
        tokenizer: Its tokenizer.
        template: Its chat template.
        policy: Its tiling.
        patches: Its tiles.
        max_positions: Of the language model.

    Raises:
        CheckpointError: a tiling that the native processor does not have, or damaged files in ``source``.
        ConfigError: the vocabulary lacks the template's markers, or the template has no Jinja form.
    """
    template.check_markers(tokenizer)
    data = {
        "generation_config.json": _generation(source, tokenizer, template),
        "preprocessor_config.json": _pictures(policy, patches),
        "processor_config.json": {"processor_class": _PROCESSOR, "image_seq_length": patches.tokens_per_tile},
        "tokenizer_config.json": _tokenizer(source, tokenizer, template, max_positions),
        "video_preprocessor_config.json": _frames(patches),
    }
    texts = {name: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for name, content in data.items()}
    return texts | {"chat_template.jinja": jinja_template(template, bos=tokenizer.bos_id is not None)}


def _tokenizer(source: Path, tokenizer: Tokenizer, template: Template, max_positions: int) -> dict[str, Any]:
    given = {k: v for k, v in read_json(source / "tokenizer_config.json").items() if k not in _CODE}
    kind = given.get("tokenizer_class")
    if kind in _LLAMA and given.get("legacy") is False:
        kind = "LlamaTokenizer"  # one space before the text, none before later runs
    elif kind not in _KNOWN_TOKENIZERS:  # a class that comes as code, or none
        kind = next(name for file, name in _CLASS_OF.items() if (source / file).is_file())
    names = {
        "start_image_token": template.image_start,
        "end_image_token": template.image_end,
        "context_image_token": template.image_context,
        "video_token": VIDEO,
    }
    end = next(text for text in template.stop if not tokenizer.lacks([text]))
    return (
        {"clean_up_tokenization_spaces": False, "model_max_length": max_positions, "pad_token": end}
        | given
        | {
            "tokenizer_class": kind,
            "processor_class": _PROCESSOR,
            "eos_token": end,
            "extra_special_tokens": names,
        }
    )


def _generation(source: Path, tokenizer: Tokenizer, template: Template) -> dict[str, Any]:
    stop = list(template.stop_ids(tokenizer))
    given = read_json(source / "generation_config.json")
    return {"pad_token_id": stop[0]} | given | {"eos_token_id": stop if len(stop) > 1 else stop[0]}


def _pixels(patches: PatchConfig) -> dict[str, Any]:
    means, deviations = mean_std("imagenet")
    return {
        "processor_class": _PROCESSOR,
        "do_convert_rgb": True,
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "image_mean": list(means),
        "image_std": list(deviations),
        "size": {"height": patches.tile, "width": patches.tile},
    }


def _pictures(policy: Policy, patches: PatchConfig) -> dict[str, Any]:
    data = _pixels(patches) | {"image_processor_type": "GotOcr2ImageProcessor"}
    if isinstance(policy, TilingPolicy) and (policy.thumbnail or policy.max_tiles == 1):
        return data | {"crop_to_patches": True, "min_patches": policy.min_tiles, "max_patches": policy.max_tiles}
    if isinstance(policy, SquarePolicy) and not policy.pad:
        return data | {"crop_to_patches": False, "min_patches": 1, "max_patches": 1}
    raise CheckpointError(
        f"the native processor has no tiling like {policy}: it cuts with a thumbnail, or not at all; keep the original layout, "
        "or change use_thumbnail / pad2square in config.json"
    )


def _frames(patches: PatchConfig) -> dict[str, Any]:
    return _pixels(patches) | {"video_processor_type": "InternVLVideoProcessor", "do_sample_frames": False}


def original_preprocessor(patches: PatchConfig) -> str:
    """The ``preprocessor_config.json`` of original folders, which describes one tile."""
    means, deviations = mean_std("imagenet")
    data = {
        "crop_size": patches.tile,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": list(means),
        "image_std": list(deviations),
        "resample": 3,
        "size": patches.tile,
    }
    return json.dumps(data, indent=2) + "\n"
