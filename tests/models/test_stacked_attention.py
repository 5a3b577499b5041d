"""The written-out gradient of training's attention against autograd's, for whole models and packs."""

from __future__ import annotations

import itertools

import pytest
import torch

from vedere.models import attention
from vedere.models.attention import Attention, AttentionExpert, AttentionPass
from vedere.models.experts import SpanRouter
from vedere.models.positions import rotary_table
from vedere.train.prefix import PrefixCache

HEADS, KV_HEADS, WIDTH = 6, 2, 8


def both(
    monkeypatch: pytest.MonkeyPatch,
    lengths: list[int],
    visual: bool,
    prefix: int,
    qk_norm: bool = False,
    dtype: torch.dtype = torch.float64,
) -> list[tuple[torch.Tensor, ...]]:
    """Output and gradients of the fast form and of the readable one."""
    torch.manual_seed(0)
    tokens, borders = sum(lengths), [0, *itertools.accumulate(lengths)]
    span_types = (torch.rand(tokens) < 0.5).to(torch.uint8) if visual else None
    router = SpanRouter(span_types, tokens)

    def expert() -> AttentionExpert:
        return AttentionExpert(16, HEADS, KV_HEADS, WIDTH, True, False, 1e-5 if qk_norm else None)

    layer = Attention(expert(), expert() if visual else None, HEADS, KV_HEADS, WIDTH).to(dtype)
    positions = torch.cat([torch.arange(n) + prefix for n in lengths])
    table = rotary_table(positions, WIDTH, 100.0, dtype)
    if router.order is not None:
        table = (table[0][router.order], table[1][router.order])
    keys, values = torch.randn(2, 1, KV_HEADS, max(prefix, 1), WIDTH, dtype=dtype)
    x, towards = torch.randn(tokens, 16, dtype=dtype), torch.randn(tokens, HEADS * WIDTH, dtype=dtype)
    results = []
    for fast in (True, False):
        cache = PrefixCache([keys], [values], len(lengths)) if prefix else None
        step = AttentionPass(borders, router, x.device, WIDTH, "explicit", cache)
        with monkeypatch.context() as patch:
            if fast:  # the readable form must not be what is tested against itself
                patch.setattr(attention, "explicit_attention", None)
            else:
                patch.setattr(AttentionPass, "attend_learning", lambda *_: None)
            own = x.clone().requires_grad_()
            out = layer.attend(own, router, table, step, 0)
            grads = torch.autograd.grad((out * towards).sum(), [own, *layer.parameters()], allow_unused=True)
        results.append((out.detach(), *(g for g in grads if g is not None)))
    return results


@pytest.mark.parametrize("lengths", [[5], [4, 4, 4], [7, 3, 6, 1], [3, 40, 5, 38, 2]], ids=str)
@pytest.mark.parametrize("visual", [False, True])
@pytest.mark.parametrize("prefix", [0, 3])
def test_output_and_gradients_are_those_of_the_readable_form(monkeypatch, lengths, visual, prefix) -> None:
    fast, readable = both(monkeypatch, lengths, visual, prefix)
    assert len(fast) == len(readable) > 2
    for one, other in zip(fast, readable, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_with_norms_of_heads(monkeypatch) -> None:
    fast, readable = both(monkeypatch, [5, 9], True, 2, qk_norm=True)
    for one, other in zip(fast, readable, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)  # the norm's statistics are float32


def test_bfloat16_stays_within_its_rounding(monkeypatch) -> None:
    fast, readable = both(monkeypatch, [7, 3, 6], True, 3, dtype=torch.bfloat16)
    for one, other in zip(fast, readable, strict=True):
        assert float((one - other).float().norm()) < 0.02 * float(other.float().norm())


def test_without_gradients_the_readable_form_answers(monkeypatch) -> None:
    step = AttentionPass([0, 4], SpanRouter(None, 4), torch.device("cpu"), WIDTH, "explicit")
    table = rotary_table(torch.arange(4), WIDTH, 100.0, torch.float32)
    qkv = torch.randn(4, HEADS + 2 * KV_HEADS, WIDTH)
    assert step.attend_learning(0, qkv, table, HEADS, KV_HEADS) is None
    assert step.attend_learning(0, qkv.requires_grad_(), table, HEADS, KV_HEADS) is not None
    with torch.no_grad():
        assert step.attend_learning(0, qkv, table, HEADS, KV_HEADS) is None
