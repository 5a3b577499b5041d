"""Attention of many queries on a CPU, with the scores of a group of heads written out.

torch's fused kernel avoids the scores in memory, which is what a GPU needs; on a CPU without matrix units it splits the work
into small products and reaches a fifth of the speed of a matmul. Written out, a tile of InternViT (1,025 tokens, 16 heads)
takes a third of its time: two batched matmuls and a softmax in place. The scores are rounded to the dtype of the activations,
as the released InternViT code does without its GPU kernel; softmax itself sums in float32. For bfloat16 without gradients;
everything else stays with the fused kernel.

Memory: scores of some heads of one document or tile at a time, at most `MOST` values; long ones are cut into runs of queries.
Small steps also save time: the scores of all heads of a tile, 34 MB, go out to memory and back (a tenth of attention's time).

Axes: S documents or tiles, H heads, L queries, M keys, d head width.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor
from torch.nn import functional as F

FEWEST = 64  # queries; below, the fused kernel is as fast
MOST = 1 << 22  # scores of one step, 8 MB: they stay in a CPU's cache between the two matmuls


def writes_scores(q: Tensor) -> bool:
    """Whether these queries ``[..., L, d]`` are worth it: bfloat16 on a CPU, without gradients, not just a few."""
    cpu = q.device.type == "cpu" and q.dtype == torch.bfloat16
    return cpu and q.shape[-2] >= FEWEST and not (torch.is_grad_enabled() and q.requires_grad)


def attention(q_SHLd: Tensor, k_SKMd: Tensor, v_SKMd: Tensor, *, causal: bool = False) -> Tensor:
    """Softmax attention scaled by 1/sqrt(d); query heads share key heads in groups.

    Args:
        q_SHLd: Queries.
        k_SKMd: Keys of K heads; K divides H.
        v_SKMd: Values.
        causal: The last query sees every key, each earlier one a key less.

    Returns:
        ``[S, L, H, d]``, contiguous.
    """
    if not writes_scores(q_SHLd):
        length, keys = q_SHLd.shape[2], k_SKMd.shape[2]
        mask = None
        if causal and length != keys:
            mask = torch.ones(length, keys, dtype=torch.bool, device=q_SHLd.device).tril(keys - length)
        out = F.scaled_dot_product_attention(
            q_SHLd, k_SKMd, v_SKMd, attn_mask=mask, is_causal=causal and mask is None, enable_gqa=True
        )
        return out.transpose(1, 2).contiguous()
    documents, heads, length, width = q_SHLd.shape
    kv_heads, keys = k_SKMd.shape[1:3]
    group = heads // kv_heads
    together, run = step_size(kv_heads, group, length, keys)
    out = q_SHLd.new_empty(documents, length, heads, width)
    scores = q_SHLd.new_empty(together * group * run * keys)
    for document, first in itertools.product(range(documents), range(0, kv_heads, together)):
        last = min(first + together, kv_heads)
        k_Kdm, v_KMd = _rows_in_a_row(k_SKMd[document, first:last]).transpose(1, 2), v_SKMd[document, first:last]
        v_KMd = _rows_in_a_row(v_KMd)
        of = slice(first * group, last * group)
        for start in range(0, length, run):
            end = min(length, start + run)
            seen = keys - length + end if causal else keys  # of the run's last query
            rows = group * (end - start)
            q = (q_SHLd[document, of, start:end] * width**-0.5).reshape(-1, rows, width)
            part = scores[: len(q) * rows * seen].view(-1, rows, seen)
            torch.bmm(q, k_Kdm[:, :, :seen], out=part)
            if causal:
                _hide_later(part.view(-1, end - start, seen))
            torch.softmax(part, -1, out=part)
            mixed = torch.bmm(part, v_KMd[:, :seen]).view(-1, end - start, width)
            out[document, start:end, of] = mixed.transpose(0, 1)
    return out


def step_size(kv_heads: int, group: int, length: int, keys: int) -> tuple[int, int]:
    """(key heads, queries) of one step: as many whole heads as `MOST` scores allow, or else a run of one head's queries."""
    together = MOST // (group * length * keys)
    if together:
        return min(kv_heads, together), length
    return 1, min(length, max(FEWEST, MOST // (group * keys)))


def _rows_in_a_row(x_KMd: Tensor) -> Tensor:
    """Heads whose rows stand together, which a matmul reads faster than rows with other heads between them."""
    return x_KMd if x_KMd.stride(1) == x_KMd.shape[2] else x_KMd.contiguous()


def _hide_later(scores_HLM: Tensor) -> None:
    """Minus infinity where a query's key stands after it; the last query sees all."""
    length = scores_HLM.shape[1]
    later = torch.ones(length, length, dtype=torch.bool, device=scores_HLM.device).triu_(1)
    bias = torch.zeros(length, length, dtype=scores_HLM.dtype, device=scores_HLM.device).masked_fill_(later, -math.inf)
    scores_HLM[:, :, -length:] += bias
