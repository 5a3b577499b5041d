"""CLIP: texts and pictures in one space (arXiv 2103.00020), and Chinese-CLIP (2211.01335), whose text side is a BERT.

Reads folders in the published form (``model_type`` ``clip`` or ``chinese_clip``): ``config.json``, ``model.safetensors``,
``tokenizer.json``, ``preprocessor_config.json``. Both towers of CLIP are rows of the same pre-norm block; the text's is causal
and its vector is that of the end token, the picture's is that of the class token, each normed, projected without bias, and
brought to length one. Chinese-CLIP takes the first token of its BERT.

`vedere.models.clip_vit` is the vision tower of the XComposer2 line, which needs features of all patches, tiles of any size and
no text; it shares nothing with this module but the shape of its block.

Not read: SigLIP, whose pictures are pooled by attention.

Cost: for ViT-B/16, 17 billion multiplications a picture and 150 M parameters.

Axes: N items, T tokens, C width.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from vedere.errors import CheckpointError, ConfigError
from vedere.models.bert_encoder import Bert, BertConfig, renamed
from vedere.models.shards import read_file

KINDS = ("clip", "chinese_clip")
_AT_ONCE = 16
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "gelu": F.gelu,
}


class _Block(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, eps = config["hidden_size"], config.get("layer_norm_eps", 1e-5)
        self.heads = config["num_attention_heads"]
        self.activation = _ACTIVATIONS[config.get("hidden_act", "quick_gelu")]
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width, eps), nn.LayerNorm(width, eps)
        self.self_attn = nn.ModuleDict({f"{name}_proj": nn.Linear(width, width) for name in ("q", "k", "v", "out")})
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(width, config["intermediate_size"]), "fc2": nn.Linear(config["intermediate_size"], width)}
        )

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        items, tokens, width = x.shape
        normed = self.layer_norm1(x)
        q, k, v = (
            self.self_attn[f"{name}_proj"](normed).view(items, tokens, self.heads, -1).transpose(1, 2) for name in "qkv"
        )
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        x = x + self.self_attn["out_proj"](attended.transpose(1, 2).reshape(items, tokens, width))
        out: Tensor = x + self.mlp["fc2"](self.activation(self.mlp["fc1"](self.layer_norm2(x))))
        return out


class _TextTower(nn.Module):
    """Ids [N, T] and the places of the end tokens to vectors [N, C]."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width = config["hidden_size"]
        self.embeddings = nn.ModuleDict(
            {
                "token_embedding": nn.Embedding(config["vocab_size"], width),
                "position_embedding": nn.Embedding(config["max_position_embeddings"], width),
            }
        )
        self.layers = nn.ModuleList(_Block(config) for _ in range(config["num_hidden_layers"]))
        self.final_layer_norm = nn.LayerNorm(width, config.get("layer_norm_eps", 1e-5))

    def forward(self, ids: Tensor, ends: Tensor) -> Tensor:
        x: Tensor = self.embeddings["token_embedding"](ids)
        x = x + self.embeddings["position_embedding"](torch.arange(ids.shape[1]))
        for layer in self.layers:
            x = layer(x, True)
        out: Tensor = self.final_layer_norm(x[torch.arange(len(ids)), ends])
        return out


