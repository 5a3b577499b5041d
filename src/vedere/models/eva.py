"""EVA-CLIP ViT-g/14, the vision tower of XComposer (arXiv 2309.15112, sec. 3.1; tower: 2303.15389).

The form that BLIP-2 uses: 40 blocks were trained and the last is dropped, so 39 remain. Pre-norm blocks with exact GELU, no
layer scale, no final norm inside, and biases on query and value but none on key (its builder can leave out these, too). All
tokens, the class token included, are the features; a LayerNorm of another epsilon (1e-5, the blocks have 1e-6) follows and is
part of this class as `norm`.

Cost: 1.0 B parameters; 257 tokens of width 1408 a picture.

Axes: N pictures, P patches (+1 class token), C width, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vedere.errors import ConfigError
from vedere.models.config_fields import check_count
from vedere.models.layers import ReadLinear
from vedere.models.patches import PatchConfig, PatchEmbedding

_PATCHES = PatchConfig(width=1408, patch=14, tile=224, downsample=1)


@dataclass(frozen=True, kw_only=True)
class EvaConfig:
    """Shape of the tower.

    Attributes:
        patches: Patch embedding; nothing is unshuffled.
        layers: Number of blocks that are kept.
        heads: Attention heads.
        ffn_size: Width of the MLP.
        norm_eps: Epsilon of the norms inside the blocks.
        qkv_bias: Biases on query and value, as every release has.
    """

    patches: PatchConfig = field(default=_PATCHES)
    layers: int = 39
    heads: int = 16
    ffn_size: int = 6144
    norm_eps: float = 1e-6
    qkv_bias: bool = True

    def __post_init__(self) -> None:
        """Checks what no tensor shape would catch.

        Raises:
            ConfigError: patches without a bias, too many layers, heads that do not divide the width.
        """
        self.patches.with_bias("EVA-CLIP")
        check_count("layers", self.layers)
        if self.heads < 1 or self.patches.width % self.heads:
            raise ConfigError(f"{self.heads} heads do not divide the tower's width {self.patches.width} evenly")


class _Attention(nn.Module):
    """Self-attention whose key bias is zero by construction (there is no parameter for it)."""

    q_bias: nn.Parameter | None
    v_bias: nn.Parameter | None

    def __init__(self, config: EvaConfig) -> None:
        super().__init__()
        width = config.patches.width
        self.heads = config.heads
        self.qkv = ReadLinear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width)) if config.qkv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(width)) if config.qkv_bias else None
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        pictures, tokens, width = x.shape
        bias = None
        if self.q_bias is not None and self.v_bias is not None:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
        q, k, v = F.linear(x, self.qkv.weight, bias).view(pictures, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(pictures, tokens, width)
        projected: Tensor = self.out(out)
        return projected


class _Block(nn.Module):
    def __init__(self, config: EvaConfig) -> None:
        super().__init__()
        width = config.patches.width
        self.norm1, self.norm2 = nn.LayerNorm(width, config.norm_eps), nn.LayerNorm(width, config.norm_eps)
        self.attention = _Attention(config)
        self.fc1, self.fc2 = nn.Linear(width, config.ffn_size), nn.Linear(config.ffn_size, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return out


class Eva(PatchEmbedding):
    """Vision tower: pictures to hidden states of all tokens.

    Args:
        config: Shape.
    """

    def __init__(self, config: EvaConfig) -> None:
        super().__init__(config.patches)
        self.layers = nn.ModuleList(_Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.patches.width)  # eps 1e-5: outside the tower in the original (`ln_vision`)

    def encode(self, pixels: Tensor) -> Tensor:
        """Output of the last block, class token first, before `norm`.

        Args:
            pixels: ``[N, 3, S, S]``.

        Returns:
            ``[N, 1 + P, C]``.
        """
        x: Tensor = self(pixels, with_class=True)
        for layer in self.layers:
            x = layer(x)
        return x
