"""A tiny InternLM2 as its release lies on the hub: original names, sentencepiece with reserved pieces, chat markers by name."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from vedere.models import keymaps
from vedere.models.decoder import DecoderConfig

PIECES = 400  # tokens before any are added
CHAT = {
    "<|plugin|>": 6,
    "<|interpreter|>": 5,
    "<|action_end|>": 4,
    "<|action_start|>": 3,
    "<|im_end|>": 2,
    "<|im_start|>": 1,
}
TEXTS = [
    "What colour is it? Is it red? Same? Sure? yes, sure",
    "a picture in red, green, blue or grey",
    "Look. Hello! no",
]
NEW = ("<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>")


def pieces(size: int = PIECES, reserved: str = "[UNUSED_TOKEN_{}]") -> bytes:
    """A sentencepiece model of ``size`` pieces; what its texts do not fill is reserved, as at the end of InternLM2's."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 4),
        model_writer=model,
        model_type="bpe",
        vocab_size=340,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        minloglevel=2,
    )
    proto = model.getvalue()
    have = sentencepiece.SentencePieceProcessor(model_proto=proto).get_piece_size()
    return proto + b"".join(_piece(reserved.format(number)) for number in range(size - have))


def _piece(text: str) -> bytes:
    """One more entry of the model's repeated field: its text and the type "user defined"."""
    entry = b"\x0a" + bytes([len(text)]) + text.encode() + b"\x18\x04"
    return b"\x0a" + bytes([len(entry)]) + entry


def write_tokenizer(directory: Path, size: int = PIECES) -> Path:
    """``tokenizer.model`` and the ``tokenizer_config.json`` that names the chat markers among the last pieces."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tokenizer.model").write_bytes(pieces(size))
    special = {"0": "<unk>", "1": "<s>", "2": "</s>"} | {str(size - back): text for text, back in CHAT.items()}
    config = {
        "tokenizer_class": "InternLM2Tokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "</s>",
        "added_tokens_decoder": {index: {"content": text, "special": True} for index, text in special.items()},
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory


def shape(**changes: Any) -> DecoderConfig:
    fields = {
        "hidden_size": 32,
        "ffn_size": 48,
        "layers": 2,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 8,
        "vocab_size": PIECES,
        "rope_scaling": "dynamic",
        "max_positions": 2048,
    }
    return DecoderConfig(**(fields | changes))


def config_of(config: DecoderConfig) -> dict[str, Any]:
    """config.json of the release."""
    return {
        "architectures": ["InternLM2ForCausalLM"],
        "model_type": "internlm2",
        "hidden_size": config.hidden_size,
        "intermediate_size": config.ffn_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "vocab_size": config.vocab_size,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": {"type": "dynamic", "factor": config.rope_factor},
        "max_position_embeddings": config.max_positions,
        "bias": False,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }


def write(directory: Path, seed: int = 5, **changes: Any) -> Path:
    """The folder: random weights that bfloat16 holds exactly, config and tokenizer."""
    config = shape(**changes)
    write_tokenizer(directory, config.vocab_size)
    (directory / "config.json").write_text(json.dumps(config_of(config)))
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: (torch.randn(shape, generator=generator) * 0.2 + (len(shape) == 1)).bfloat16()
        for name, shape in keymaps.internlm2(config).foreign_shapes.items()
    }
    save_file(tensors, directory / "model.safetensors")
    return directory
