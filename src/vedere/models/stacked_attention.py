"""Attention of stacked documents with written-out scores: the readable form, and the one that training takes.

Around two batched matmuls and a softmax, autograd's own form of a layer's attention moves its rows about twenty times: joined
for the gather and split again, keys and values joined with those of a shared prefix, gradients of slices as zeros that are
added up. `rotated_attention` is gather, rotation, attention and scatter in one function with its gradient written out. Each
row is then moved three times forward and four times backward, and the rotation writes straight into the order that the
matmuls read; on a CPU that takes four fifths of the time. Both forms compute the same; a test holds them together.

Axes: T tokens, S documents of a stack, L padded length, H query heads, K key-value heads, G = H / K, J = H + 2 K, d head width,
P tokens of a constant prefix, R places of all stacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vedere.models.positions import turn


def explicit_attention(q_SLHd: Tensor, k_SKMd: Tensor, v_SKMd: Tensor, bias: Tensor) -> Tensor:
    """Softmax attention with two batched matmuls; heads of a group share keys without copying them.

    Args:
        q_SLHd: Queries.
        k_SKMd: Keys.
        v_SKMd: Values.
        bias: Added to the scores, ``[L, M]`` or ``[S, L, M]``.

    Returns:
        ``[S, L, H, d]``.
    """
    documents, length, heads, width = q_SLHd.shape
    kv_heads = k_SKMd.shape[1]
    group = heads // kv_heads
    q = q_SLHd.view(documents, length, kv_heads, group, width).permute(0, 2, 3, 1, 4)
    q = q.reshape(documents * kv_heads, group * length, width)
    k, v = k_SKMd.reshape(documents * kv_heads, -1, width), v_SKMd.reshape(documents * kv_heads, -1, width)
    # 1/sqrt(d) is a power of two for the usual widths, so that nothing is rounded by scaling the queries instead of the scores
    scores = torch.bmm(q * width**-0.5, k.transpose(1, 2)).view(documents, kv_heads, group, length, -1)
    scores = scores + (bias if bias.dim() == 2 else bias[:, None, None]).to(scores.dtype)
    weights = scores.softmax(-1).view(documents * kv_heads, group * length, -1)  # float32 inside, whatever it is given
    out = torch.bmm(weights, v).view(documents, kv_heads, group, length, width)
    return out.permute(0, 3, 1, 2, 4).reshape(documents, length, heads, width)


@dataclass(frozen=True)
class Stacks:
    """Where the rows of a pass stand when documents are stacked, and what is added to their scores.

    Attributes:
        shapes: (documents S, length L) of each stack.
        biases: Added to the scores of each stack, ``[L, P + L]`` or ``[S, L, P + L]``, in the dtype of the activations.
        cos: Cosine of every place, ``[R, d]``.
        sin: Sine.
        index: Row of each place, ``[R]``; padding repeats a row. None: rows stand in their places.
        place: Place of each row, ``[T]``.
        padding: Places that repeat a row.
        scaled: Both tables times 1/sqrt(d), for queries.
    """

    shapes: Sequence[tuple[int, int]]
    biases: Sequence[Tensor]
    cos: Tensor
    sin: Tensor
    index: Tensor | None
    place: Tensor
    padding: Tensor
    scaled: tuple[Tensor, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        """Makes the tables of the queries; 1/sqrt(d) is a power of two for the usual widths, so that nothing is rounded."""
        scale = self.cos.shape[-1] ** -0.5
        object.__setattr__(self, "scaled", (self.cos * scale, self.sin * scale))

    def gather(self, x: Tensor) -> Tensor:
        """Rows ``[T, ...]`` to places ``[R, ...]``."""
        return x if self.index is None else x.index_select(0, self.index)

    def scatter(self, x: Tensor) -> Tensor:
        """Places ``[R, ...]`` to rows ``[T, ...]``."""
        return x if self.index is None else x.index_select(0, self.place)

    def parts(self, *places: Tensor) -> list[list[Tensor]]:
        """Each ``[R, ...]`` as ``[S, L, ...]``, by stack."""
        sizes = [documents * length for documents, length in self.shapes]
        split = zip(*(x.split(sizes) for x in places), strict=True)
        return [[x.unflatten(0, shape) for x in xs] for xs, shape in zip(split, self.shapes, strict=True)]


class _RotatedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        qkv_TJd: Tensor,
        heads: int,
        kv_heads: int,
        stacks: Stacks,
        prefix_keys: Tensor | None,
        prefix_values: Tensor | None,
    ) -> Tensor:
        width = qkv_TJd.shape[-1]
        rows = stacks.gather(qkv_TJd)
        out = rows.new_empty(len(rows), heads * width)
        before = 0 if prefix_keys is None else prefix_keys.shape[2]
        saved = []
        tables = stacks.cos, stacks.sin, *stacks.scaled
        for (part, mixed, cos, sin, q_cos, q_sin), bias in zip(
            stacks.parts(rows, out, *tables), stacks.biases, strict=True
        ):
            size = len(part), kv_heads, heads // kv_heads, part.shape[1], width  # S, K, G, L, d
            q_SKGLd, k_SKLd, v_SKLd = _by_head(part, heads, kv_heads)
            q = part.new_empty(size)
            turn(q_SKGLd, q_cos[:, None, None], q_sin[:, None, None], 1, out=q)
            k, v = (part.new_empty(len(part), kv_heads, before + part.shape[1], width) for _ in range(2))
            if prefix_keys is not None and prefix_values is not None:
                k[:, :, :before], v[:, :, :before] = prefix_keys, prefix_values
            turn(k_SKLd, cos[:, None], sin[:, None], 1, out=k[:, :, before:])
            v[:, :, before:] = v_SKLd
            q, k, v = q.view(-1, size[2] * size[3], width), k.flatten(0, 1), v.flatten(0, 1)
            weights = torch.bmm(q, k.transpose(1, 2))
            scores = weights.view(*size[:4], -1)
            scores += bias if bias.dim() == 2 else bias[:, None, None]
            torch.softmax(weights, -1, out=weights)  # float32 inside, whatever it is given
            mixed.view(size[0], size[3], size[1], size[2], width).copy_(
                torch.bmm(weights, v).view(size).permute(0, 3, 1, 2, 4)
            )
            saved += [q, k, v, weights]
        ctx.save_for_backward(*saved)
        ctx.stacks, ctx.heads, ctx.kv_heads, ctx.before = stacks, heads, kv_heads, before
        return stacks.scatter(out)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        stacks: Stacks = ctx.stacks
        heads, kv_heads, before, saved = ctx.heads, ctx.kv_heads, ctx.before, ctx.saved_tensors
        of_out = stacks.gather(grads[0].contiguous())
        if len(stacks.padding):  # a gathered copy, whose repeated rows would count twice
            of_out.index_fill_(0, stacks.padding, 0)
        width = saved[0].shape[-1]
        of_rows = of_out.new_empty(len(of_out), heads + 2 * kv_heads, width)
        tables = stacks.cos, stacks.sin, *stacks.scaled
        for number, (into, of_mixed, cos, sin, q_cos, q_sin) in enumerate(stacks.parts(of_rows, of_out, *tables)):
            q, k, v, weights = saved[4 * number : 4 * number + 4]
            documents, length = stacks.shapes[number]
            grouped = of_mixed.view(documents, length, kv_heads, -1, width).permute(0, 2, 3, 1, 4)
            grad = grouped.reshape(q.shape)
            of_weights = torch.bmm(grad, v.transpose(1, 2))
            of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            into_q, into_k, into_v = _by_head(into, heads, kv_heads)
            of_q = torch.bmm(of_scores, k).view(grouped.shape)
            turn(of_q, q_cos[:, None, None], q_sin[:, None, None], -1, out=into_q)
            new = slice(before, None)
            of_k = torch.bmm(of_scores.transpose(1, 2), q).unflatten(0, (documents, kv_heads))[:, :, new]
            turn(of_k, cos[:, None], sin[:, None], -1, out=into_k)
            into_v.copy_(torch.bmm(weights.transpose(1, 2), grad).unflatten(0, (documents, kv_heads))[:, :, new])
        return stacks.scatter(of_rows), None, None, None, None, None


def rotated_attention(
    qkv_TJd: Tensor, heads: int, kv_heads: int, stacks: Stacks, prefix: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Rotation and softmax attention of stacked documents, with their gradient.

    Args:
        qkv_TJd: Queries, keys and values, none of them rotated yet.
        heads: H.
        kv_heads: K.
        stacks: Where the rows stand.
        prefix: Rotated keys and values in front of every document, ``[1, K, P, d]`` each; they get no gradient.

    Returns:
        ``[T, H d]``.
    """
    keys, values = (None, None) if prefix is None else prefix
    out: Tensor = _RotatedAttention.apply(qkv_TJd, heads, kv_heads, stacks, keys, values)  # type: ignore[no-untyped-call]
    return out


def _by_head(part_SLJd: Tensor, heads: int, kv_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Views of queries ``[S, K, G, L, d]``, keys and values ``[S, K, L, d]``."""
    q, k, v = part_SLJd.split([heads, kv_heads, kv_heads], dim=2)
    return q.unflatten(2, (kv_heads, -1)).permute(0, 2, 3, 1, 4), k.transpose(1, 2), v.transpose(1, 2)
