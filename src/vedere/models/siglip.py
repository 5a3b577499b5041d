"""SigLIP: texts and pictures in one space, trained pair by pair with a sigmoid (arXiv 2303.15343); SigLIP 2 (2502.14786).

Reads folders in the published form with ``model_type`` ``siglip``: ``config.json``, ``model.safetensors``, ``tokenizer.json``,
``preprocessor_config.json``. SigLIP 2's releases of one resolution have the same form; those for any shape of picture (NaFlex,
``model_type`` ``siglip2``) are refused.

What differs from CLIP: no class token, but an attention with one learned query over all patches and an MLP behind it; the
text's attention is not causal; a text is filled up to 64 tokens, the fillers are seen as in training, and the last position,
filler or not, stands for the text; a projection on the text side only; pixels between -1 and 1. Texts are lower-cased, as both
were trained; the first SigLIP also drops ASCII punctuation, which neither ``tokenizer.json`` does by itself.

The loss is ``log sigmoid(z (t cos + b))`` (eq. 1), so a cosine is a probability: `Siglip.similarity` is the cosine where the
model gives a pair 1 %. For published weights this is near 0.07, where CLIP's bar is 0.2.

Cost: as CLIP's of the same shape; a text always costs 64 tokens.

Axes: N items, T tokens, C width, D length of a vector.
"""

from __future__ import annotations

import math
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vedere.errors import CheckpointError, ConfigError
from vedere.models.two_towers import Block, Mlp, TextTower, TwoTowers, below, read_json, sides_of, weights_of

KINDS = ("siglip",)
# The published configs leave out what equals these.
_SIDE = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
_TEXT = {**_SIDE, "vocab_size": 32_000, "max_position_embeddings": 64, "pad_token_id": 1}
_VISION = {**_SIDE, "image_size": 224, "patch_size": 16}
_LEAST = 0.01  # probability of a pair below which the two have nothing to do with each other
_HALF = (0.5, 0.5, 0.5)


class _Pooling(nn.Module):
    """Patches [N, T, C] to one vector [N, C]: attention with a learned query, then an MLP with a residual."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width = config["hidden_size"]
        self.probe = nn.Parameter(torch.zeros(1, 1, width))
        self.attention = nn.MultiheadAttention(width, config["num_attention_heads"], batch_first=True)
        self.layernorm = nn.LayerNorm(width, config["layer_norm_eps"])
        self.mlp = Mlp(config)

    def forward(self, x: Tensor) -> Tensor:
        pooled, _ = self.attention(self.probe.expand(len(x), -1, -1), x, x, need_weights=False)
        out: Tensor = (pooled + self.mlp(self.layernorm(pooled)))[:, 0]
        return out


class _VisionTower(nn.Module):
    """Pixels [N, 3, S, S] to vectors [N, C]."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, patch, side = config["hidden_size"], config["patch_size"], config["image_size"]
        self.patch_embedding = nn.Conv2d(3, width, patch, patch)
        self.position_embedding = nn.Embedding((side // patch) ** 2, width)
        self.layers = nn.ModuleList(Block(config) for _ in range(config["num_hidden_layers"]))
        self.post_layernorm = nn.LayerNorm(width, config["layer_norm_eps"])
        self.head = _Pooling(config)

    def forward(self, pixels: Tensor) -> Tensor:
        x: Tensor = self.patch_embedding(pixels).flatten(2).transpose(1, 2) + self.position_embedding.weight
        for layer in self.layers:
            x = layer(x, False)
        out: Tensor = self.head(self.post_layernorm(x))
        return out


class _TextTower(TextTower):
    """Adds the projection."""

    def __init__(self, config: Mapping[str, Any], length: int) -> None:
        super().__init__(config, causal=False)
        self.head = nn.Linear(config["hidden_size"], length)

    def forward(self, ids: Tensor, places: Tensor) -> Tensor:
        out: Tensor = self.head(super().forward(ids, places))
        return out


class Siglip(TwoTowers):
    """A folder with both towers.

    Args:
        folder: The folder.

    Raises:
        ConfigError: the folder holds another kind of model.
        CheckpointError: a file is missing or damaged, or tensors do not fit.
    """

    def __init__(self, folder: Path) -> None:
        config = read_json(folder / "config.json")
        kind = config.get("model_type")
        if kind == "siglip2":
            raise ConfigError(
                f"{folder} holds a SigLIP 2 for pictures of any shape (NaFlex); take a release of one resolution, such as "
                "siglip2-base-patch16-224, whose model_type is siglip"
            )
        if kind not in KINDS:
            raise ConfigError(f"{folder} holds a '{kind}'; expected a siglip")
        text, vision = sides_of(folder, config, _TEXT, _VISION)
        if not vision.get("vision_use_head", True):
            raise ConfigError(
                f"{folder}: a SigLIP without its pooling head gives no vector of a picture; take one with it"
            )
        tensors = weights_of(folder)
        try:
            length = len(tensors["text_model.head.weight"])
            if length != vision["hidden_size"]:
                raise RuntimeError(f"texts have {length} numbers, pictures {vision['hidden_size']}")
            self._words = _TextTower(text, length).eval()
            self._sight = _VisionTower(vision).eval()
            self._words.load_state_dict(below(tensors, "text_model.", "encoder."))
            self._sight.load_state_dict(below(tensors, "vision_model.", "encoder.", "embeddings."))
            scale, bias = math.exp(float(tensors["logit_scale"])), float(tensors["logit_bias"])
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(f"the tensors of {folder} do not fit its config.json: {error}") from None
        super().__init__(folder, int(text["max_position_embeddings"]), int(vision["image_size"]), _HALF, _HALF)
        self.dimension = length
        self.similarity = min(1.0, max(-1.0, (math.log(_LEAST / (1 - _LEAST)) - bias) / scale))
        named = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
        self._bare = named.get("tokenizer_class") in ("SiglipTokenizer", "SiglipTokenizerFast")
        pad = named.get("pad_token")
        pad = pad.get("content") if isinstance(pad, dict) else pad
        found = self.tokenizer.token_to_id(pad) if isinstance(pad, str) else None
        self._pad = int(text["pad_token_id"] or 0) if found is None else found

    def _written(self, text: str) -> str:
        return written(text, bare=self._bare)

    def _read(self, rows: Sequence[Sequence[int]]) -> Tensor:
        ids = torch.full((len(rows), self.longest), self._pad)
        for line, row in enumerate(rows):
            ids[line, : len(row)] = torch.tensor(row)
        out: Tensor = self._words(ids, torch.full((len(rows),), self.longest - 1))
        return out

    def _see(self, pixels: Tensor) -> Tensor:
        out: Tensor = self._sight(pixels)
        return out


def written(text: str, *, bare: bool) -> str:
    """A text in lower case; ``bare``: without ASCII punctuation, and with single blanks between words."""
    text = text.lower()
    return " ".join(text.translate(_PUNCTUATION).split()) if bare else text


_PUNCTUATION = str.maketrans("", "", string.punctuation)
