"""A tiny folder of the first XComposer as its release lies on the hub: the recorded model with a tokenizer beside it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import small_internlm2

RECORDED = Path(__file__).parent / "golden" / "xcomposer-1"
TOKENS = 8  # of a picture: 6 sampled ones between two flags


def folder(path: Path) -> Path:
    """Config and weights of the recording, and a sentencepiece model with the turn markers among its last pieces."""
    path.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(RECORDED / name, path / name)
    size = json.loads((path / "config.json").read_text())["vocab_size"]
    (path / "tokenizer.model").write_bytes(small_internlm2.pieces(size, "<TOKENS_UNUSED_{}>"))
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    config = {"tokenizer_class": "InternLMXComposerTokenizer", **special}
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    return path
