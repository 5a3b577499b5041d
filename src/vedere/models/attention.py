"""Causal grouped-query attention over packed documents, isolated on every backend.

A pass works on packed tokens `[T, ...]` with document borders. Backends differ in how they lay documents out:

* ``explicit``: documents of similar length are stacked `[S, L]` (padded at the end, which a causal mask hides) and attended
  with two batched matmuls. The fastest choice for short documents on a CPU, whose fused kernel has a slow backward.
* ``sdpa``: the same stacks through `scaled_dot_product_attention`; memory linear in L, so the choice for long documents.
* ``flex``: one FlexAttention call over the packed tokens; its table of blocks is counted from the borders, so no mask
  ``[T, T]`` exists. Compiled on CUDA; on a CPU uncompiled and without gradients, to be compared with the others.
* ``auto``: ``flex`` for packs on CUDA (``sdpa`` if heads are narrower than its 16), ``explicit`` on CPU for stacks of
  documents up to 512 tokens, ``sdpa`` otherwise and when answering from a cache (no backward there, and one fused call
  where explicit attention makes ten: a sixth of the time).

All of them read the router's order, so the routed rows are gathered once; documents of one length without routing (every
decode step) are stacked by a view. With a cache, queries attend the cached keys of their own slot. Scores are scaled by
1/sqrt(d); softmax runs in float32 (Mono-InternVL, spec of the original decoder).

Axes: T tokens, S documents of a stack, L padded length, H heads, K key-value heads, d head width.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vedere.errors import ConfigError
from vedere.models.experts import Experts, SpanRouter, select_rows
from vedere.models.full_scores import attention, writes_scores
from vedere.models.layers import RMSNorm

Backend = Literal["auto", "explicit", "sdpa", "flex"]
EXPLICIT_LIMIT = 512  # tokens; up to here the fused kernel's backward on a CPU costs more than writing out the scores
FLEX_NARROWEST = 16  # head width; the least that its GPU kernel takes
_FLEX_BLOCK = 128  # tokens of a side of FlexAttention's blocks


class KeyValueCache(Protocol):
    """What attention needs of a cache; `vedere.infer.cache.Cache` is one."""

    def past(self) -> Sequence[int]:
        """Tokens already cached for each document of this pass."""
        ...

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores this pass's keys and values.

        Args:
            layer: Decoder layer.
            keys: Rotated keys of this pass, ``[S, K, N, d]``, padded at the end.
            values: ``[S, K, N, d]``.

        Returns:
            All keys and values so far, ``[S, K, M, d]``, right-padded.
        """
        ...


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
            self.index = self.place = torch.empty(0, dtype=torch.int64)
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


def _causal_bias(queries: int, keys: int, device: torch.device) -> Tensor:
    """0 where a query may look, -inf elsewhere, ``[queries, keys]``; the last query sees every key."""
    ones = torch.ones(queries, keys, dtype=torch.bool, device=device)
    return torch.zeros(queries, keys, device=device).masked_fill_(ones.tril(keys - queries).logical_not_(), -math.inf)


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


