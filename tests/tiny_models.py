"""Tiny random models and a tiny tokenizer for tests: small enough to run in milliseconds, complete enough to be loaded."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from vedere.models.decoder import DecoderConfig
from vedere.models.mono_internvl import MonoInternVL, MonoInternVLConfig
from vedere.models.patches import PatchConfig

VOCABULARY = 300
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<reponame>", "<empty_output>"]
TILE = 28  # 4 x 4 patches of 7 px, unshuffled to 4 tokens


def tiny_config(**changes: Any) -> MonoInternVLConfig:
    decoder = {
        "hidden_size": 32,
        "ffn_size": 48,
        "layers": 3,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 8,
        "vocab_size": VOCABULARY,
        "rope_theta": 10_000.0,
        "max_positions": 512,
        "visual_ffn": True,
        "visual_attention": True,
    }
    return MonoInternVLConfig(
        vision=PatchConfig(width=16, patch=7, tile=TILE), decoder=DecoderConfig(**(decoder | changes))
    )


def tiny_model(seed: int = 0, **changes: Any) -> MonoInternVL:
    """Random weights, large enough that distributions are far from uniform and experts differ."""
    torch.manual_seed(seed)
    model = MonoInternVL(tiny_config(**changes))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2.0)
    return model.eval()


def tiny_tokenizer(directory: Path) -> None:
    """A byte-level BPE with the strings of template smollm2, as ``directory/tokenizer.json``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator(["what is in the picture", "user assistant system", "how many red circles"] * 4, trainer)
    directory.mkdir(parents=True, exist_ok=True)
    inner.save(str(directory / "tokenizer.json"))


def tiny_directory(directory: Path, extras: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A model folder in vedere's layout, with its tokenizer."""
    from vedere.models.checkpoints import save_model

    tiny_tokenizer(directory)
    save_model(tiny_model(**changes), directory, extras={"template": "smollm2"} if extras is None else extras)
    return directory


def tiny_shipped(directory: Path, origin: str = "", **changes: Any) -> tuple[Path, Path]:
    """(folder of a delta, folder of its language model), as a shipped model is kept; ``origin`` is what the delta names."""
    from vedere.config import save
    from vedere.models.checkpoints import save_delta_of, write_tensors

    model = tiny_model(**changes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16())
    whole = model.state_dict()
    base = {
        name: tensor.bfloat16()
        for name, tensor in whole.items()
        if name.startswith("decoder.") and ".visual." not in name
    }
    language_model, delta = directory / "language-model", directory / "weights"
    tiny_tokenizer(language_model)

    save(
        dataclasses.replace(model.config.decoder, visual_ffn=False, visual_attention=False),
        language_model / "config.json",
    )
    write_tensors(language_model, base)
    save_delta_of(model, delta, base, bits=8, origin=origin, extras={"template": "smollm2", "max_dynamic_patch": 2})
    return delta, language_model
