"""Norm and feed-forward bricks that every decoder of this line shares.

Axes: T tokens, D width, F feed-forward width. Everything is `[T, D]`, contiguous, without a batch axis: a strided 3-D
input makes the CPU matmul copy the whole weight.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ReadLinear(nn.Linear):
    """A linear map whose owner reads the weight instead of calling it, so that no other form may take its place."""


class _RMSNorm(torch.autograd.Function):
    """The norm in three passes over memory forward and four backward.

    Written out because the composite form takes about twenty, which on a CPU is a tenth of a training step.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float()
        scale = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        normed = (wide * scale if wide is x else wide.mul_(scale)).to(x.dtype)
        ctx.save_for_backward(normed, weight, scale)
        out: Tensor = normed * weight
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None]:
        normed, weight, scale = ctx.saved_tensors
        of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = (grads[0] * normed).flatten(0, -2).sum(0).to(weight.dtype)
        of_x = grads[0] * weight
        along = torch.linalg.vecdot(of_x, normed).div_(-normed.shape[-1]).unsqueeze(-1)
        return of_x.addcmul_(normed, along).mul_(scale.to(of_x.dtype)), of_weight, None


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
        if not torch.is_grad_enabled():
            return self.reference(x)
        out: Tensor = _RMSNorm.apply(x, self.weight, self.eps)  # type: ignore[no-untyped-call]
        return out

    def reference(self, x: Tensor) -> Tensor:
        """The readable form, one fused pass where no gradient is needed; a test holds both together.

        The weight comes after the cast (torch's own weighted form multiplies before it, one rounding off in bfloat16).
        """
        return F.rms_norm(x, (x.shape[-1],), None, self.eps) * self.weight


class _GatedSiLU(torch.autograd.Function):
    """``silu(gate) * up`` of a fused ``[T, 2F]``, whose gradient is written straight into its fused place.

    The composite form makes the two halves of the gradient apart and joins them by a copy of the widest activation of a layer.
    """

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        opened = F.silu(gate)
        ctx.save_for_backward(gate_up, opened)
        out: Tensor = opened * up
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        gate_up, opened = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        joined = torch.empty_like(gate_up)
        of_gate, of_up = joined.chunk(2, dim=-1)
        torch.mul(grads[0], opened, out=of_up)
        torch.ops.aten.silu_backward.grad_input(grads[0] * up, gate, grad_input=of_gate)
        return joined


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
        out: Tensor = self.down(self.gate(self.gate_up(x_TD)))
        return out

    @staticmethod
    def gate(gate_up: Tensor) -> Tensor:
        """``silu(gate) * up`` of a fused ``[T, 2F]``: ``[T, F]``."""
        if torch.is_grad_enabled() and gate_up.requires_grad:
            gated: Tensor = _GatedSiLU.apply(gate_up)  # type: ignore[no-untyped-call]
            return gated
        return SwiGLU.gated(gate_up)

    @staticmethod
    def gated(gate_up: Tensor) -> Tensor:
        """The readable form of the gate; a test holds both together."""
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate) * up