class AttentionPass:
    """How queries meet keys in one forward pass: layout, backend, cache.

    Args:
        borders: Cumulative document borders, host integers.
        router: The pass's router.
        device: Where tensors live.
        head_dim: Head width d.
        backend: See the module docstring.
        cache: Key-value cache, or None.

    Raises:
        ConfigError: the backend cannot do this pass.
    """

    def __init__(
        self,
        borders: Sequence[int],
        router: SpanRouter,
        device: torch.device,
        head_dim: int,
        backend: Backend = "auto",
        cache: KeyValueCache | None = None,
    ) -> None:
        self.layout = PackLayout(borders, router, device, cached=cache is not None)
        self.cache = cache
        short: list[bool] = []
        if backend == "auto":
            if device.type == "cuda" and cache is None:
                backend = "flex" if head_dim >= FLEX_NARROWEST else "sdpa"
            else:
                learning = cache is None or torch.is_grad_enabled()
                short = [learning and stack.length <= EXPLICIT_LIMIT for stack in self.layout.stacks]
                backend = "explicit" if all(short) else "sdpa"
        if backend == "flex":
            _check_flex(device, head_dim, cache)
        self.backend = backend  # of the longest stack, where stacks differ
        self.explicit = short or [backend == "explicit"] * len(self.layout.stacks)
        self.router = router
        self.biases: list[Tensor] = []
        self.causal = False
        self.whole = False
        if cache is not None:
            self._prepare_cached(cache.past(), device)
        elif backend != "flex":
            self.biases = [
                _causal_bias(stack.length, stack.length, device) if explicit else torch.empty(0)
                for stack, explicit in zip(self.layout.stacks, self.explicit, strict=True)
            ]
        else:
            self.block_mask = document_blocks(self.layout.borders, device)

    def _prepare_cached(self, past: Sequence[int], device: torch.device) -> None:
        """Bias ``[S, N, M]``: query i of a document that has p cached tokens sees the keys 0 .. p + i.

        The fused kernel needs none for a single token of a single document, and only its causal flag before anything is
        cached (padding stands at the end, where no real query looks).
        """
        stack = self.layout.stacks[0]
        self.whole = stack.documents == 1  # so that the last query sees every key
        sizes = [b - a for a, b in itertools.pairwise(self.layout.borders)]
        if len(past) != stack.documents:
            raise ValueError(f"a cache of {len(past)} slots for {stack.documents} documents")
        if self.backend == "sdpa":
            self.causal = not any(past)
            if self.causal or (stack.documents == 1 and stack.length == 1):
                return
        total = max(p + size for p, size in zip(past, sizes, strict=True))
        steps = torch.arange(stack.length, device=device)
        last = torch.tensor(list(past), device=device)[:, None] + steps[None]
        seen = torch.arange(total, device=device)[None, None] <= last[:, :, None]
        self.biases = [torch.zeros(seen.shape, device=device).masked_fill_(~seen, -math.inf)]

    def attend(self, layer: int, q_THd: Tensor, k_TKd: Tensor, v_TKd: Tensor) -> Tensor:
        """Attention of rows in routed order.

        Returns:
            ``[T, H, d]`` in routed order.
        """
        if self.backend == "flex":
            return self._flex(q_THd, k_TKd, v_TKd)
        heads, kv_heads = q_THd.shape[1], k_TKd.shape[1]
        if self.layout.plain:
            stacked = [tuple(self.layout.stack(x)[0] for x in (q_THd, k_TKd, v_TKd))]
        else:
            together = self.layout.stack(torch.cat([q_THd, k_TKd, v_TKd], dim=1))
            stacked = [qkv.split([heads, kv_heads, kv_heads], dim=2) for qkv in together]
        parts = []
        for number, (q, k, v) in enumerate(stacked):
            k, v = k.transpose(1, 2), v.transpose(1, 2)
            if self.cache is not None:
                k, v = self.cache.extend(layer, k, v)
                parts.append(self._cached(q, k, v))
            elif self.explicit[number]:
                parts.append(explicit_attention(q, k, v, self.biases[number]))
            else:
                out = F.scaled_dot_product_attention(q.transpose(1, 2), k, v, is_causal=True, enable_gqa=True)
                parts.append(out.transpose(1, 2))
        return self.layout.unstack(parts)

    def _cached(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of new queries ``[S, L, H, d]`` over cached keys ``[S, K, M, d]``; returns ``[S, L, H, d]``."""
        if self.backend == "explicit":
            return explicit_attention(q, k, v, self.biases[0])
        mask = None
        if self.biases:
            self.biases[0] = self.biases[0].to(q.dtype)  # once a pass
            mask = self.biases[0][:, None]
        if self.whole and writes_scores(q.transpose(1, 2)):
            return attention(q.transpose(1, 2), k, v, causal=True)
        if q.shape[1] == 1:  # the heads of a group are the queries of their shared keys: nothing is expanded
            grouped = q.reshape(q.shape[0], k.shape[1], -1, q.shape[-1])
            return F.scaled_dot_product_attention(grouped, k, v, attn_mask=mask).reshape(q.shape)
        out = F.scaled_dot_product_attention(
            q.transpose(1, 2), k, v, attn_mask=mask, is_causal=self.causal, enable_gqa=True
        )
        return out.transpose(1, 2)

    def _flex(self, q_THd: Tensor, k_TKd: Tensor, v_TKd: Tensor) -> Tensor:
        flex = _flex_attention(q_THd.device)
        q, k, v = (self.router.unsort(x).transpose(0, 1)[None] for x in (q_THd, k_TKd, v_TKd))
        out = flex(q, k, v, block_mask=self.block_mask, enable_gqa=True)
        return self.router.sort(out[0].transpose(0, 1).contiguous())


def _check_flex(device: torch.device, head_dim: int, cache: KeyValueCache | None) -> None:
    if cache is not None:
        raise ConfigError("backend 'flex' reads no cache; choose 'explicit', 'sdpa' or 'auto' to answer")
    if device.type == "cuda" and head_dim < FLEX_NARROWEST:
        raise ConfigError(
            f"backend 'flex' takes heads of at least {FLEX_NARROWEST} on CUDA, the model's are {head_dim}; choose 'auto' or "
            "'sdpa'"
        )
    if device.type != "cuda" and torch.is_grad_enabled():
        raise ConfigError(
            f"backend 'flex' has no gradients on {device.type}; choose 'auto' to train, or call it in torch.no_grad()"
        )


def document_blocks(borders: Sequence[int], device: torch.device) -> Any:
    """FlexAttention's mask of a pack: a query sees the earlier keys of its own document.

    A row of blocks needs the blocks from the beginning of its first document to itself; those that lie inside one document and
    before the row need no mask. ``create_block_mask`` finds the same by evaluating the mask at every pair of tokens.

    Args:
        borders: Cumulative document borders, ``[S + 1]`` host integers.
        device: Where tensors live.

    Returns:
        A `BlockMask` of ``[1, 1, T, T]``.
    """
    from torch.nn.attention.flex_attention import BlockMask

    tokens = borders[-1]
    rows = -(-tokens // _FLEX_BLOCK)
    first = torch.arange(rows) * _FLEX_BLOCK  # token of each row of blocks
    cuts = torch.tensor(list(borders))
    document = torch.searchsorted(cuts, first, right=True) - 1
    start, end = cuts[document], cuts[document + 1]
    lowest = start // _FLEX_BLOCK
    full_from = (start + _FLEX_BLOCK - 1) // _FLEX_BLOCK
    inside = end >= first + _FLEX_BLOCK  # all queries of the row are of the first document
    full = torch.where(inside, (torch.arange(rows) - full_from).clamp_min(0), 0)
    columns = torch.arange(rows)
    is_full = (columns >= full_from[:, None]) & (columns < (full_from + full)[:, None])
    is_masked = (columns >= lowest[:, None]) & (columns <= torch.arange(rows)[:, None]) & ~is_full

    def listed(chosen: Tensor) -> tuple[Tensor, Tensor]:  # counts, and columns: the chosen ones first, ascending
        order = torch.argsort(chosen.to(torch.int8), dim=1, descending=True, stable=True)
        return (
            chosen.sum(1, dtype=torch.int32)[None, None].to(device),
            order.to(torch.int32)[None, None].to(device),
        )

    (masked, masked_columns), (whole, whole_columns) = listed(is_masked), listed(is_full)
    of_token = torch.repeat_interleave(torch.arange(len(cuts) - 1), cuts.diff()).to(device)

    def same_and_causal(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (of_token[q] == of_token[k]) & (q >= k)

    return BlockMask.from_kv_blocks(
        masked,
        masked_columns,
        whole,
        whole_columns,
        BLOCK_SIZE=_FLEX_BLOCK,
        mask_mod=same_and_causal,
        seq_lengths=(tokens, tokens),
    )


_FLEX: list[Any] = []


def _flex_attention(device: torch.device) -> Any:
    """FlexAttention; on CUDA compiled once a process, because uncompiled it materialises the scores."""
    from torch.nn.attention.flex_attention import flex_attention

    if device.type != "cuda":
        return flex_attention
    if not _FLEX:
        _FLEX.append(torch.compile(flex_attention, dynamic=True))
    return _FLEX[0]


class AttentionExpert(nn.Module):
    """The projections of one span type: fused query/key/value and output.

    Args:
        width: D.
        heads: Query heads H.
        kv_heads: Key-value heads K.
        head_dim: d.
        qkv_bias: Biases of the fused projection (Qwen2.5).
        out_bias: Bias of the output projection.
        norm_eps: Epsilon of the norms of every query and key head (Qwen3); None where there are none.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        qkv_bias: bool,
        out_bias: bool,
        norm_eps: float | None = None,
    ) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, head_dim
        self.qkv = nn.Linear(width, (heads + 2 * kv_heads) * head_dim, bias=qkv_bias)
        self.out = nn.Linear(heads * head_dim, width, bias=out_bias)
        self.qk_norm = norm_eps is not None
        if norm_eps is not None:
            self.q_norm, self.k_norm = RMSNorm(head_dim, norm_eps), RMSNorm(head_dim, norm_eps)

    def normed(self, qkv: Tensor) -> Tensor:
        """Queries, keys and values ``[T, H + 2 K, d]`` with the norms of query and key heads, if there are any."""
        if not self.qk_norm:
            return qkv
        q, k, v = qkv.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        return torch.cat([self.q_norm(q), self.k_norm(k), v], dim=1)


