"""Sentence encoders of BERT's kind: a text to one vector (BERT: arXiv 1810.04805; Sentence-BERT: 1908.10084).

Post-norm blocks with biases everywhere and exact GELU. Reads a folder of sentence-transformers: ``modules.json`` with a
transformer (``bert``, ``roberta``, ``xlm-roberta`` or ``camembert``), a pooling (mean, first token or maximum), dense layers
and a final normalisation, in this order; ``model.safetensors`` and ``tokenizer.json``. RoBERTa's kind counts positions from
``pad_token_id + 1``. A text that the model's prompts name ``query`` gets that prompt.

Only safetensors are read, and nothing of the folder is run.

Cost: for all-MiniLM-L6-v2 (6 blocks of width 384) 11 million multiplications a token, 23 M parameters.

Axes: N texts, T tokens, C width, H heads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vedere.errors import CheckpointError, ConfigError
from vedere.models.shards import read_file

_KINDS = {"bert": False, "roberta": True, "xlm-roberta": True, "camembert": True}  # positions from pad + 1?
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "identity": lambda x: x, "gelu": F.gelu}
_POOLINGS = ("mean", "cls", "max")
_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class BertConfig:
    """Shape of the transformer.

    Attributes:
        vocab_size: Rows of the word embedding.
        width: Width.
        layers: Blocks.
        heads: Attention heads.
        ffn_size: Width of the MLP.
        positions: Rows of the position embedding.
        first_position: Position of the first token.
        norm_eps: Epsilon of every LayerNorm.
        pad_id: Token that fills short rows.
    """

    vocab_size: int
    width: int
    layers: int
    heads: int
    ffn_size: int
    positions: int
    first_position: int = 0
    norm_eps: float = 1e-12
    pad_id: int = 0


class _Block(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(width, config.ffn_size), nn.Linear(config.ffn_size, width)
        self.norm1, self.norm2 = nn.LayerNorm(width, config.norm_eps), nn.LayerNorm(width, config.norm_eps)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        texts, tokens, width = x.shape

        def split(y: Tensor) -> Tensor:
            return y.view(texts, tokens, self.heads, -1).transpose(1, 2)

        q, k, v = split(self.query(x)), split(self.key(x)), split(self.value(x))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = self.norm1(x + self.out(attended.transpose(1, 2).reshape(texts, tokens, width)))
        out: Tensor = self.norm2(x + self.fc2(F.gelu(self.fc1(x))))
        return out


class Bert(nn.Module):
    """Token ids to hidden states.

    Args:
        config: Shape.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.vocab_size, config.width)
        self.places = nn.Embedding(config.positions, config.width)
        self.kind = nn.Parameter(torch.zeros(config.width))  # every token is of the first segment
        self.norm = nn.LayerNorm(config.width, config.norm_eps)
        self.layers = nn.ModuleList(_Block(config) for _ in range(config.layers))

    def forward(self, ids: Tensor, inside: Tensor) -> Tensor:
        """Hidden states [N, T, C] of ids [N, T]; ``inside`` (bool) is False after the end of a text."""
        places = torch.arange(ids.shape[1], device=ids.device) + self.config.first_position
        x: Tensor = self.norm(self.words(ids) + self.places(places) + self.kind)
        mask = inside[:, None, None, :]
        for layer in self.layers:
            x = layer(x, mask)
        return x


_NAMES = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "out",
    "attention.output.LayerNorm": "norm1",
    "intermediate.dense": "fc1",
    "output.dense": "fc2",
    "output.LayerNorm": "norm2",
}


def renamed(tensors: Mapping[str, Tensor], where: Path) -> dict[str, Tensor]:
    """Published names to ours; pooler, heads and buffers are left out."""
    found: dict[str, Tensor] = {}
    for given, tensor in tensors.items():
        name = given.split(".", 1)[1] if given.split(".", 1)[0] in ("bert", "roberta", "model") else given
        if name.startswith("embeddings."):
            kinds = {"word_embeddings.weight": "words.weight", "position_embeddings.weight": "places.weight"}
            rest = name.removeprefix("embeddings.")
            if rest == "token_type_embeddings.weight":
                found["kind"] = tensor[0]
            elif rest in kinds or rest.startswith("LayerNorm."):
                found[kinds.get(rest, rest.replace("LayerNorm", "norm"))] = tensor
        elif name.startswith("encoder.layer."):
            _, _, number, rest = name.split(".", 3)
            stem, _, leaf = rest.rpartition(".")
            if stem not in _NAMES:
                raise CheckpointError(f"{where}: unexpected tensor {given}; expected an encoder of BERT's kind")
            found[f"layers.{number}.{_NAMES[stem]}.{leaf}"] = tensor
    return found


