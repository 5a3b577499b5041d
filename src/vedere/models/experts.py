"""Static routing by span type: visual FFN experts, visual attention experts, partial LoRA.

Mono-InternVL (arXiv 2410.08202, eq. 3-4) gives every layer a second, same-shaped expert for image patches. The route is
known from the token's type, so there is no gate and no balancing loss. The original evaluates both experts on every token
and blends with a 0/1 mask, and drops the mask as soon as a key-value cache exists (wrong for chunked prefill). Here the
packed rows are sorted by type once at the entrance of the decoder, so that each expert reads one contiguous slice in
every layer; nothing is computed twice, and an absent type touches no parameter of its expert.

Cost: two row permutations a forward pass, one concatenation a routed map.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vedere.plan import SpanKind


class _Rows(torch.autograd.Function):
    """Row selection whose backward is a selection too.

    ``index`` may repeat rows only where the gradient of the repetition is zero by construction (padding), therefore the
    scatter-add of `index_select`'s own backward, slow on CPUs and unordered on GPUs, is not needed.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (inverse,) = ctx.saved_tensors
        return grads[0].index_select(0, inverse), None, None


def select_rows(x: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
    """``x[index]`` along axis 0, with ``grad[inverse]`` as its gradient.

    Args:
        x: ``[T, ...]``.
        index: Rows to take, ``[M]``; row ``inverse[t]`` of the result is row ``t`` of ``x``.
        inverse: Where each row went, ``[T]``.
    """
    rows: Tensor = _Rows.apply(x, index, inverse)  # type: ignore[no-untyped-call]
    return rows


class SpanRouter:
    """Sorts packed tokens into a text run followed by a visual run.

    Row ends and separators of 4KHD belong to the visual run: they go through the partial LoRA like patches do.

    Args:
        span_types: `SpanKind` values per token, ``[T]``, or None for text only.
        tokens: T.
    """

    def __init__(self, span_types: Tensor | None, tokens: int) -> None:
        self.tokens = tokens
        visual = 0
        if span_types is not None:
            if span_types.shape != (tokens,):
                raise ValueError(
                    f"span types of shape {tuple(span_types.shape)} for {tokens} tokens; expected [{tokens}]"
                )
            mask = span_types != int(SpanKind.TEXT)
            visual = int(mask.sum())
        self.visual = visual
        self.text = tokens - visual
        self.order: Tensor | None = None
        self.inverse: Tensor | None = None
        if self.text and self.visual:
            order = torch.argsort(mask.to(torch.uint8), stable=True)
            inverse = torch.empty_like(order)
            inverse[order] = torch.arange(tokens, device=order.device)
            self.order, self.inverse = order, inverse

    def sort(self, x: Tensor) -> Tensor:
        """Rows in routed order: text first, then visual, each in reading order."""
        if self.order is None or self.inverse is None:
            return x
        return select_rows(x, self.order, self.inverse)

    def unsort(self, x: Tensor) -> Tensor:
        """Rows back in reading order."""
        if self.order is None or self.inverse is None:
            return x
        return select_rows(x, self.inverse, self.order)


class Experts(nn.Module):
    """One map per span type behind one call; without a visual expert every token takes the text expert.

    Args:
        text: The language model's own map.
        visual: Its visual twin, or None.
    """

    def __init__(self, text: nn.Module, visual: nn.Module | None = None) -> None:
        super().__init__()
        self.text = text
        if visual is not None:
            self.visual = visual

    def forward(self, x: Tensor, router: SpanRouter) -> Tensor:
        """Applies the experts to rows in routed order.

        Args:
            x: ``[T, ...]`` in the order of `SpanRouter.sort`.
            router: The pass's router.

        Returns:
            Rows in the same order.
        """
        return self.route(x, router, "forward")

    def route(self, x: Tensor, router: SpanRouter, method: str) -> Tensor:
        """Like `forward`, for experts with several maps (attention's ``project`` and ``out``)."""
        text = _call(self.text, method)
        if not hasattr(self, "visual") or router.visual == 0:
            out: Tensor = text(x)
            return out
        visual = _call(self.visual, method)
        if router.text == 0:
            seen: Tensor = visual(x)
            return seen
        return torch.cat([text(x[: router.text]), visual(x[router.text :])])

    def copy_text_to_visual(self) -> None:
        """Initialises the visual expert as a copy of the text expert (Mono-InternVL, sec. 3.2)."""
        if hasattr(self, "visual"):
            self.visual.load_state_dict(self.text.state_dict())


def _call(module: nn.Module, method: str) -> Any:
    return module if method == "forward" else getattr(module, method)
