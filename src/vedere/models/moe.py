"""A mixture of feed-forward experts with a learned router, as Qwen3-MoE has it (InternVL3.5-30B-A3B and 241B-A28B).

Router logits of all members, softmax in float32, the k largest kept and, where ``norm_topk_prob`` says so, scaled to sum 1;
the output is the weighted sum of those k members, each a SwiGLU. This routing depends on the token's content and has nothing
to do with the visual experts of `vedere.models.experts`, whose route is known from the token's type. Only inference is meant:
there is no balancing loss.

Tokens are grouped by member, so every member that is used is read once and multiplies one matrix; unused ones are not touched.

Axes: T tokens, D width, F width of a member, E members, k active ones.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vedere.models.layers import SwiGLU


class _Gate(nn.Module):
    def forward(self, gate_up: Tensor) -> Tensor:
        return SwiGLU.gated(gate_up)


class MoE(nn.Module):
    """Router and members.

    Args:
        width: D.
        hidden: F.
        size: E.
        active: k.
        normed: Whether the weights of the active members sum to 1.
    """

    def __init__(self, width: int, hidden: int, size: int, active: int, normed: bool) -> None:
        super().__init__()
        self.active, self.normed = active, normed
        self.router = nn.Linear(width, size, bias=False)
        self.gate_up = nn.Parameter(torch.empty(size, 2 * hidden, width))
        self.down = nn.Parameter(torch.empty(size, width, hidden))
        self.members: nn.ModuleList | None = None
        nn.init.normal_(self.gate_up, std=0.02)
        nn.init.normal_(self.down, std=0.02)

    def route(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        """(weights, members) of every token, both ``[T, k]``, the largest first; weights in the dtype of ``x``."""
        weights, members = self.router(x_TD).float().softmax(-1).topk(self.active, dim=-1)
        if self.normed:
            weights = weights / weights.sum(-1, keepdim=True)
        return weights.to(x_TD.dtype), members

    def pack(self, packed: Callable[[Tensor], nn.Module]) -> None:
        """Gives every member two maps of its own, made of its weights by ``packed``, and drops the joint tensors.

        The router stays: its choice between members would suffer most from rounding, and it is small.
        """
        pairs = zip(self.gate_up.detach(), self.down.detach(), strict=True)
        self.members = nn.ModuleList(nn.Sequential(packed(gate_up), _Gate(), packed(down)) for gate_up, down in pairs)
        del self.gate_up, self.down

    def _member(self, member: int, x_TD: Tensor) -> Tensor:
        if self.members is not None:
            out: Tensor = self.members[member](x_TD)
            return out
        return F.linear(SwiGLU.gated(F.linear(x_TD, self.gate_up[member])), self.down[member])

    def forward(self, x_TD: Tensor) -> Tensor:
        """Maps ``[T, D]`` to ``[T, D]``."""
        weights, members = self.route(x_TD)
        order = members.flatten().argsort(stable=True)
        rows = order // self.active  # token of each place, member after member
        counts = members.flatten().bincount(minlength=self.router.out_features).tolist()
        out = torch.zeros_like(x_TD)
        start = 0
        for member, count in enumerate(counts):
            if count:
                place = slice(start, start + count)
                share = self._member(member, x_TD[rows[place]]) * weights.flatten()[order[place], None]
                out = out.index_add(0, rows[place], share)
                start += count
        return out
