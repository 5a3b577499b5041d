"""Documents of a pack do not know of each other, and all attention backends are the same function."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

BACKENDS = ["explicit", "sdpa"]
TOLERANCE = {"rtol": 0, "atol": 1e-5}
PLACES = 4  # visual tokens of one tile


def text(length: int, seed: int) -> torch.Tensor:
    return torch.randint(0, 97, (length,), generator=torch.Generator().manual_seed(seed))


def tiles(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def types_of(length: int, images: list[int]) -> torch.Tensor:
    """Span types of a document with one-tile images at these places."""
    types = torch.zeros(length, dtype=torch.uint8)
    for start in images:
        types[start : start + PLACES] = 1
    return types


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("visual_attention", [False, True])
def test_changing_one_document_leaves_the_others_bit_identical(
    make_mono, pack_documents, backend, visual_attention
) -> None:
    model = make_mono(backend, visual_attention=visual_attention)
    lengths, images = [9, 14, 6], [[3], [1, 8], []]
    types = torch.cat([types_of(length, places) for length, places in zip(lengths, images, strict=True)])

    def run(first_seed: int, picture_seed: int) -> torch.Tensor:
        ids, positions, borders = pack_documents([text(9, first_seed), text(14, 2), text(6, 3)])
        pixels = torch.cat([tiles(1, picture_seed), tiles(2, 5)])
        return model(ids, positions, borders, types, pixels)

    before, other_words, other_picture = run(1, 4), run(11, 4), run(1, 44)
    for after in (other_words, other_picture):
        assert torch.equal(after[9:], before[9:])
        assert not torch.equal(after[:9], before[:9])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_poisoned_document_does_not_leak(make_decoder, pack_documents, backend) -> None:
    decoder = make_decoder(backend)
    ids, positions, borders = pack_documents([text(7, 1), text(12, 2), text(11, 3)])
    embeds = decoder.embed(ids).detach()
    embeds[7:19] = torch.nan
    hidden = decoder(embeds, positions, borders)
    assert hidden[:7].isfinite().all()
    assert hidden[19:].isfinite().all()
    assert hidden[7:19].isnan().any()


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=12, deadline=None)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=5), data=st.data())
def test_a_pack_is_its_documents_in_any_order(make_decoder, pack_documents, backend, lengths, data) -> None:
    decoder = make_decoder(backend)
    order = data.draw(st.permutations(range(len(lengths))))
    documents = [text(length, seed) for seed, length in enumerate(lengths)]
    alone = [decoder(decoder.embed(ids), torch.arange(len(ids)), [0, len(ids)]) for ids in documents]
    ids, positions, borders = pack_documents([documents[k] for k in order])
    packed = decoder(decoder.embed(ids), positions, borders)
    torch.testing.assert_close(packed, torch.cat([alone[k] for k in order]), **TOLERANCE)


@settings(max_examples=10, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    visual=st.lists(st.booleans(), min_size=160, max_size=160),
    visual_attention=st.booleans(),
)
def test_backends_agree_forward_and_backward(make_decoder, pack_documents, lengths, visual, visual_attention) -> None:
    ids, positions, borders = pack_documents([text(length, seed) for seed, length in enumerate(lengths)])
    types = torch.tensor(visual[: len(ids)], dtype=torch.uint8)
    direction = torch.randn(len(ids), 32, generator=torch.Generator().manual_seed(9))
    outcomes = []
    for backend in BACKENDS:
        decoder = make_decoder(backend, visual_ffn=True, visual_attention=visual_attention)
        hidden = decoder(decoder.embed(ids), positions, borders, types)
        (hidden * direction).sum().backward()
        outcomes.append((hidden, {name: p.grad for name, p in decoder.named_parameters() if p.grad is not None}))
    (hidden, grads), (other_hidden, other_grads) = outcomes
    torch.testing.assert_close(hidden, other_hidden, **TOLERANCE)
    assert grads.keys() == other_grads.keys()
    for name, grad in grads.items():
        scale = max(1.0, float(grad.abs().max()))
        torch.testing.assert_close(
            grad / scale, other_grads[name] / scale, msg=lambda m, n=name: f"{n}: {m}", **TOLERANCE
        )


def test_borders_that_do_not_fit_are_refused(make_decoder) -> None:
    decoder = make_decoder()
    embeds = decoder.embed(text(5, 1))
    for borders in ([0, 4], [0, 3, 3, 5], [1, 5], []):
        with pytest.raises((ValueError, IndexError)):
            decoder(embeds, torch.arange(5), borders)
