"""What models with a text tower and a vision tower share: the block, the text tower, batching, and their folders.

CLIP (`vedere.models.clip`) and SigLIP (`vedere.models.siglip`) are rows of the same pre-norm block, ``x + attention(norm(x))``
and ``x + mlp(norm(x))``. They differ in activation, in whether the text's attention is causal, and in how a tower's tokens
become one vector; that is said in their modules.

Axes: N items, T tokens, C width, D length of a vector.
"""

from __future__ import annotations

import abc
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
from vedere.models.shards import read_file

Triple = tuple[float, float, float]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "gelu": F.gelu,
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
}
_AT_ONCE = 16


class Mlp(nn.Module):
    """Two linear maps and the activation between them."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, inner = config["hidden_size"], config["intermediate_size"]
        self.activation = ACTIVATIONS[config["hidden_act"]]
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., C]`` to ``[..., C]``."""
        out: Tensor = self.fc2(self.activation(self.fc1(x)))
        return out


class Block(nn.Module):
    """One pre-norm block."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, eps = config["hidden_size"], config["layer_norm_eps"]
        self.heads = config["num_attention_heads"]
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width, eps), nn.LayerNorm(width, eps)
        self.self_attn = nn.ModuleDict({f"{name}_proj": nn.Linear(width, width) for name in ("q", "k", "v", "out")})
        self.mlp = Mlp(config)

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        """``[N, T, C]`` to ``[N, T, C]``."""
        items, tokens, width = x.shape
        normed = self.layer_norm1(x)
        q, k, v = (
            self.self_attn[f"{name}_proj"](normed).view(items, tokens, self.heads, -1).transpose(1, 2) for name in "qkv"
        )
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        x = x + self.self_attn["out_proj"](attended.transpose(1, 2).reshape(items, tokens, width))
        out: Tensor = x + self.mlp(self.layer_norm2(x))
        return out


class TextTower(nn.Module):
    """Ids ``[N, T]`` and the places of the tokens that stand for their texts to vectors ``[N, C]``.

    Args:
        config: Its part of config.json.
        causal: Whether a token sees those before it only.
    """

    def __init__(self, config: Mapping[str, Any], causal: bool) -> None:
        super().__init__()
        width = config["hidden_size"]
        self._causal = causal
        self.embeddings = nn.ModuleDict(
            {
                "token_embedding": nn.Embedding(config["vocab_size"], width),
                "position_embedding": nn.Embedding(config["max_position_embeddings"], width),
            }
        )
        self.layers = nn.ModuleList(Block(config) for _ in range(config["num_hidden_layers"]))
        self.final_layer_norm = nn.LayerNorm(width, config["layer_norm_eps"])

    def forward(self, ids: Tensor, places: Tensor) -> Tensor:
        """Vectors, normed, not of length one."""
        x: Tensor = self.embeddings["token_embedding"](ids)
        x = x + self.embeddings["position_embedding"](torch.arange(ids.shape[1]))
        for layer in self.layers:
            x = layer(x, self._causal)
        out: Tensor = self.final_layer_norm(x[torch.arange(len(ids)), places])
        return out


class TwoTowers(abc.ABC):
    """Texts and pictures to unit vectors; a subclass says how rows of ids and pixels become vectors.

    Args:
        folder: With ``config.json``, ``model.safetensors``, ``tokenizer.json``, ``preprocessor_config.json``.
        longest: Most tokens of a text.
        side: Side of a picture in pixels.
        mean: Of a channel, where ``preprocessor_config.json`` names none.
        std: As ``mean``.

    Attributes:
        dimension: Length D of a vector.
        similarity: Cosine below which a text and a picture have nothing to do with each other.

    Raises:
        CheckpointError: a file is missing or damaged.
    """

    dimension: int
    similarity: float

    def __init__(self, folder: Path, longest: int, side: int, mean: Triple, std: Triple) -> None:
        from tokenizers import Tokenizer

        self.folder, self.longest = folder, longest
        try:
            self.tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the library raises nothing more special
            raise CheckpointError(f"{folder / 'tokenizer.json'} cannot be read ({error})") from None
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(longest)
        self._pixels = Preprocessing(read_json(folder / "preprocessor_config.json"), side, mean, std)

    @abc.abstractmethod
    def _read(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Vectors ``[N, D]`` of rows of ids."""

    @abc.abstractmethod
    def _see(self, pixels: Tensor) -> Tensor:
        """Vectors ``[N, D]`` of pixels ``[N, 3, S, S]``."""

    def _written(self, text: str) -> str:
        """A text as the tokenizer wants it."""
        return text

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Unit vectors [N, D] of texts."""
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch([self._written(text) for text in texts])]
        return self._joined([self._read(rows[start : start + _AT_ONCE]) for start in range(0, len(rows), _AT_ONCE)])

    @torch.inference_mode()
    def pictures(self, images: Sequence[Image.Image]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Unit vectors [N, D] of RGB pictures."""
        found = []
        for start in range(0, len(images), _AT_ONCE):
            pixels = torch.stack([self._pixels(image) for image in images[start : start + _AT_ONCE]])
            found.append(self._see(pixels))
        return self._joined(found)

    def _joined(self, parts: Sequence[Tensor]) -> np.ndarray[Any, np.dtype[np.float32]]:
        if not parts:
            return np.zeros((0, self.dimension), np.float32)
        return F.normalize(torch.cat(list(parts)), dim=-1).numpy()


