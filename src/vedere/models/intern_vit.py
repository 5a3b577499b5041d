"""InternViT, the vision tower of InternVL 1.5 to 3.5 (arXiv 2312.14238; shapes in InternVL3's table 1).

Pre-norm blocks with layer scale; no final norm (transformers' class has one on request). The 300M model has LayerNorm and qkv
biases; the 6B model RMSNorm, no qkv bias, and RMSNorm over the full width of q and k before the heads are split. Both carry the
same ``model_type`` on the hub, so the fields decide.

Axes: N tiles, P patches (+1 class token), C width, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vedere.errors import ConfigError
from vedere.models.config_fields import check_count
from vedere.models.full_scores import attention
from vedere.models.layers import RMSNorm
from vedere.models.patches import PatchConfig, PatchEmbedding


@dataclass(frozen=True, kw_only=True)
class InternViTConfig:
    """Shape of the tower.

    Attributes:
        patches: Patch embedding and unshuffle.
        layers: Number of blocks.
        heads: Attention heads.
        ffn_size: Width of the MLP.
        norm: Kind of norm.
        norm_eps: Its epsilon.
        qkv_bias: Biases on the fused q, k, v.
        qk_norm: RMSNorm over all of q and of k.
        select_layer: Which hidden state the features are: -1 the last block's, -2 the one before it, ...; 0 the embedding,
            1 the first block's, ... (the original's numbering).
        qk_norm_eps: Epsilon of ``qk_norm``; None: ``norm_eps``, as the released code has it. The native class knows 1e-6 only.
        final_norm: A LayerNorm after the last block, which counts for ``select_layer`` -1 only: the native class without
            ``use_mean_pooling``. No release has it.
    """

    patches: PatchConfig
    layers: int = 24
    heads: int = 16
    ffn_size: int = 4096
    norm: Literal["layer_norm", "rms_norm"] = "layer_norm"
    norm_eps: float = 1e-6
    qkv_bias: bool = True
    qk_norm: bool = False
    select_layer: int = -1
    qk_norm_eps: float | None = None
    final_norm: bool = False

    def __post_init__(self) -> None:
        """Checks what no tensor shape would catch.

        Raises:
            ConfigError: patches without a bias, too many layers, heads that do not divide the width, or a hidden state that
                the tower lacks.
        """
        self.patches.with_bias("InternViT")
        check_count("layers", self.layers)
        if self.heads < 1 or self.patches.width % self.heads:
            raise ConfigError(f"{self.heads} heads do not divide the tower's width {self.patches.width} evenly")
        if not -self.layers - 1 <= self.select_layer <= self.layers:
            raise ConfigError(
                f"select_layer {self.select_layer} of a tower of {self.layers} blocks; expected {-self.layers - 1} to "
                f"{self.layers}: it has the embedding (0) and every block's output"
            )

    @property
    def depth(self) -> int:
        """Blocks that the features need."""
        return self.select_layer if self.select_layer >= 0 else self.layers + 1 + self.select_layer


class _Attention(nn.Module):
    def __init__(self, config: InternViTConfig) -> None:
        super().__init__()
        width = config.patches.width
        self.heads = config.heads
        self.qkv = nn.Linear(width, 3 * width, bias=config.qkv_bias)
        self.out = nn.Linear(width, width)
        self.qk_norm = config.qk_norm
        if config.qk_norm:
            eps = config.norm_eps if config.qk_norm_eps is None else config.qk_norm_eps
            self.q_norm, self.k_norm = RMSNorm(width, eps), RMSNorm(width, eps)

    def forward(self, x: Tensor) -> Tensor:
        tiles, tokens, width = x.shape
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        if self.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (part.view(tiles, tokens, self.heads, -1).transpose(1, 2) for part in (q, k, v))
        projected: Tensor = self.out(attention(q, k, v).view(tiles, tokens, width))
        return projected


class _MLP(nn.Module):
    def __init__(self, config: InternViTConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.patches.width, config.ffn_size)
        self.fc2 = nn.Linear(config.ffn_size, config.patches.width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class _Block(nn.Module):
    def __init__(self, config: InternViTConfig) -> None:
        super().__init__()
        width = config.patches.width
        norm = RMSNorm if config.norm == "rms_norm" else nn.LayerNorm
        self.norm1, self.norm2 = norm(width, config.norm_eps), norm(width, config.norm_eps)
        self.attention, self.ffn = _Attention(config), _MLP(config)
        self.scale1 = nn.Parameter(torch.full((width,), 0.1))
        self.scale2 = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x)) * self.scale1
        out: Tensor = x + self.ffn(self.norm2(x)) * self.scale2
        return out


class InternViT(PatchEmbedding):
    """Vision tower: tiles to hidden states.

    Args:
        config: Shape.
    """

    def __init__(self, config: InternViTConfig) -> None:
        super().__init__(config.patches)
        self.depth = config.depth
        self.layers = nn.ModuleList(_Block(config) for _ in range(config.layers))
        self.final_norm, self.normed = config.final_norm, config.final_norm and config.select_layer == -1
        if config.final_norm:
            self.norm = nn.LayerNorm(config.patches.width, config.norm_eps)

    def encode(self, pixels: Tensor, record: list[Tensor] | None = None) -> Tensor:
        """The selected hidden state, class token first; blocks after it are not run.

        Args:
            pixels: ``[N, 3, H, W]``.
            record: Receives the embedding, the output of every block, of which then all run, and that of the final norm if
                there is one (for verification).

        Returns:
            ``[N, 1 + P, C]``.
        """
        x: Tensor = self(pixels, with_class=True)
        selected = x
        for number, layer in enumerate(self.layers, 1):
            if record is None and number > self.depth:
                break
            if record is not None:
                record.append(x)
            x = layer(x)
            if number == self.depth:
                selected = x
        if record is not None:
            record.append(x)
            if self.final_norm:
                record.append(self.norm(x))
        return self.norm(selected) if self.normed else selected
