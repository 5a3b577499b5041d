"""Chunked cross-entropy, averaging weights, targets at borders."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from vedere.errors import ConfigError
from vedere.train.losses import IGNORED, chunked_cross_entropy, loss_weights, next_token_targets


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 20), chunk=st.integers(1, 25), seed=st.integers(0, 99), scale=st.sampled_from([0.1, 9.0]))
def test_chunks_equal_plain_cross_entropy(rows: int, chunk: int, seed: int, scale: float) -> None:
    torch.manual_seed(seed)
    hidden, head = torch.randn(rows, 8), torch.randn(13, 8) * scale
    targets, weights = torch.randint(0, 13, (rows,)), torch.rand(rows)
    results = []
    for plain in (True, False):
        h, w = hidden.clone().requires_grad_(), head.clone().requires_grad_()
        if plain:
            total = (F.cross_entropy(F.linear(h, w), targets, reduction="none") * weights).sum()
        else:
            total = chunked_cross_entropy(h, w, targets, weights, chunk)
        (total * 0.7).backward()  # a factor from outside must reach both gradients
        results.append((total.detach(), h.grad, w.grad))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_frozen_head_gets_no_gradient_and_a_frozen_hidden_none_either() -> None:
    hidden, head = torch.randn(5, 4), torch.randn(7, 4)
    targets, ones = torch.tensor([0, 1, 2, 3, 6]), torch.ones(5)
    hidden.requires_grad_()
    chunked_cross_entropy(hidden, head, targets, ones).backward()
    assert hidden.grad is not None
    assert head.grad is None
    head.requires_grad_()
    chunked_cross_entropy(hidden.detach(), head, targets, ones, 2).backward()
    assert head.grad is not None
    assert not chunked_cross_entropy(hidden.detach(), head.detach(), targets, ones).requires_grad


def test_bf16_loss_is_that_of_the_rounded_values() -> None:
    hidden, head = torch.randn(40, 16).bfloat16(), torch.randn(11, 16).bfloat16()
    targets, weights = torch.randint(0, 11, (40,)), torch.rand(40)
    found = chunked_cross_entropy(hidden, head, targets, weights, 7)
    logits = F.linear(hidden, head).float()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, (F.cross_entropy(logits, targets, reduction="none") * weights).sum())


LABELS = torch.tensor([IGNORED, 5, 6, IGNORED, IGNORED, 7, IGNORED, IGNORED, 8, 9, 3, 4])
BORDERS = [0, 3, 6, 8, 12]  # two targets, one, none, four


@pytest.mark.parametrize(
    ("averaging", "expected"),
    [
        ("token", [0, 1, 1, 0, 0, 1, 0, 0, 1, 1, 1, 1]),
        ("square", [0, 2**-0.5, 2**-0.5, 0, 0, 1, 0, 0, 0.5, 0.5, 0.5, 0.5]),
        ("sample", [0, 0.5, 0.5, 0, 0, 1, 0, 0, 0.25, 0.25, 0.25, 0.25]),
    ],
)
def test_averaging_weights_by_hand(averaging: str, expected: list[float]) -> None:
    weights = loss_weights(LABELS, BORDERS, averaging)  # type: ignore[arg-type]
    torch.testing.assert_close(weights, torch.tensor(expected, dtype=torch.float32))
    assert weights.dtype == torch.float32
    scaled = loss_weights(LABELS, BORDERS, averaging, [1.0, 3.0, 9.0, 0.5])  # type: ignore[arg-type]
    factors = torch.tensor([1.0] * 3 + [3.0] * 3 + [9.0] * 2 + [0.5] * 4)
    torch.testing.assert_close(scaled, torch.tensor(expected, dtype=torch.float32) * factors)


def test_every_sample_weighs_the_same_under_sample_averaging() -> None:
    weights = loss_weights(LABELS, torch.tensor(BORDERS), "sample")
    totals = [float(weights[start:end].sum()) for start, end in itertools.pairwise(BORDERS)]
    assert totals == [1, 1, 0, 1]


def test_unknown_averaging() -> None:
    with pytest.raises(ConfigError, match="unknown averaging 'mean'; expected one of token, square, sample"):
        loss_weights(LABELS, BORDERS, "mean")  # type: ignore[arg-type]


@st.composite
def packs(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    lengths = draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    labels = draw(st.lists(st.sampled_from([IGNORED, 1, 2, 3]), min_size=sum(lengths), max_size=sum(lengths)))
    return labels, [0, *itertools.accumulate(lengths)]


@settings(max_examples=60, deadline=None)
@given(packs())
def test_targets_never_cross_a_border(pack: tuple[list[int], list[int]]) -> None:
    labels, borders = pack
    rows, targets = next_token_targets(torch.tensor(labels), borders)
    expected = [
        (place - 1, labels[place])
        for start, end in itertools.pairwise(borders)
        for place in range(start + 1, end)  # nothing predicts the first token of a document
        if labels[place] != IGNORED
    ]
    assert list(zip(rows.tolist(), targets.tolist(), strict=True)) == expected
    rows, targets = next_token_targets(torch.tensor(labels), torch.tensor(borders), reference=True)
    crossing = [(place - 1, labels[place]) for place in range(1, len(labels)) if labels[place] != IGNORED]
    assert list(zip(rows.tolist(), targets.tolist(), strict=True)) == crossing
