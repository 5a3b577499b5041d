"""CLIP ViT-L/14, the vision tower of the XComposer2 line (CLIP: arXiv 2103.00020; 4KHD: 2404.06512, sec. 3.1).

Pre-norm blocks with biases everywhere and quick-GELU, ``x sigmoid(1.702 x)``; a norm before the first block; no bias on the
patches. The features are the last block's output *before* CLIP's final norm, without the class token. Released files have no
final norm, and those which carry one do not use it, so there is none here. ``checkpoint_layers`` recomputes each block in the
backward pass: the 56 views of HD-55 would keep 30 GB of activations otherwise.

Axes: N tiles, P patches (+1 class token), C width, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vedere.errors import ConfigError
from vedere.models.config_fields import check_count
from vedere.models.patches import PatchConfig, PatchEmbedding


@dataclass(frozen=True, kw_only=True)
class ClipViTConfig:
    """Shape of the tower.

    Attributes:
        patches: Patch embedding (without bias) and merge.
        layers: Number of blocks.
        heads: Attention heads.
        ffn_size: Width of the MLP.
        norm_eps: Epsilon of every LayerNorm.
    """

    patches: PatchConfig
    layers: int = 24
    heads: int = 16
    ffn_size: int = 4096
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        """Checks what no tensor shape would catch.

        Raises:
            ConfigError: too many layers, heads that do not divide the width, or patches with a bias or a stem.
        """
        check_count("layers", self.layers)
        if self.heads < 1 or self.patches.width % self.heads:
            raise ConfigError(f"{self.heads} heads do not divide the tower's width {self.patches.width} evenly")
        if self.patches.bias or self.patches.stem:
            raise ConfigError("CLIP's patches have no bias and no stem; set bias=False and stem=()")


class _Block(nn.Module):
    def __init__(self, config: ClipViTConfig) -> None:
        super().__init__()
        width = config.patches.width
        self.heads = config.heads
        self.norm1, self.norm2 = nn.LayerNorm(width, config.norm_eps), nn.LayerNorm(width, config.norm_eps)
        self.attention = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "out": nn.Linear(width, width)})
        self.ffn = nn.ModuleDict({"fc1": nn.Linear(width, config.ffn_size), "fc2": nn.Linear(config.ffn_size, width)})

    def forward(self, x: Tensor) -> Tensor:
        tiles, tokens, width = x.shape
        parts = self.attention["qkv"](self.norm1(x)).view(tiles, tokens, 3, self.heads, -1)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(tiles, tokens, width)
        x = x + self.attention["out"](attended)
        wide = self.ffn["fc1"](self.norm2(x))
        out: Tensor = x + self.ffn["fc2"](wide * torch.sigmoid(1.702 * wide))
        return out


class ClipViT(PatchEmbedding):
    """Vision tower: tiles to hidden states.

    Args:
        config: Shape.
    """

    def __init__(self, config: ClipViTConfig) -> None:
        super().__init__(config.patches)
        self.checkpoint_layers = False
        self.pre_norm = nn.LayerNorm(config.patches.width, config.norm_eps)
        self.layers = nn.ModuleList(_Block(config) for _ in range(config.layers))

    def encode(self, pixels: Tensor) -> Tensor:
        """The last block's output, class token first: ``[N, 3, S, S]`` to ``[N, 1 + P, C]``."""
        x: Tensor = self.pre_norm(self(pixels, with_class=True))
        for layer in self.layers:
            if self.checkpoint_layers and torch.is_grad_enabled():
                x = torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)
            else:
                x = layer(x)
        return x
