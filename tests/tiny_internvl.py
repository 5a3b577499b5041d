"""A tiny InternVL folder with everything that a conversation needs: random weights, a byte-level BPE, InternVL's markers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from vedere.models.checkpoints import save_model
from vedere.models.decoder import DecoderConfig
from vedere.models.intern_vit import InternViTConfig
from vedere.models.internvl import InternVL, InternVLConfig
from vedere.models.patches import PatchConfig

TILE = 28  # 4 x 4 patches of 7 px: 4 tokens
WORDS = 320
ADDED = ["<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"]


def config(*, tower: dict[str, Any] | None = None, **changes: Any) -> InternVLConfig:
    """A Qwen2 decoder (or with ``qkv_bias=False`` a Llama) behind a LayerNorm tower; ``tower`` changes that."""
    decoder: dict[str, Any] = {
        "hidden_size": 32,
        "ffn_size": 48,
        "layers": 2,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 8,
        "vocab_size": WORDS + len(ADDED),
        "norm_eps": 1e-6,
        "max_positions": 512,
        "qkv_bias": True,
    }
    seeing: dict[str, Any] = {
        "patches": PatchConfig(width=24, patch=7, tile=TILE),
        "layers": 2,
        "heads": 3,
        "ffn_size": 40,
        "norm": "layer_norm",
    }
    vision = InternViTConfig(**(seeing | (tower or {})))
    return InternVLConfig(vision=vision, decoder=DecoderConfig(**(decoder | changes)))


def model(shape: InternVLConfig, seed: int = 0) -> InternVL:
    """Random weights, none of them zero or one."""
    torch.manual_seed(seed)
    built = InternVL(shape)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.ndim > 1 else 0.1) + (parameter.ndim == 1))
    return built.eval()


def tokenizer(folder: Path) -> None:
    """``tokenizer.json`` of a byte-level BPE with Qwen's and InternVL's markers behind the words."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    inner.train_from_iterator(["what is in the picture", "user assistant system", "how many red circles"] * 40, trainer)
    words = inner.get_vocab_size()
    inner.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in ADDED])
    assert words <= WORDS
    folder.mkdir(parents=True, exist_ok=True)
    inner.save(str(folder / "tokenizer.json"))


def folder(path: Path, layout: str = "vedere", dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    """A whole folder; further fields of its config.json are those of a released model."""
    tokenizer(path)
    fields = {"template": "internvl2_5", "max_dynamic_patch": 6, "use_thumbnail": True, "system_message": "Be kind."}
    save_model(model(config(**changes)).to(dtype), path, layout=layout, extras=fields)  # type: ignore[arg-type]
    (path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "SomeTokenizer", "auto_map": {"a": "b.py"}})
    )
    return path
