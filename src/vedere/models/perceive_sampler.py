"""The perceive sampler of XComposer: learned queries read a picture (arXiv 2309.15112, sec. 3.1).

A Q-Former (BLIP-2, 2301.12597): a BERT encoder whose text half is removed. 64 learned queries attend each other in every layer
and the picture in every second one, beginning with the first. Post-norm as in BERT, epsilon 1e-12. Queries get the
embedding norm and no positions. The dropout of the original (0.1, training only) is not applied.

Axes: N pictures, Q queries, M picture tokens, C width, E width of the picture tokens, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vedere.errors import ConfigError
from vedere.models.config_fields import check_count


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """Shape of the sampler.

    Attributes:
        queries: Learned queries, the visual tokens of a picture.
        width: C.
        layers: Number of layers.
        heads: Attention heads.
        ffn_size: Width of the feed-forward map.
        picture_width: E.
        cross_every: Layers 0, n, 2n, ... look at the picture.
        norm_eps: Epsilon of every norm.
    """

    queries: int = 64
    width: int = 768
    layers: int = 12
    heads: int = 12
    ffn_size: int = 3072
    picture_width: int = 1408
    cross_every: int = 2
    norm_eps: float = 1e-12

    def __post_init__(self) -> None:
        """Checks what no tensor shape would catch.

        Raises:
            ConfigError: heads that do not divide the width, sizes below 1, or too many layers.
        """
        if min(self.queries, self.layers, self.cross_every) < 1:
            raise ConfigError(
                f"{self.queries} queries, {self.layers} layers, cross attention every {self.cross_every}: expected at least 1"
            )
        check_count("layers", self.layers)
        if self.heads < 1 or self.width % self.heads:
            raise ConfigError(f"{self.heads} heads do not divide the sampler's width {self.width} evenly")

    def crosses(self, layer: int) -> bool:
        """Whether a layer looks at the picture."""
        return layer % self.cross_every == 0


class _Attention(nn.Module):
    """Attention, output map, residual and norm of a BERT layer."""

    def __init__(self, config: SamplerConfig, source_width: int) -> None:
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(source_width, config.width)
        self.value = nn.Linear(source_width, config.width)
        self.out = nn.Linear(config.width, config.width)
        self.norm = nn.LayerNorm(config.width, config.norm_eps)

    def forward(self, x_NQC: Tensor, source: Tensor) -> Tensor:
        parts = (self.query(x_NQC), self.key(source), self.value(source))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        out: Tensor = self.norm(self.out(seen) + x_NQC)
        return out


class _Layer(nn.Module):
    def __init__(self, config: SamplerConfig, number: int) -> None:
        super().__init__()
        self.attention = _Attention(config, config.width)
        self.crosses = config.crosses(number)
        if self.crosses:
            self.cross = _Attention(config, config.picture_width)
        self.fc1, self.fc2 = nn.Linear(config.width, config.ffn_size), nn.Linear(config.ffn_size, config.width)
        self.norm = nn.LayerNorm(config.width, config.norm_eps)

    def forward(self, x_NQC: Tensor, picture_NME: Tensor) -> Tensor:
        x_NQC = self.attention(x_NQC, x_NQC)
        if self.crosses:
            x_NQC = self.cross(x_NQC, picture_NME)
        out: Tensor = self.norm(self.fc2(F.gelu(self.fc1(x_NQC))) + x_NQC)
        return out


class PerceiveSampler(nn.Module):
    """Pictures of any number of tokens to a fixed number of tokens.

    Args:
        config: Shape.
    """

    def __init__(self, config: SamplerConfig) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.empty(config.queries, config.width))
        nn.init.normal_(self.queries, std=0.02)
        self.norm = nn.LayerNorm(config.width, config.norm_eps)
        self.layers = nn.ModuleList(_Layer(config, number) for number in range(config.layers))

    def forward(self, picture_NME: Tensor) -> Tensor:
        """What the queries read of ``[N, M, E]``: ``[N, Q, C]``."""
        x: Tensor = self.norm(self.queries).expand(len(picture_NME), -1, -1)
        for layer in self.layers:
            x = layer(x, picture_NME)
        return x