class Attention(Experts):
    """Self-attention with one set of projections a span type and one joint causal softmax.

    The visual projections are Mono-InternVL-1.5's visual attention experts (arXiv 2507.12566, abstract; names are ours).

    Args:
        text: The language model's projections.
        visual: Visual projections, or None to share the text ones.
        heads: Query heads H.
        kv_heads: Key-value heads K.
        head_dim: d.
    """

    text: AttentionExpert
    visual: AttentionExpert

    def __init__(
        self, text: AttentionExpert, visual: AttentionExpert | None, heads: int, kv_heads: int, head_dim: int
    ) -> None:
        super().__init__(text, visual)
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, head_dim

    def attend(
        self, x_TD: Tensor, router: SpanRouter, table: tuple[Tensor, Tensor], step: AttentionPass, layer: int
    ) -> Tensor:
        """What rows in routed order attend, ``[T, H d]``, before the output map (`project`)."""
        from vedere.models.positions import rotate

        qkv = self.route(x_TD, router, "qkv").view(-1, self.heads + 2 * self.kv_heads, self.head_dim)
        if self.text.qk_norm:
            first, second = qkv.split([router.text, router.visual])
            visual: AttentionExpert = self.visual if hasattr(self, "visual") else self.text
            qkv = torch.cat([self.text.normed(first), visual.normed(second)])
        turned = rotate(qkv[:, : self.heads + self.kv_heads], *table)
        q, k = turned.split([self.heads, self.kv_heads], dim=1)
        out = step.attend(layer, q, k, qkv[:, self.heads + self.kv_heads :])
        return out.reshape(len(x_TD), -1)

    def project(self, attended: Tensor, router: SpanRouter) -> Tensor:
        """The output map of each row's expert, ``[M, H d]`` to ``[M, D]``."""
        return self.route(attended, router, "out")
