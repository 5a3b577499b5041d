"""The shared beginning: computed once, and nobody can tell."""

import dataclasses

import pytest
import torch

from vedere.models.decoder import DecoderConfig
from vedere.models.mono_internvl import MonoInternVL, MonoInternVLConfig
from vedere.models.patches import PatchConfig
from vedere.train.batch import Batch
from vedere.train.loop import backward
from vedere.train.prefix import KEPT, SharedPrefix
from vedere.train.stages import VISUAL_PARTS, set_trainable


@pytest.fixture
def model() -> MonoInternVL:
    decoder = DecoderConfig(
        hidden_size=64,
        ffn_size=96,
        layers=3,
        heads=4,
        kv_heads=2,
        head_dim=16,
        vocab_size=200,
        tied_head=True,
        visual_ffn=True,
    )
    model = MonoInternVL(MonoInternVLConfig(vision=PatchConfig(width=16, patch=14, tile=56), decoder=decoder))
    set_trainable(model, VISUAL_PARTS)
    return model


def packed(lengths: list[int], opening: list[int]) -> Batch:
    borders = [0]
    for length in lengths:
        borders.append(borders[-1] + length)
    ids = torch.randint(10, 200, (borders[-1],))
    types = torch.zeros(borders[-1], dtype=torch.uint8)
    for start in borders[:-1]:
        ids[start : start + len(opening)] = torch.tensor(opening)
        types[start + 4 : start + 8] = 1
    rows = torch.tensor([end - 2 for end in borders[1:]])
    return Batch(
        ids=ids,
        positions=torch.cat([torch.arange(length) for length in lengths]),
        borders=borders,
        span_types=types,
        pixels=torch.randn(len(lengths), 3, 56, 56),
        rows=rows,
        targets=ids[rows + 1],
        weights=torch.rand(len(rows)),
        names=tuple("abcdef"[: len(lengths)]),
    )


def test_loss_and_gradients_are_those_of_the_whole_documents(model: MonoInternVL) -> None:
    batch = packed([12, 14, 13], [5, 6, 7, 8])
    results = []
    for prefix in (None, SharedPrefix(model.decoder)):
        model.zero_grad()
        loss = backward(model, batch, prefix)
        results.append((loss, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}))
    (loss, gradients), (short_loss, short_gradients) = results
    assert short_loss == pytest.approx(loss, rel=1e-6)
    assert gradients.keys() == short_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(short_gradients[name], gradient, atol=1e-5, rtol=1e-4)


def test_only_the_common_text_before_pictures_is_taken(model: MonoInternVL) -> None:
    batch = packed([12, 14, 13], [5, 6, 7, 8])
    stripped, cache = SharedPrefix(model.decoder).strip(batch)
    assert cache is not None
    assert list(cache.past()) == [4, 4, 4]
    assert stripped.borders == [0, 8, 18, 27]
    assert stripped.positions[:3].tolist() == [4, 5, 6]
    assert torch.equal(stripped.ids[stripped.rows + 1], batch.targets)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda b: b.ids.__setitem__(0, 9), "first tokens differ"),
        (lambda b: b.span_types.__setitem__(12, 1), "a picture stands first"),
        (lambda b: b.rows.__setitem__(0, 0), "the first row has a target"),
    ],
)
def test_nothing_is_stripped_where_it_would_be_wrong(model: MonoInternVL, change: object, why: str) -> None:
    batch = packed([12, 14, 13], [5, 6, 7, 8])
    change(batch)  # type: ignore[operator]
    stripped, cache = SharedPrefix(model.decoder).strip(batch)
    assert cache is None, why
    assert stripped is batch


def test_few_beginnings_are_remembered(model: MonoInternVL) -> None:
    """A pack of one document is a beginning of its own: a run sees thousands, and each holds keys of all layers."""
    prefix = SharedPrefix(model.decoder)
    common = packed([12, 14], [5, 6, 7, 8])
    first, kept = prefix.strip(common)[1], 0
    for number in range(3 * KEPT):
        prefix.strip(packed([12], [10 + number, 6, 7, 8]))
        kept = max(kept, len(prefix.known))
        again = prefix.strip(common)[1]
        assert first is not None
        assert again is not None
        assert again.keys is first.keys, "what is used all the time stays"
    assert kept == KEPT


def test_skewed_packs_are_left_alone(model: MonoInternVL) -> None:
    batch = packed([12, 90, 13], [5, 6, 7, 8])
    assert SharedPrefix(model.decoder).strip(batch)[1] is None


def test_fractional_positions_go_with_their_rows(model: MonoInternVL) -> None:
    batch = packed([12, 14], [5, 6, 7, 8])
    batch = dataclasses.replace(batch, positions=batch.positions / 2)
    stripped, _ = SharedPrefix(model.decoder).strip(batch)
    assert stripped.positions[0] == 2.0