class _VisionTower(nn.Module):
    """Pixels [N, 3, S, S] to vectors [N, C]."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, patch, side = config["hidden_size"], config["patch_size"], config["image_size"]
        eps = config.get("layer_norm_eps", 1e-5)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.patch_embedding = nn.Conv2d(3, width, patch, patch, bias=False)
        self.position_embedding = nn.Embedding((side // patch) ** 2 + 1, width)
        self.pre_layrnorm, self.post_layernorm = nn.LayerNorm(width, eps), nn.LayerNorm(width, eps)
        self.layers = nn.ModuleList(_Block(config) for _ in range(config["num_hidden_layers"]))

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(patches), 1, -1)
        x: Tensor = self.pre_layrnorm(torch.cat([first, patches], dim=1) + self.position_embedding.weight)
        for layer in self.layers:
            x = layer(x, False)
        out: Tensor = self.post_layernorm(x[:, 0])
        return out


class Clip:
    """A folder with both towers.

    Args:
        folder: The folder.

    Attributes:
        dimension: Length of a vector.

    Raises:
        ConfigError: the folder holds another kind of model.
        CheckpointError: a file is missing or damaged, or tensors do not fit.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self.folder = folder
        config = _read(folder / "config.json")
        self._kind = str(config.get("model_type"))
        if self._kind not in KINDS:
            raise ConfigError(f"{folder} holds a '{self._kind}'; supported models that see are {', '.join(KINDS)}")
        text, vision = config.get("text_config") or {}, config.get("vision_config") or {}
        for part, given in (("text", text), ("vision", vision)):
            act = given.get("hidden_act", "quick_gelu")
            if act not in _ACTIVATIONS:
                raise ConfigError(
                    f"{folder}: the {part} side has activation '{act}'; supported: {', '.join(_ACTIVATIONS)}"
                )
        weights = folder / "model.safetensors"
        if not weights.is_file():
            raise CheckpointError(f"{folder} has no model.safetensors; save the model in that form")
        tensors = {name: tensor.float() for name, tensor in read_file(weights)[0].items()}
        try:
            self._words: Any = _TextTower(text) if self._kind == "clip" else Bert(_bert(text))
            self._sight = _VisionTower(vision)
            self._load(tensors)
            self._text_projection = tensors["text_projection.weight"]
            self._visual_projection = tensors["visual_projection.weight"]
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(f"the tensors of {folder} do not fit its config.json: {error}") from None
        self.dimension = len(self._text_projection)
        try:
            self.tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the library raises nothing more special
            raise CheckpointError(f"{folder / 'tokenizer.json'} cannot be read ({error})") from None
        self.longest = int(text.get("max_position_embeddings") or 77)
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(self.longest)
        self._pad = int(text.get("pad_token_id") or 0)
        self._pixels = _Preprocessing(_read(folder / "preprocessor_config.json"), int(vision["image_size"]))

    def _load(self, tensors: Mapping[str, Tensor]) -> None:
        def side(front: str) -> dict[str, Tensor]:
            found = {name.removeprefix(front): t for name, t in tensors.items() if name.startswith(front)}
            return {name: t for name, t in found.items() if not name.endswith("position_ids")}

        words = side("text_model.")
        if self._kind == "clip":
            words = {name.removeprefix("encoder."): tensor for name, tensor in words.items()}
        else:
            words = renamed(words, self.folder)
        self._words.load_state_dict(words)
        sight = side("vision_model.")
        self._sight.load_state_dict(
            {name.removeprefix("encoder.").removeprefix("embeddings."): tensor for name, tensor in sight.items()}
        )
        self._words.eval()
        self._sight.eval()

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Unit vectors [N, D] of texts."""
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        found = []
        for start in range(0, len(rows), _AT_ONCE):
            part = rows[start : start + _AT_ONCE]
            lengths = torch.tensor([len(row) for row in part])
            ids = torch.full((len(part), int(lengths.max())), self._pad)
            for line, row in enumerate(part):
                ids[line, : len(row)] = torch.tensor(row)
            if self._kind == "clip":
                pooled = self._words(ids, lengths - 1)
            else:
                pooled = self._words(ids, torch.arange(ids.shape[1]) < lengths[:, None])[:, 0]
            found.append(F.normalize(pooled @ self._text_projection.T, dim=-1))
        return self._joined(found)

    @torch.inference_mode()
    def pictures(self, images: Sequence[Image.Image]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Unit vectors [N, D] of RGB pictures."""
        found = []
        for start in range(0, len(images), _AT_ONCE):
            pixels = torch.stack([self._pixels(image) for image in images[start : start + _AT_ONCE]])
            found.append(F.normalize(self._sight(pixels) @ self._visual_projection.T, dim=-1))
        return self._joined(found)

    def _joined(self, parts: list[Tensor]) -> np.ndarray[Any, np.dtype[np.float32]]:
        return torch.cat(parts).numpy() if parts else np.zeros((0, self.dimension), np.float32)


class _Preprocessing:
    """Pixels as a ``preprocessor_config.json`` wants them."""

    def __init__(self, config: Mapping[str, Any], side: int) -> None:
        size = config.get("size", side)
        self._shortest = int(
            (size.get("shortest_edge") or 0) if isinstance(size, dict) else size
        )  # 0: both sides are given
        self._crops = bool(config.get("do_center_crop", True)) and self._shortest > 0
        self._side = side
        self._resample = Image.Resampling(int(config.get("resample", Image.Resampling.BICUBIC)))
        self._mean = torch.tensor(config.get("image_mean", (0.48145466, 0.4578275, 0.40821073))).view(3, 1, 1)
        self._std = torch.tensor(config.get("image_std", (0.26862954, 0.26130258, 0.27577711))).view(3, 1, 1)

    def __call__(self, image: Image.Image) -> Tensor:
        """float32 [3, S, S]."""
        if self._crops:
            width, height = image.size
            scale = self._shortest / min(width, height)
            # A page of 1 x 20000 would become 224 x 4,480,000: what the crop will not show is left out first.
            most = 8 * min(width, height)
            if max(width, height) > most:
                left, top = max(0, (width - most) // 2), max(0, (height - most) // 2)
                image = image.crop((left, top, left + min(width, most), top + min(height, most)))
                width, height = image.size
            shape = (max(self._side, int(width * scale)), max(self._side, int(height * scale)))
            image = image.resize(shape, self._resample)
            left, top = (image.width - self._side) // 2, (image.height - self._side) // 2
            image = image.crop((left, top, left + self._side, top + self._side))
        else:
            image = image.resize((self._side, self._side), self._resample)
        pixels = torch.from_numpy(np.asarray(image, np.float32) / 255).permute(2, 0, 1)
        return (pixels - self._mean) / self._std


def _bert(config: Mapping[str, Any]) -> BertConfig:
    return BertConfig(
        vocab_size=config["vocab_size"],
        width=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        ffn_size=config["intermediate_size"],
        positions=config["max_position_embeddings"],
        norm_eps=config.get("layer_norm_eps", 1e-12),
        pad_id=int(config.get("pad_token_id") or 0),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); the folder is incomplete") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is no JSON ({error})") from None
    return data if isinstance(data, dict) else {}
