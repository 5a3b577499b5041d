"""CLIP: texts and pictures in one space (arXiv 2103.00020), and Chinese-CLIP (2211.01335), whose text side is a BERT.

Reads folders in the published form (``model_type`` ``clip`` or ``chinese_clip``): ``config.json``, ``model.safetensors``,
``tokenizer.json``, ``preprocessor_config.json``. Both towers of CLIP are rows of the same pre-norm block; the text's is causal
and its vector is that of the end token, the picture's is that of the class token, each normed, projected without bias, and
brought to length one. Chinese-CLIP takes the first token of its BERT.

`vedere.models.clip_vit` is the vision tower of the XComposer2 line, which needs features of all patches, tiles of any size and
no text; it shares nothing with this module but the shape of its block.

Cost: for ViT-B/16, 17 billion multiplications a picture and 150 M parameters.

Axes: N items, T tokens, C width, D length of a vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vedere.errors import CheckpointError, ConfigError
from vedere.models.bert_encoder import Bert, BertConfig, renamed
from vedere.models.two_towers import Block, TextTower, TwoTowers, below, read_json, sides_of, weights_of

KINDS = ("clip", "chinese_clip")
_LEFT_OUT = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class _VisionTower(nn.Module):
    """Pixels [N, 3, S, S] to vectors [N, C]."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, patch, side = config["hidden_size"], config["patch_size"], config["image_size"]
        eps = config["layer_norm_eps"]
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.patch_embedding = nn.Conv2d(3, width, patch, patch, bias=False)
        self.position_embedding = nn.Embedding((side // patch) ** 2 + 1, width)
        self.pre_layrnorm, self.post_layernorm = nn.LayerNorm(width, eps), nn.LayerNorm(width, eps)
        self.layers = nn.ModuleList(Block(config) for _ in range(config["num_hidden_layers"]))

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(patches), 1, -1)
        x: Tensor = self.pre_layrnorm(torch.cat([first, patches], dim=1) + self.position_embedding.weight)
        for layer in self.layers:
            x = layer(x, False)
        out: Tensor = self.post_layernorm(x[:, 0])
        return out


class Clip(TwoTowers):
    """A folder with both towers.

    Args:
        folder: The folder.

    Raises:
        ConfigError: the folder holds another kind of model.
        CheckpointError: a file is missing or damaged, or tensors do not fit.
    """

    similarity = 0.2  # pictures and texts of CLIP are never as near as two texts; unmeasured, see docs/composition.md

    def __init__(self, folder: Path) -> None:
        config = read_json(folder / "config.json")
        self._kind = str(config.get("model_type"))
        if self._kind not in KINDS:
            raise ConfigError(f"{folder} holds a '{self._kind}'; a CLIP model is one of {', '.join(KINDS)}")
        text, vision = sides_of(folder, config, _LEFT_OUT, _LEFT_OUT)
        tensors = weights_of(folder)
        try:
            self._words: Any = TextTower(text, causal=True) if self._kind == "clip" else Bert(_bert(text, config))
            self._sight = _VisionTower(vision)
            if self._kind == "clip":
                self._words.load_state_dict(below(tensors, "text_model.", "encoder."))
            else:
                self._words.load_state_dict(renamed(below(tensors, "text_model."), folder))
            self._sight.load_state_dict(below(tensors, "vision_model.", "encoder.", "embeddings."))
            self._text_projection = tensors["text_projection.weight"]
            self._visual_projection = tensors["visual_projection.weight"]
            super().__init__(
                folder, int(text.get("max_position_embeddings") or 77), int(vision["image_size"]), _MEAN, _STD
            )
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(f"the tensors of {folder} do not fit its config.json: {error}") from None
        self._words.eval()
        self._sight.eval()
        self.dimension = len(self._text_projection)
        self._pad = int(text.get("pad_token_id") or 0)

    def _read(self, rows: Sequence[Sequence[int]]) -> Tensor:
        lengths = torch.tensor([len(row) for row in rows])
        ids = torch.full((len(rows), int(lengths.max())), self._pad)
        for line, row in enumerate(rows):
            ids[line, : len(row)] = torch.tensor(row)
        if self._kind == "clip":
            pooled = self._words(ids, lengths - 1)
        else:
            pooled = self._words(ids, torch.arange(ids.shape[1]) < lengths[:, None])[:, 0]
        out: Tensor = pooled @ self._text_projection.T
        return out

    def _see(self, pixels: Tensor) -> Tensor:
        out: Tensor = self._sight(pixels) @ self._visual_projection.T
        return out


def _bert(config: Mapping[str, Any], whole: Mapping[str, Any]) -> BertConfig:
    return BertConfig(
        vocab_size=config["vocab_size"],
        width=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        ffn_size=config["intermediate_size"],
        positions=config["max_position_embeddings"],
        norm_eps=whole["text_config"].get("layer_norm_eps", 1e-12),
        pad_id=int(config.get("pad_token_id") or 0),
    )
