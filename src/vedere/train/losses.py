"""Cross-entropy over target tokens only, with token, square or sample averaging.

InternVL 2.5 (arXiv 2412.05271, sec. 3.3; used by InternVL3, 2504.10479) weighs every target token of a sample with l target
tokens by 1, 1/sqrt(l) or 1/l and divides by the sum of the weights. The head is applied to the rows that have a target,
in chunks, and the gradient is made in the same pass: neither the logits of a whole pack nor those of a prompt ever exist.

Differences to the original: a target never belongs to the last position of the document before it (the original's shift
crosses borders; ``reference=True`` reproduces that), and a document without any target is refused earlier, by the packer.

Cost: one head matmul forward and one backward on the target rows; memory ``chunk x V`` in the dtype of the activations. The
gradient takes the place of the logits, by runs of rows whose float32 form a CPU's cache holds.

Axes: T tokens, M target rows, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from vedere.errors import ConfigError

IGNORED = -100
Averaging = Literal["token", "square", "sample"]
_CACHED = 1 << 19  # float32 logits of a run, 2 MB
_EXPONENT = {"token": 0.0, "square": -0.5, "sample": -1.0}


def next_token_targets(
    labels_T: Tensor, borders: Sequence[int] | Tensor, reference: bool = False
) -> tuple[Tensor, Tensor]:
    """Rows that predict something, and what.

    Args:
        labels_T: Unshifted labels, -100 where ignored.
        borders: Cumulative document borders ``[S + 1]``.
        reference: Let the last row of a document predict the first token of the next, as the original does.

    Returns:
        (rows ``[M]``, their targets ``[M]``); row t predicts ``labels_T[t + 1]``.
    """
    shifted = torch.full_like(labels_T, IGNORED)
    shifted[:-1] = labels_T[1:]
    if not reference:
        ends = torch.as_tensor(borders, device=labels_T.device)[1:].long() - 1
        shifted[ends] = IGNORED
    rows = (shifted != IGNORED).nonzero().squeeze(1)
    return rows, shifted[rows]


def loss_weights(
    labels_T: Tensor,
    borders: Sequence[int] | Tensor,
    averaging: Averaging,
    document_weights: Sequence[float] | Tensor | None = None,
) -> Tensor:
    """Weight of every label in float32 (bf16 would lose 1/sqrt(l)).

    Args:
        labels_T: Unshifted labels, -100 where ignored.
        borders: Cumulative document borders ``[S + 1]``.
        averaging: ``token`` 1, ``square`` 1/sqrt(l), ``sample`` 1/l; l counts the labels of a document.
        document_weights: A further factor for each document, ``[S]``.

    Returns:
        ``[T]``, aligned with ``labels_T``; 0 where ignored, also in documents without a label.

    Raises:
        ConfigError: an unknown averaging.
    """
    if averaging not in _EXPONENT:
        raise ConfigError(f"unknown averaging '{averaging}'; expected one of {', '.join(_EXPONENT)}")
    edges = torch.as_tensor(borders, device=labels_T.device).long()
    document = torch.repeat_interleave(torch.arange(len(edges) - 1, device=labels_T.device), edges.diff())
    trained = labels_T != IGNORED
    counts = torch.zeros(len(edges) - 1, device=labels_T.device).index_add_(0, document, trained.float())
    weights = counts.clamp(min=1) ** _EXPONENT[averaging]
    if document_weights is not None:
        weights = weights * torch.as_tensor(document_weights, dtype=torch.float32, device=labels_T.device)
    return weights[document] * trained


def _runs(logits: Tensor, targets: Tensor, weights: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Rows in runs whose float32 logits fit into a CPU's cache; elsewhere one run."""
    size = max(1, _CACHED // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    return zip(logits.split(size), targets.split(size), weights.split(size), strict=True)


def _loss_and_gradient(logits_MV: Tensor, targets_M: Tensor, weights_M: Tensor) -> Tensor:
    """Weighted sum of cross-entropies; the logits become their gradient, which is made in float32 and rounded once."""
    at, weights = targets_M[:, None], weights_M[:, None]
    wide = logits_MV.to(torch.float32, copy=True)
    wide -= wide.amax(1, keepdim=True)
    picked = wide.gather(1, at)
    total = wide.exp_().sum(1, keepdim=True)
    wide *= weights / total
    wide.scatter_add_(1, at, -weights)
    logits_MV.copy_(wide)
    return ((total.log() - picked) * weights).sum()


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Weighted sum of cross-entropies with gradients made chunk by chunk in the forward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor, chunk: int) -> Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if hidden.requires_grad else None
        grad_head = torch.zeros_like(head, dtype=torch.float32) if head.requires_grad else None
        for start in range(0, len(hidden), chunk):
            rows = slice(start, start + chunk)
            logits = F.linear(hidden[rows], head)
            losses = [_loss_and_gradient(*parts) for parts in _runs(logits, targets[rows], weights[rows])]
            total += torch.stack(losses).sum()
            if grad_hidden is not None:
                grad_hidden[rows] = logits @ head
            if grad_head is not None:
                grad_head += logits.t() @ hidden[rows]
        ctx.save_for_backward(*(g for g in (grad_hidden, grad_head) if g is not None))
        ctx.has = (grad_hidden is not None, grad_head is not None)
        ctx.head_dtype = head.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        saved = list(ctx.saved_tensors)
        hidden = saved.pop(0) * grads[0] if ctx.has[0] else None
        head = (saved.pop(0) * grads[0]).to(ctx.head_dtype) if ctx.has[1] else None
        return hidden, head, None, None, None


def chunked_cross_entropy(
    hidden_MD: Tensor, head_VD: Tensor, targets_M: Tensor, weights_M: Tensor, chunk: int = 1024
) -> Tensor:
    """``sum_m w_m CE(head h_m, target_m)`` in float32, differentiable in ``hidden_MD`` and ``head_VD``.

    Args:
        hidden_MD: Hidden states of rows that have a target.
        head_VD: Output matrix.
        targets_M: Token ids.
        weights_M: float32 weights.
        chunk: Rows whose logits exist at the same time.
    """
    total: Tensor = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden_MD, head_VD, targets_M, weights_M, chunk
    )
    return total