class SentenceEncoder:
    """A folder of sentence-transformers.

    Args:
        folder: The folder.

    Raises:
        ConfigError: the folder holds another kind of model.
        CheckpointError: a file is missing or damaged, or tensors do not fit.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self.folder = folder
        modules = _read(folder / "modules.json")
        root, self._pooling, self._after = self._modules(modules)
        config = _read(root / "config.json")
        self.model = self._transformer(root, config)
        try:
            self.tokenizer: Any = Tokenizer.from_file(str(root / "tokenizer.json"))
        except Exception as error:  # the library raises nothing more special
            raise CheckpointError(f"{root / 'tokenizer.json'} cannot be read ({error})") from None
        limits = _read(folder / "sentence_bert_config.json", optional=True) or _read(
            root / "sentence_bert_config.json", optional=True
        )
        room = self.model.config.positions - self.model.config.first_position
        self.longest = min(int(limits.get("max_seq_length") or room), room)
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(self.longest)
        prompts = _read(folder / "config_sentence_transformers.json", optional=True).get("prompts") or {}
        self.prompt = str(prompts.get("query") or "")
        self.dimension = int(self.texts(["x"]).shape[1])

    def _modules(self, modules: Any) -> tuple[Path, str, list[Callable[[Tensor], Tensor]]]:
        """(folder of the transformer, pooling, what follows)."""
        root, pooling, after = self.folder, "mean", list[Callable[[Tensor], Tensor]]()
        for module in modules:
            kind, path = str(module.get("type", "")).rsplit(".", 1)[-1], self.folder / str(module.get("path", ""))
            if kind == "Transformer":
                root = path
            elif kind == "Pooling":
                pooling = self._pooling_of(path)
            elif kind == "Dense":
                after.append(_dense(path))
            elif kind == "Normalize":
                after.append(lambda x: F.normalize(x, dim=-1))
            else:
                raise ConfigError(
                    f"{self.folder} has a module '{kind}'; supported are Transformer, Pooling, Dense and Normalize"
                )
        return root, pooling, after

    @staticmethod
    def _pooling_of(path: Path) -> str:
        data = _read(path / "config.json")
        given = data.get("pooling_mode")
        kinds = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "max": "pooling_mode_max_tokens"}
        chosen = [given] if given else [kind for kind, key in kinds.items() if data.get(key)]
        others = [
            key
            for key, value in data.items()
            if key.startswith("pooling_mode_") and value and key not in kinds.values()
        ]
        if len(chosen) != 1 or chosen[0] not in _POOLINGS or others:
            raise ConfigError(f"{path} pools by {chosen + others}; supported is one of {', '.join(_POOLINGS)}")
        return str(chosen[0])

    @staticmethod
    def _transformer(root: Path, config: dict[str, Any]) -> Bert:
        kind = config.get("model_type")
        if kind not in _KINDS or config.get("hidden_act", "gelu") != "gelu":
            raise ConfigError(
                f"{root} holds a '{kind}' with activation '{config.get('hidden_act')}'; supported are "
                f"{', '.join(_KINDS)} with gelu"
            )
        if config.get("position_embedding_type", "absolute") != "absolute":
            raise ConfigError(f"{root} has relative positions; supported are absolute ones")
        pad = int(config.get("pad_token_id") or 0)
        try:
            shape = BertConfig(
                vocab_size=config["vocab_size"],
                width=config["hidden_size"],
                layers=config["num_hidden_layers"],
                heads=config["num_attention_heads"],
                ffn_size=config["intermediate_size"],
                positions=config["max_position_embeddings"],
                first_position=pad + 1 if _KINDS[kind] else 0,
                norm_eps=config.get("layer_norm_eps", 1e-12),
                pad_id=pad,
            )
        except KeyError as error:
            raise ConfigError(f"{root / 'config.json'} lacks {error}") from None
        if not (root / "model.safetensors").is_file():
            raise CheckpointError(f"{root} has no model.safetensors; save the model in that form")
        model = Bert(shape)
        tensors = {
            name: tensor.float() for name, tensor in renamed(read_file(root / "model.safetensors")[0], root).items()
        }
        try:
            model.load_state_dict(tensors)
        except RuntimeError as error:
            raise CheckpointError(f"the tensors of {root} do not fit its config.json: {error}") from None
        return model.eval()

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Unit vectors [N, D]; texts of like length are computed together."""
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch([self.prompt + text for text in texts])]
        order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
        found: dict[int, np.ndarray[Any, Any]] = {}
        for start in range(0, len(order), _AT_ONCE):
            places = order[start : start + _AT_ONCE]
            longest = max(len(rows[place]) for place in places)
            ids = torch.full((len(places), longest), self.model.config.pad_id)
            inside = torch.zeros(len(places), longest, dtype=torch.bool)
            for line, place in enumerate(places):
                ids[line, : len(rows[place])] = torch.tensor(rows[place])
                inside[line, : len(rows[place])] = True
            x = self._pooled(self.model(ids, inside), inside)
            for step in self._after:
                x = step(x)
            found |= dict(zip(places, F.normalize(x, dim=-1).numpy(), strict=True))
        return np.stack([found[place] for place in range(len(rows))]).astype(np.float32)

    def _pooled(self, hidden: Tensor, inside: Tensor) -> Tensor:
        if self._pooling == "cls":
            return hidden[:, 0]
        mask = inside.unsqueeze(-1)
        if self._pooling == "max":
            return hidden.masked_fill(~mask, -torch.inf).amax(dim=1)
        return (hidden * mask).sum(dim=1) / mask.sum(dim=1)


def _dense(path: Path) -> Callable[[Tensor], Tensor]:
    config = _read(path / "config.json")
    name = str(config.get("activation_function", "Identity")).rsplit(".", 1)[-1].lower()
    if name not in _ACTIVATIONS:
        raise ConfigError(f"{path} has the activation '{name}'; supported are {', '.join(_ACTIVATIONS)}")
    tensors = read_file(path / "model.safetensors")[0]
    weight, bias = tensors["linear.weight"].float(), tensors.get("linear.bias")
    return lambda x: _ACTIVATIONS[name](F.linear(x, weight, None if bias is None else bias.float()))


def _read(path: Path, *, optional: bool = False) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        if optional:
            return {}
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); the folder is incomplete") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is no JSON ({error})") from None
