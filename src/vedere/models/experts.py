"""Static routing by span type: visual FFN experts, visual attention experts, partial LoRA.

Mono-InternVL (arXiv 2410.08202, eq. 3-4) gives every layer a second, same-shaped expert for image patches. The route is
known from the token's type, so there is no gate and no balancing loss. The original evaluates both experts on every token
and blends with a 0/1 mask, and drops the mask as soon as a key-value cache exists (wrong for chunked prefill). Here the
packed rows are sorted by type once at the entrance of the decoder, so that each expert reads one contiguous slice in
every layer; nothing is computed twice, and an absent type touches no parameter of its expert.

Cost: two row permutations a forward pass; without gradients one concatenation a routed map.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vedere.models.layers import SwiGLU
from vedere.models.low_rank import LowRank
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


class _RoutedLinear(torch.autograd.Function):
    """``[x[:n] A^T + a; x[n:] B^T + b]``, results and gradients written straight into their places.

    The composite form joins the results by a copy, and the gradient of each slice of ``x`` by filling a whole ``x`` with zeros.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, text: Tensor, text_bias: Tensor | None, visual: Tensor, visual_bias: Tensor | None, n: int
    ) -> Tensor:
        out = x.new_empty(len(x), len(text))
        for part, weight, bias in ((slice(n), text, text_bias), (slice(n, None), visual, visual_bias)):
            if bias is None:
                torch.mm(x[part], weight.t(), out=out[part])
            else:
                torch.addmm(bias, x[part], weight.t(), out=out[part])
        ctx.save_for_backward(x if ctx.needs_input_grad[1] or ctx.needs_input_grad[3] else None, text, visual)
        ctx.split = n
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, text, visual = ctx.saved_tensors
        parts = slice(ctx.split), slice(ctx.split, None)
        grad, needs = grads[0].contiguous(), ctx.needs_input_grad
        of_x = None
        if needs[0]:
            of_x = grad.new_empty(len(grad), text.shape[1])
            for part, weight in zip(parts, (text, visual), strict=True):
                torch.mm(grad[part], weight, out=of_x[part])
        weights = [grad[part].t() @ x[part] if needs[at] else None for part, at in zip(parts, (1, 3), strict=True)]
        biases = [grad[part].sum(0) if needs[at] else None for part, at in zip(parts, (2, 4), strict=True)]
        return of_x, weights[0], biases[0], weights[1], biases[1], None


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

    def select(self, rows_M: Tensor) -> tuple[Tensor, SpanRouter]:
        """Some rows of the pass as a pass of their own.

        Args:
            rows_M: Rows in reading order, each once.

        Returns:
            (their places in routed order, in the order of the new router; a router whose `unsort` restores ``rows_M``).
        """
        places = rows_M if self.inverse is None else self.inverse[rows_M]
        router = SpanRouter((places >= self.text).to(torch.uint8) if self.visual else None, len(rows_M))
        return router.sort(places), router


class Experts(nn.Module):
    """Modules of the same shape, one a span type; without a visual one every token takes the text one.

    With partial LoRA (`attach_partial`) visual rows take the text expert and a low-rank addition, on their slice alone.

    Args:
        text: The language model's own.
        visual: Its visual twin, or None.
    """

    def __init__(self, text: nn.Module, visual: nn.Module | None = None) -> None:
        super().__init__()
        self.text = text
        if visual is not None:
            self.visual = visual

    def attach_partial(self, maps: dict[str, LowRank]) -> None:
        """Gives visual rows a low-rank addition to the linear maps of these names."""
        self.partial = nn.ModuleDict(maps)

    def _with_partial(self, out: Tensor, x: Tensor, router: SpanRouter, name: str) -> Tensor:
        if router.visual and hasattr(self, "partial") and name in self.partial:
            low = self.partial[name]
            assert isinstance(low, LowRank)
            low.add_to(out[router.text :], x[router.text :])
        return out

    def route(self, x: Tensor, router: SpanRouter, name: str) -> Tensor:
        """Applies the linear map ``name`` of each row's expert.

        Args:
            x: ``[T, ...]`` in the order of `SpanRouter.sort`.
            router: The pass's router.
            name: Submodule of the experts.

        Returns:
            Rows in the same order.
        """
        text = self.text.get_submodule(name)
        if not hasattr(self, "visual") or router.visual == 0:
            return self._with_partial(text(x), x, router, name)
        visual = self.visual.get_submodule(name)
        if router.text == 0:
            seen: Tensor = visual(x)
            return seen
        if not torch.is_grad_enabled() or type(text) is not nn.Linear or type(visual) is not nn.Linear:  # an adapter
            return torch.cat([text(x[: router.text]), visual(x[router.text :])])
        joined: Tensor = _RoutedLinear.apply(  # type: ignore[no-untyped-call]
            x, text.weight, text.bias, visual.weight, visual.bias, router.text
        )
        return joined

    def copy_text_to_visual(self) -> None:
        """Initialises the visual expert as a copy of the text expert (Mono-InternVL, sec. 3.2)."""
        if hasattr(self, "visual"):
            self.visual.load_state_dict(self.text.state_dict())


class FeedForward(Experts):
    """`SwiGLU` experts, or a `vedere.models.moe.MoE` in the place of the only one."""

    def forward(self, x: Tensor, router: SpanRouter) -> Tensor:
        """Maps rows in routed order, ``[T, D]`` to ``[T, D]``."""
        if not isinstance(self.text, SwiGLU):
            mixed: Tensor = self.text(x)
            return mixed
        return self.route(SwiGLU.gate(self.route(x, router, "gate_up")), router, "down")
