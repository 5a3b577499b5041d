"""Norm and feed-forward bricks that every decoder of this line shares.

Axes: T tokens, D width, F feed-forward width. Everything is `[T, D]`, contiguous, without a batch axis: a strided 3-D
input makes the CPU matmul copy the whole weight.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RMSNorm(nn.Module):
    """Root-mean-square norm as in InternLM2 / Llama: statistics in float32, cast back, then times the weight.

    Args:
        size: Width D.
        eps: Added to the mean square.
    """

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalises the last axis of ``x [..., D]``."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return wide.to(x.dtype) * self.weight


class SwiGLU(nn.Module):
    """``down(silu(gate x) * up x)`` with gate and up fused into one matrix (gate rows first).

    Args:
        width: D.
        hidden: F.
        bias: Whether the three linear maps have biases (an InternLM2 option that no released checkpoint uses).
    """

    def __init__(self, width: int, hidden: int, bias: bool = False) -> None:
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * hidden, bias=bias)
        self.down = nn.Linear(hidden, width, bias=bias)

    def forward(self, x_TD: Tensor) -> Tensor:
        """Maps ``[T, D]`` to ``[T, D]``."""
        gate, up = self.gate_up(x_TD).chunk(2, dim=-1)
        out: Tensor = self.down(F.silu(gate) * up)
        return out
