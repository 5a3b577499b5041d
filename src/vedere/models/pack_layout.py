"""How the documents of a pack stand side by side for attention: stacks of similar length, padded at the end.

Built once a forward pass and shared by all layers. Padding repeats a row of its document; a causal mask hides it as a key, and
as a query it gets no gradient.

Axes: T tokens, S documents of a stack, L padded length, d head width.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vedere.models.experts import SpanRouter, select_rows


@dataclass(frozen=True)
class _Stack:
    """Documents of similar length side by side."""

    index: Tensor  # [S * L] routed row of each place; padding repeats a row
    documents: int
    length: int


class PackLayout:
    """Where each routed row goes when documents are stacked; built once a forward pass, shared by all layers.

    Args:
        borders: Cumulative document borders, ``[S + 1]`` host integers.
        router: The pass's router.
        device: Of the indices.
        cached: Stack all documents together (a cache has one row of slots).
    """

    def __init__(self, borders: Sequence[int], router: SpanRouter, device: torch.device, cached: bool = False) -> None:
        self.borders = list(borders)
        lengths = [after - before for before, after in itertools.pairwise(self.borders)]
        if not lengths or min(lengths) < 1 or self.borders[0] != 0 or self.borders[-1] != router.tokens:
            raise ValueError(
                f"borders {self.borders[:6]}... do not cut {router.tokens} tokens into non-empty documents"
            )
        self.stacks: list[_Stack] = []
        self.plain = router.order is None and min(lengths) == max(lengths)
        if self.plain:  # rows already stand as [S, L]
            self.index = self.place = self.padding = torch.empty(0, dtype=torch.int64)
            self.stacks.append(_Stack(self.index, len(lengths), lengths[0]))
            return
        place_of_row = torch.empty(router.tokens, dtype=torch.int64)
        offset = 0
        for group in [list(range(len(lengths)))] if cached else _buckets(lengths):
            longest = max(lengths[document] for document in group)
            starts = torch.tensor([self.borders[document] for document in group])
            sizes = torch.tensor([lengths[document] for document in group])
            steps = torch.arange(longest)
            valid = steps[None] < sizes[:, None]
            rows = starts[:, None] + torch.minimum(steps[None], sizes[:, None] - 1)
            place_of_row[rows[valid]] = offset + torch.arange(rows.numel()).view_as(rows)[valid]
            self.stacks.append(_Stack(rows.flatten(), len(group), longest))
            offset += rows.numel()
        index = torch.cat([stack.index for stack in self.stacks]).to(device)
        place_of_row = place_of_row.to(device)
        if router.inverse is not None and router.order is not None:
            index = router.inverse[index]
            place_of_row = place_of_row[router.order]
        self.index, self.place = index, place_of_row
        real = torch.zeros(len(index), dtype=torch.bool, device=device)
        real[place_of_row] = True
        self.padding = real.logical_not().nonzero().squeeze(1)

    def stack(self, x: Tensor) -> list[Tensor]:
        """Routed rows ``[T, n, d]`` as one ``[S, L, n, d]`` for each stack."""
        if self.plain:
            return [x.unflatten(0, (self.stacks[0].documents, self.stacks[0].length))]
        rows = select_rows(x, self.index, self.place)
        sizes = [stack.documents * stack.length for stack in self.stacks]
        return [
            part.view(stack.documents, stack.length, *x.shape[1:])
            for part, stack in zip(rows.split(sizes), self.stacks, strict=True)
        ]

    def unstack(self, parts: list[Tensor]) -> Tensor:
        """The inverse of `stack`; what stands in padding is dropped."""
        if self.plain:
            return parts[0].flatten(0, 1)
        flat = torch.cat([part.flatten(0, 1) for part in parts]) if len(parts) > 1 else parts[0].flatten(0, 1)
        return _Unstack.apply(flat, self.index, self.place, self.padding)  # type: ignore[no-any-return,no-untyped-call]


class _Unstack(torch.autograd.Function):
    """Takes the real rows out of a padded stack; padding gets a zero gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, place: Tensor, padding: Tensor) -> Tensor:
        ctx.save_for_backward(index, padding)
        return x.index_select(0, place)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        index, padding = ctx.saved_tensors
        full = grads[0].index_select(0, index)  # padding repeats a row, whose gradient is taken out again
        full.index_fill_(0, padding, 0)
        return full, None, None, None


def _buckets(lengths: list[int]) -> list[list[int]]:
    """Groups documents so that padding wastes at most about a third of a stack."""
    groups: list[list[int]] = []
    for document in sorted(range(len(lengths)), key=lambda d: -lengths[d]):
        if groups and lengths[document] * 1.5 + 8 >= lengths[groups[-1][0]]:
            groups[-1].append(document)
        else:
            groups.append([document])
    return groups
