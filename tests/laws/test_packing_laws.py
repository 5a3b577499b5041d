"""Documents of a pack do not know of each other, and all attention backends are the same function."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_block_mask

from vedere.errors import ConfigError
from vedere.models import attention
from vedere.models.attention import AttentionPass, PackLayout, document_blocks
from vedere.models.experts import SpanRouter

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


# --- FlexAttention -------------------------------------------------------------------------------------------------------


def dense(mask) -> torch.Tensor:
    """What a block mask lets through, block by block: 0 nothing, 1 what its function says, 2 everything."""
    blocks = mask.kv_num_blocks.shape[-1]
    kind = torch.zeros(blocks, blocks, dtype=torch.int64)
    tables = ((mask.kv_num_blocks, mask.kv_indices, 1), (mask.full_kv_num_blocks, mask.full_kv_indices, 2))
    for counts, columns, value in tables:
        for row in range(blocks):
            chosen = columns[0, 0, row, : int(counts[0, 0, row])]
            assert kind[row, chosen].sum() == 0
            kind[row, chosen] = value
    return kind


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.sampled_from([1, 2, 60, 127, 128, 129, 255, 256, 300, 400]), min_size=1, max_size=6))
def test_the_blocks_of_a_pack_are_those_of_its_mask(lengths) -> None:
    borders = torch.tensor([0, *lengths]).cumsum(0)
    ours = document_blocks(borders.tolist(), torch.device("cpu"))
    document = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    tokens = len(document)

    def sees(b, h, q, k):
        return (document[q] == document[k]) & (q >= k)

    theirs = create_block_mask(sees, None, None, tokens, tokens, device="cpu")
    assert torch.equal(dense(ours), dense(theirs))
    place = torch.arange(tokens)
    assert torch.equal(
        ours.mask_mod(0, 0, place[:, None], place[None]),
        (document[:, None] == document[None]) & (place[:, None] >= place),
    )
    for name in ("q_num_blocks", "full_q_num_blocks"):  # of the backward pass
        assert torch.equal(getattr(ours, name), getattr(theirs, name))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@settings(max_examples=8, deadline=None)
@given(
    lengths=st.lists(st.sampled_from([1, 5, 40, 128, 131]), min_size=1, max_size=4),
    visual=st.lists(st.booleans(), min_size=600, max_size=600),
)
@torch.no_grad()
def test_flex_agrees_with_explicit_attention(make_decoder, pack_documents, lengths, visual) -> None:
    ids, positions, borders = pack_documents([text(length, seed) for seed, length in enumerate(lengths)])
    types = torch.tensor(visual[: len(ids)], dtype=torch.uint8)
    outcomes = []
    for backend in ("explicit", "flex"):
        decoder = make_decoder(backend, visual_ffn=True, visual_attention=True)
        outcomes.append(decoder(decoder.embed(ids), positions, borders, types))
    torch.testing.assert_close(outcomes[0], outcomes[1], **TOLERANCE)


class _Cuda:
    """Stands for a GPU where only the choice of a backend is asked for."""

    type = "cuda"


@pytest.mark.parametrize(("head_dim", "backend"), [(8, "sdpa"), (15, "sdpa"), (16, "flex"), (80, "flex")])
def test_narrow_heads_on_a_gpu_go_the_other_way(monkeypatch, head_dim, backend) -> None:
    monkeypatch.setattr(attention, "PackLayout", lambda borders, *_, **__: PackLayout(borders, router, cpu))
    monkeypatch.setattr(attention, "document_blocks", lambda borders, device: "blocks")
    router, cpu = SpanRouter(None, 5), torch.device("cpu")
    chosen = AttentionPass([0, 5], router, _Cuda(), head_dim)  # type: ignore[arg-type]
    assert chosen.backend == backend
    assert getattr(chosen, "block_mask", None) == ("blocks" if backend == "flex" else None)


def test_flex_says_what_it_cannot() -> None:
    router = SpanRouter(None, 5)
    with pytest.raises(ConfigError, match=r"'flex' has no gradients on cpu; choose 'auto' to train"):
        AttentionPass([0, 5], router, torch.device("cpu"), 16, "flex")
    with pytest.raises(
        ConfigError, match=r"'flex' takes heads of at least 16 on CUDA, the model's are 8; choose 'auto'"
    ):
        attention._check_flex(torch.device("cuda"), 8, None)
    with pytest.raises(ConfigError, match=r"'flex' reads no cache; choose"):
        attention._check_flex(torch.device("cuda"), 16, object())  # type: ignore[arg-type]


def test_borders_that_do_not_fit_are_refused(make_decoder) -> None:
    decoder = make_decoder()
    embeds = decoder.embed(text(5, 1))
    for borders in ([0, 4], [0, 3, 3, 5], [1, 5], []):
        with pytest.raises((ValueError, IndexError)):
            decoder(embeds, torch.arange(5), borders)
