"""A tiny XComposer2-4KHD folder as its release lies on the hub: original names, two ``.bin`` shards of mixed dtypes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

import small_internlm2
from vedere.models import xcomposer2_files
from vedere.models.checkpoints import key_map
from vedere.models.clip_vit import ClipViTConfig
from vedere.models.patches import PatchConfig
from vedere.models.xcomposer2 import XComposer2, XComposer2Config

TILE = 56  # 4 x 4 patches of 14 px, 2 x 2 merged tokens


def shape(views: str = "hd", tile: int = TILE, **changes: Any) -> XComposer2Config:
    fields: dict[str, Any] = {"partial_rank": 4, "partial_alpha": 8.0, "rope_scaling": "none"} | changes
    tower = ClipViTConfig(
        patches=PatchConfig(width=32, tile=tile, downsample=2 if views == "hd" else 1, bias=False),
        layers=2,
        heads=4,
        ffn_size=64,
    )
    return XComposer2Config(vision=tower, decoder=small_internlm2.shape(**fields), views=views)  # type: ignore[arg-type]


def model(config: XComposer2Config, seed: int = 0) -> XComposer2:
    """Random weights, none of them zero or one."""
    torch.manual_seed(seed)
    built = XComposer2(config)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.2 if parameter.ndim > 1 else 0.1) + (parameter.ndim == 1))
    return built.eval()


def folder(path: Path, views: str = "hd", tile: int = TILE, **changes: Any) -> Path:
    """The folder; norms and vectors float32, matrices bfloat16, the unused final norm of the tower among them."""
    built = model(shape(views, tile, **changes))
    small_internlm2.write_tokenizer(path, built.config.decoder.vocab_size)
    tensors = key_map(built.config, "original").to_foreign(built.state_dict())
    tensors = {name: t.contiguous().bfloat16() if t.ndim == 2 else t.clone() for name, t in tensors.items()}
    tensors |= {name: torch.zeros(32) for name in xcomposer2_files.UNUSED[:2]}
    names = sorted(tensors)
    where = {name: f"pytorch_model-0000{1 + 2 * k // len(names)}-of-00002.bin" for k, name in enumerate(names)}
    for file in set(where.values()):
        torch.save({name: tensors[name] for name in names if where[name] == file}, path / file)
    (path / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    config = xcomposer2_files.write(built.config, {})
    auto = {"AutoModelForCausalLM": f"modeling_internlm_xcomposer2.{xcomposer2_files.ARCHITECTURE}"}
    config |= {"architectures": ["InternLM2ForCausalLM"], "auto_map": auto, "torch_dtype": "bfloat16"}
    (path / "config.json").write_text(json.dumps(config))
    return path