class Preprocessing:
    """Pixels as a ``preprocessor_config.json`` wants them.

    Args:
        config: Its content.
        side: Side S of what comes out.
        mean: Of a channel, where it names none.
        std: As ``mean``.
    """

    def __init__(self, config: Mapping[str, Any], side: int, mean: Triple, std: Triple) -> None:
        size = config.get("size", side)
        self._shortest = int(
            (size.get("shortest_edge") or 0) if isinstance(size, dict) else size
        )  # 0: both sides are given
        self._crops = bool(config.get("do_center_crop", True)) and self._shortest > 0
        self._side = side
        self._resample = Image.Resampling(int(config.get("resample", Image.Resampling.BICUBIC)))
        self._mean = torch.tensor(config.get("image_mean", mean)).view(3, 1, 1)
        self._std = torch.tensor(config.get("image_std", std)).view(3, 1, 1)

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


def sides_of(
    folder: Path, config: Mapping[str, Any], text: Mapping[str, Any], vision: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both sides' configs with what they leave out.

    Args:
        folder: For messages.
        config: Content of config.json.
        text: Values of the text side where it says nothing.
        vision: Those of the vision side.

    Raises:
        ConfigError: an activation that is not computed here.
    """
    found = []
    for part, missing in (("text", text), ("vision", vision)):
        side = {**missing, **(config.get(f"{part}_config") or {})}
        if side["hidden_act"] not in ACTIVATIONS:
            raise ConfigError(
                f"{folder}: the {part} side has activation '{side['hidden_act']}'; supported: {', '.join(ACTIVATIONS)}"
            )
        found.append(side)
    return found[0], found[1]


def weights_of(folder: Path) -> dict[str, Tensor]:
    """Tensors of ``model.safetensors`` in float32.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    path = folder / "model.safetensors"
    if not path.is_file():
        raise CheckpointError(f"{folder} has no model.safetensors; save the model in that form")
    return {name: tensor.float() for name, tensor in read_file(path)[0].items()}


def below(tensors: Mapping[str, Tensor], *fronts: str) -> dict[str, Tensor]:
    """Tensors whose names begin with the first front, without all of them; tables of place numbers are left out."""
    found = {}
    for name, tensor in tensors.items():
        if name.startswith(fronts[0]) and not name.endswith("position_ids"):
            for front in fronts:
                name = name.removeprefix(front)
            found[name] = tensor
    return found


def read_json(path: Path) -> dict[str, Any]:
    """An object of a JSON file; {} for anything else in it.

    Raises:
        CheckpointError: no such file, or no JSON.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); the folder is incomplete") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is no JSON ({error})") from None
    return data if isinstance(data, dict) else {}
