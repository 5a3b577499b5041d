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
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vedere.errors import ConfigError
from vedere.models.experts import Experts, SpanRouter
from vedere.models.full_scores import attention, writes_scores
from vedere.models.layers import RMSNorm
from vedere.models.pack_layout import PackLayout
from vedere.models.stacked_attention import Stacks, explicit_attention, rotated_attention

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


@runtime_checkable
class ConstantKeyValues(Protocol):
    """A cache to which nothing is added; `vedere.train.prefix.PrefixCache` is one."""

    def constants(self, layer: int) -> tuple[Tensor, Tensor]:
        """Rotated keys and values in front of every document, ``[1, K, P, d]`` each."""
        ...


def _causal_bias(queries: int, keys: int, device: torch.device) -> Tensor:
    """0 where a query may look, -inf elsewhere, ``[queries, keys]``; the last query sees every key."""
    ones = torch.ones(queries, keys, dtype=torch.bool, device=device)
    return torch.zeros(queries, keys, device=device).masked_fill_(ones.tril(keys - queries).logical_not_(), -math.inf)


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
        self.stacks: Stacks | None = None  # for `attend_learning`, once a pass
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

    def attend_learning(
        self, layer: int, qkv_TJd: Tensor, table: tuple[Tensor, Tensor], heads: int, kv_heads: int
    ) -> Tensor | None:
        """Rotation and attention in one function, ``[T, H d]``, where it applies: explicit stacks with a gradient.

        Args:
            layer: Decoder layer.
            qkv_TJd: Queries, keys and values before rotation, in routed order.
            table: Cosine and sine of the rows.
            heads: H.
            kv_heads: K.
        """
        learning = torch.is_grad_enabled() and qkv_TJd.requires_grad and table[0].dtype == qkv_TJd.dtype
        if not learning or not all(self.explicit):
            return None
        if self.cache is not None and not isinstance(self.cache, ConstantKeyValues):
            return None
        if self.stacks is None:
            layout, (cos, sin) = self.layout, table
            self.stacks = Stacks(
                shapes=[(stack.documents, stack.length) for stack in layout.stacks],
                biases=[bias.to(qkv_TJd.dtype) for bias in self.biases],
                cos=cos if layout.plain else cos[layout.index],
                sin=sin if layout.plain else sin[layout.index],
                index=None if layout.plain else layout.index,
                place=layout.place,
                padding=layout.padding,
            )
        prefix = self.cache.constants(layer) if isinstance(self.cache, ConstantKeyValues) else None
        return rotated_attention(qkv_TJd, heads, kv_heads, self.stacks, prefix)

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
        learnt = step.attend_learning(layer, qkv, table, self.heads, self.kv_heads)
        if learnt is not None:
            return learnt
        turned = rotate(qkv[:, : self.heads + self.kv_heads], *table)
        q, k = turned.split([self.heads, self.kv_heads], dim=1)
        out = step.attend(layer, q, k, qkv[:, self.heads + self.kv_heads :])
        return out.reshape(len(x_TD), -1)

    def project(self, attended: Tensor, router: SpanRouter) -> Tensor:
        """The output map of each row's expert, ``[M, H d]`` to ``[M, D]``."""
        return self.route(attended, router, "out")
