"""LoRA that a release ships un-merged and that is part of its model (XComposer: arXiv 2309.15112, sec. 3.2; LoRA: 2106.09685).

XComposer's checkpoints keep low-rank matrices of query, value, up and down beside the base weights, for all tokens:
``y = W x + b + alpha / rank * B A x``. vedere fuses query, key and value into one map, gate and up into another, so a
`LowRankLinear` adds each adapter to the rows of its part only. Adapters compute in the dtype that they are stored in (float32
in the release, whatever the base is). The dropout on their input (0.05, training only) is not applied.

Cost of the released rank 256: 0.38 B parameters, 6 % more work a layer; `fold_low_rank` puts them into
the base once (in float32) where nothing is to be trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vedere.errors import ConfigError
from vedere.models.decoder import Decoder, DecoderConfig


@dataclass(frozen=True, kw_only=True)
class LowRankConfig:
    """The adapters of one release, on query, value, up and down.

    Attributes:
        rank: Inner width r.
        alpha: Scale; the product counts ``alpha / rank``.
        dropout: On the adapters' input in the original's training; kept for its config.json, not applied here.
    """

    rank: int = 256
    alpha: float = 256.0
    dropout: float = 0.05

    def __post_init__(self) -> None:
        """Checks the rank.

        Raises:
            ConfigError: a rank below 1.
        """
        if self.rank < 1:
            raise ConfigError(f"adapters of rank {self.rank}; expected at least 1, or none at all")


class _Pair(nn.Module):
    """Matrices A ``[r, in]`` and B ``[rows, r]``; B starts at zero."""

    def __init__(self, width: int, rows: int, rank: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(rank, width))
        self.b = nn.Parameter(torch.zeros(rows, rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))


class LowRankLinear(nn.Linear):
    """A linear map with low-rank additions to ranges of its rows.

    Args:
        base: The map; its parameters are taken over.
        parts: Name -> (first row, number of rows).
        config: Rank and scale.
    """

    def __init__(self, base: nn.Linear, parts: Mapping[str, tuple[int, int]], config: LowRankConfig) -> None:
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.parts = dict(parts)
        self.scale = config.alpha / config.rank
        self.lora = nn.ModuleDict(
            {name: _Pair(base.in_features, rows, config.rank) for name, (_, rows) in self.parts.items()}
        )

    def forward(self, input: Tensor) -> Tensor:
        """Maps ``[..., in]`` to ``[..., out]``."""
        out = F.linear(input, self.weight, self.bias)
        pieces, at = [], 0
        for name, (first, rows) in self.parts.items():
            pair = self.lora[name]
            assert isinstance(pair, _Pair)
            wide = input.to(pair.a.dtype)
            added = F.linear(F.linear(wide, pair.a), pair.b) * self.scale
            pieces += [out[..., at:first], (out[..., first : first + rows] + added).to(out.dtype)]
            at = first + rows
        return torch.cat([*pieces, out[..., at:]], dim=-1)

    def folded(self) -> nn.Linear:
        """A plain map with the adapters inside, computed in float32 at least; this one stays as it is."""
        plain = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        with torch.no_grad():
            weight = self.weight.to(torch.promote_types(self.weight.dtype, torch.float32), copy=True)
            for name, (first, rows) in self.parts.items():
                pair = self.lora[name]
                assert isinstance(pair, _Pair)
                weight[first : first + rows] += self.scale * (pair.b.to(weight.dtype) @ pair.a.to(weight.dtype))
        plain.weight = nn.Parameter(weight.to(self.weight.dtype))
        plain.bias = self.bias
        return plain


def adapted_rows(config: DecoderConfig) -> dict[str, dict[str, tuple[int, int]]]:
    """Which rows of a layer's maps have adapters: map -> part -> (first row, number of rows)."""
    query, key = config.heads * config.head_dim, config.kv_heads * config.head_dim
    return {
        "attention.text.qkv": {"q": (0, query), "v": (query + key, key)},
        "ffn.text.gate_up": {"up": (config.ffn_size, config.ffn_size)},
        "ffn.text.down": {"down": (0, config.hidden_size)},
    }


def add_low_rank(decoder: Decoder, config: LowRankConfig) -> None:
    """Gives every layer of a decoder its adapters, in place."""
    rows = adapted_rows(decoder.config)
    for layer in decoder.layers:
        for name, parts in rows.items():
            base = layer.get_submodule(name)
            assert isinstance(base, nn.Linear)
            layer.set_submodule(name, LowRankLinear(base, parts, config))


def fold_low_rank(decoder: Decoder) -> None:
    """Puts the adapters of every layer into its base weights, in place; nothing happens where there are none."""
    for layer in decoder.layers:
        for name in adapted_rows(decoder.config):
            adapted = layer.get_submodule(name)
            if isinstance(adapted, LowRankLinear):
                layer.set_submodule(name, adapted.folded())
