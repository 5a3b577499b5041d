"""Partial LoRA in packs: it belongs to the image tokens of each document, whoever stands beside them."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

import tiny_xcomposer2
from vedere.data.packing import Document, collate
from vedere.models.low_rank import LowRank
from vedere.models.xcomposer2 import XComposer2
from vedere.plan import HDPolicy, plan_media
from vedere.text.render import Span
from vedere.train.batch import Batch, make_batch
from vedere.train.loop import backward
from vedere.train.stages import PARTIAL_LORA, StageConfig, set_trainable

POLICY = HDPolicy(tile=tiny_xcomposer2.TILE, limit=6)
STAGE = StageConfig(name="law", data="")


def document(seed: int, *sizes: tuple[int, int], text: int = 6) -> Document:
    """Pictures of these sizes with text behind each, and an answer."""
    rng = np.random.default_rng(seed)
    ids, types, spans, tiles, grids = [1], [0], [], [], []
    for number, size in enumerate(sizes):
        plan = plan_media(*size, POLICY)
        for kind, length in plan.spans:
            spans.append(Span(number, 0, len(ids), length, kind))
            ids += [3] * length
            types += [int(kind)] * length
        tiles.append(rng.integers(0, 256, (plan.grid[0] * plan.grid[1], 3, 56, 56), dtype=np.uint8))
        grids.append(plan.grid)
        ids += rng.integers(4, 390, 3).tolist()
        types += [0] * 3
    answer = rng.integers(4, 390, text).tolist()
    return Document(
        name=f"d{seed}",
        ids=np.array(ids + answer, np.int64),
        labels=np.array([-100] * len(ids) + answer, np.int64),
        span_types=np.array(types + [0] * text, np.uint8),
        spans=tuple(spans),
        tiles=np.concatenate(tiles) if tiles else np.zeros((0, 3, 56, 56), np.uint8),
        grids=tuple(grids),
    )


def batch(model: XComposer2, documents: Sequence[Document]) -> Batch:
    return make_batch(collate(documents), STAGE, model, random.Random(0))


def hidden(model: XComposer2, documents: Sequence[Document]) -> list[Tensor]:
    made = batch(model, documents)
    with torch.no_grad():
        rows = model(made.ids, made.positions, made.borders, made.span_types, made.pixels)
    return list(rows.split(np.diff(made.borders).tolist()))


def gradients(model: XComposer2, documents: Sequence[Document]) -> dict[str, Tensor]:
    """Of the partial LoRA alone, after one pass through the training loop's own step."""
    set_trainable(model, PARTIAL_LORA)
    model.zero_grad()
    backward(model, batch(model, documents))
    return {
        n: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for n, p in model.named_parameters()
        if p.requires_grad
    }


PICTURES, TEXT, TWO = document(1, (300, 200)), document(2), document(3, (60, 200), (90, 90))


def test_documents_of_a_pack_are_as_if_alone() -> None:
    model = tiny_xcomposer2.model(tiny_xcomposer2.shape())
    together = hidden(model, [PICTURES, TEXT, TWO])
    for found, one in zip(together, (PICTURES, TEXT, TWO), strict=True):
        torch.testing.assert_close(found, hidden(model, [one])[0], rtol=0, atol=2e-5)


def test_text_documents_of_a_pack_do_not_know_the_adapter() -> None:
    model = tiny_xcomposer2.model(tiny_xcomposer2.shape())
    before = hidden(model, [PICTURES, TEXT, TWO])
    for part in model.modules():
        if isinstance(part, LowRank):
            torch.nn.init.normal_(part.lora_B, std=0.5)
    after = hidden(model, [PICTURES, TEXT, TWO])
    assert torch.equal(before[1], after[1])
    assert torch.equal(before[0][0], after[0][0])  # the bos stands before the picture
    assert not torch.equal(before[0][-1], after[0][-1])  # what stands behind a picture sees it
    assert not torch.equal(before[2][-1], after[2][-1])


def test_its_gradient_in_a_pack_is_the_sum_of_those_alone() -> None:
    model = tiny_xcomposer2.model(tiny_xcomposer2.shape())
    together = gradients(model, [PICTURES, TEXT, TWO])
    alone = [gradients(model, [one]) for one in (PICTURES, TEXT, TWO)]
    assert not any(gradient.any() for gradient in alone[1].values())
    reached = 0
    for name, gradient in together.items():
        torch.testing.assert_close(gradient, sum(one[name] for one in alone), rtol=1e-3, atol=1e-5)
        reached += bool(gradient.any())
    assert reached == 10  # of 16: the last layer's output map and feed-forward meet no row that predicts from a picture


def test_normalisation_is_clips() -> None:
    """White in CLIP's statistics, in the views and in the global one."""
    white = Document(**{**vars(PICTURES), "tiles": np.full_like(PICTURES.tiles, 255)})
    pixels = batch(tiny_xcomposer2.model(tiny_xcomposer2.shape()), [white]).pixels
    expected = torch.tensor(
        [(1 - 0.48145466) / 0.26862954, (1 - 0.4578275) / 0.26130258, (1 - 0.40821073) / 0.27577711]
    )
    assert len(pixels) == 1 + len(PICTURES.tiles)
    torch.testing.assert_close(pixels.amin((0, 2, 3)), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(pixels.amax((0, 2, 3)), expected, rtol=0, atol=1e-5)
