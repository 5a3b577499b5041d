"""Low-rank additions to a linear map: ``y = W x + s B (A x)`` (LoRA, arXiv 2106.09685).

Three things of this line are made of it. *Partial* LoRA (XComposer2, 2401.16420, sec. 3.2; 4KHD, 2404.06512) adds the product
for image tokens only: `vedere.models.experts.Experts` hands it the slice of visual rows, so text rows cost nothing. Plain LoRA
adds it for every token and can be merged into W: `vedere.models.adapters`. The first XComposer's release ships such LoRA
un-merged, as a part of its model (2309.15112, sec. 3.2): `vedere.models.xcomposer`.

vedere fuses maps that files keep apart (gate and up; query, key and value). Each part then has factors of its own: their A
stand on top of each other, and the B of each feeds its own range of rows.

Factors compute in the dtype that they are stored in, whatever the map's is; the sum has the map's.

Cost: ``parts x rank x (inputs + rows / parts)`` multiplications a row.

Axes: M rows of a pass, I inputs, O outputs, r rank, k parts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vedere.errors import ConfigError

Part = tuple[int, int]
"""(first row, number of rows) of the outputs of a map."""


class LowRank(nn.Module):
    """The addition ``s B (A x)`` alone.

    Args:
        inputs: Width I.
        parts: Ranges of the outputs that have factors of their own, ascending.
        rank: r.
        alpha: The scale s is ``alpha / rank``.
        dropout: Of the input, while training.

    Raises:
        ConfigError: a rank below 1, a scale of 0 or less, or a dropout outside [0, 1).
    """

    def __init__(self, inputs: int, parts: Sequence[Part], rank: int, alpha: float, dropout: float = 0.0) -> None:
        super().__init__()
        if rank < 1 or alpha <= 0 or not 0 <= dropout < 1:
            raise ConfigError(
                f"rank {rank}, alpha {alpha}, dropout {dropout}: expected a rank >= 1, an alpha > 0, a dropout in [0, 1)"
            )
        self.parts, self.rank, self.alpha, self.dropout = tuple(parts), rank, alpha, dropout
        self.lora_A = nn.Parameter(torch.empty(len(self.parts) * rank, inputs))
        self.lora_B = nn.Parameter(torch.zeros(sum(rows for _, rows in self.parts), rank))
        nn.init.uniform_(self.lora_A, -1 / math.sqrt(inputs), 1 / math.sqrt(inputs))

    @property
    def scale(self) -> float:
        """``alpha / rank``."""
        return self.alpha / self.rank

    def add_to(self, out_MO: Tensor, x_MI: Tensor) -> Tensor:
        """Adds the product to the map's output in place, and returns it."""
        if self.dropout and self.training:
            x_MI = F.dropout(x_MI, self.dropout)
        low = F.linear(x_MI.to(self.lora_A.dtype), self.lora_A)
        if self.scale != 1:
            low = low * self.scale
        sizes = [rows for _, rows in self.parts]
        for (start, rows), part, up in zip(
            self.parts, low.split(self.rank, dim=-1), self.lora_B.split(sizes), strict=True
        ):
            out_MO[..., start : start + rows].add_(
                F.linear(part, up)
            )  # not +=, which assigns the slice to itself as well
        return out_MO

    def delta(self, outputs: int) -> Tensor:
        """The product as a matrix ``[O, I]`` in float32, zero where no part is."""
        full = self.lora_A.new_zeros(outputs, self.lora_A.shape[1], dtype=torch.float32)
        sizes = [rows for _, rows in self.parts]
        for (start, rows), down, up in zip(
            self.parts, self.lora_A.split(self.rank), self.lora_B.split(sizes), strict=True
        ):
            full[start : start + rows] = up.float() @ down.float() * self.scale
        return full


class LoRALinear(nn.Linear):
    """A linear map with a `LowRank` addition for every row; weight and bias keep their names.

    Args:
        base: The map; its parameters are shared, not copied.
        low: The addition.
    """

    def __init__(self, base: nn.Linear, low: LowRank) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self.low = low

    def forward(self, x: Tensor) -> Tensor:
        """``[..., I]`` to ``[..., O]``."""
        return self.low.add_to(F.linear(x, self.weight, self.bias), x)

    def plain(self) -> nn.Linear:
        """The map without the addition."""
        base = nn.Linear.__new__(nn.Linear)
        nn.Module.__init__(base)
        base.in_features, base.out_features = self.in_features, self.out_features
        base.weight, base.bias = self.weight, self.bias
        return base
