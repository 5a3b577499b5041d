import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny_models import tiny_config, tiny_model
from vedere.infer.cache import Cache
from vedere.models.attention import Backend
from vedere.models.decoder import Decoder

CONFIG = tiny_config().decoder


def _write(cache: Cache, start: int, counts: list[int], value: float) -> None:
    cache.reserve(start + len(counts), max([*cache.lengths[start : start + len(counts)], 0]) + max(counts))
    window = cache.window(start, counts)
    for layer in range(CONFIG.layers):
        new = torch.full((len(counts), CONFIG.kv_heads, max(counts), CONFIG.head_dim), value + layer)
        window.extend(layer, new, -new)
    cache.commit(window)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("write"), st.integers(0, 3), st.lists(st.integers(1, 70), min_size=1, max_size=3)),
            st.tuples(st.just("move"), st.integers(0, 3), st.integers(0, 3)),
            st.tuples(st.just("release"), st.integers(0, 3), st.just(0)),
        ),
        max_size=12,
    )
)
def test_storage_is_a_list_of_lists(steps):
    """Whatever is written, moved and given up: slots hold what a plain list would, and zeros behind it."""
    cache = Cache(CONFIG, slots=2, capacity=1)
    model: list[list[float]] = [[] for _ in range(32)]
    for number, (kind, slot, argument) in enumerate(steps):
        if kind == "write":
            _write(cache, slot, argument, number + 1.0)
            for row, count in enumerate(argument):
                model[slot + row] += [number + 1.0] * count
        elif max(slot, argument) < cache.slots:
            if kind == "move" and slot != argument:
                cache.move(slot, argument)
                model[argument], model[slot] = model[slot], []
            elif kind == "release":
                cache.release(slot)
                model[slot] = []
    assert cache.lengths == [len(tokens) for tokens in model[: cache.slots]]
    for layer in range(CONFIG.layers):
        for slot, tokens in enumerate(model[: cache.slots]):
            want = torch.zeros(cache.capacity)
            want[: len(tokens)] = torch.tensor([token + layer for token in tokens])
            assert torch.equal(cache.keys[layer][slot, 0, :, 0], want)
            assert torch.equal(cache.values[layer][slot, 1, :, 3], -want)


def test_a_pass_attends_views():
    cache = Cache(CONFIG, slots=4, capacity=128)
    window = cache.window(1, [1, 1])
    new = torch.randn(2, CONFIG.kv_heads, 1, CONFIG.head_dim)
    keys, values = window.extend(2, new, new)
    assert keys.shape == (2, CONFIG.kv_heads, 1, CONFIG.head_dim)
    assert keys.untyped_storage().data_ptr() == cache.keys[2].untyped_storage().data_ptr()
    assert values.untyped_storage().data_ptr() == cache.values[2].untyped_storage().data_ptr()


def test_bytes_and_growth():
    cache = Cache(CONFIG, slots=1, capacity=64, dtype=torch.bfloat16)
    assert cache.bytes == 2 * CONFIG.layers * CONFIG.kv_heads * 64 * CONFIG.head_dim * 2
    cache.reserve(3, 65)
    assert (cache.slots, cache.capacity) == (3, 128)
    cache.reserve(2, 10)
    assert (cache.slots, cache.capacity) == (3, 128)


def test_room_is_checked():
    cache = Cache(CONFIG, slots=1, capacity=64)
    with pytest.raises(ValueError, match="the cache has 1 slots"):
        cache.window(0, [1, 1])
    with pytest.raises(ValueError, match="65 tokens in a slot; the cache has room for 64: reserve first"):
        cache.window(0, [65])


def _decoder(backend: Backend) -> Decoder:
    decoder = tiny_model().decoder
    decoder.backend = backend
    return decoder


@pytest.mark.parametrize("backend", ["auto", "explicit", "sdpa"])
@pytest.mark.parametrize("lengths", [[7], [5, 5], [3, 9, 1]])
def test_cached_passes_equal_one_pass(backend, lengths):
    """Documents fed in three ragged parts through the cache give the hidden states of the whole pack."""
    decoder = _decoder(backend)
    total = sum(lengths)
    embeds, types = torch.randn(total, 32), torch.arange(total).remainder(3).eq(1).to(torch.uint8)
    borders = [sum(lengths[:k]) for k in range(len(lengths) + 1)]
    positions = torch.cat([torch.arange(length) for length in lengths])
    cache = Cache(CONFIG, slots=4, capacity=64)
    with torch.no_grad():
        want = decoder(embeds, positions, borders, types)
        got = torch.empty_like(want)
        done = [0] * len(lengths)
        while any(d < n for d, n in zip(done, lengths, strict=True)):
            # every document that is not through takes a different share; a window is a run of slots
            open_slots = [k for k, length in enumerate(lengths) if done[k] < length]
            first, last = open_slots[0], open_slots[0]
            while last + 1 in open_slots:
                last += 1
            slots = range(first, last + 1)
            counts = [min(lengths[k] - done[k], 1 + (k + done[k]) % 3) for k in slots]
            rows = torch.cat(
                [
                    torch.arange(borders[k] + done[k], borders[k] + done[k] + c)
                    for k, c in zip(slots, counts, strict=True)
                ]
            )
            window = cache.window(first, counts)
            cuts = [sum(counts[:k]) for k in range(len(counts) + 1)]
            got[rows] = decoder(embeds[rows], positions[rows], cuts, types[rows], cache=window)
            cache.commit(window)
            for k, count in zip(slots, counts, strict=True):
                done[k] += count
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_equal_documents_are_isolated():
    """Documents of one length take the path without gathering; each must still see itself only."""
    decoder = _decoder("explicit")
    embeds = torch.randn(8, 32)
    positions = torch.arange(4).repeat(2)
    with torch.no_grad():
        before = decoder(embeds, positions, [0, 4, 8])
        alone = decoder(embeds[4:], positions[4:], [0, 4])
        embeds[:4] = torch.randn(4, 32)
        after = decoder(embeds, positions, [0, 4, 8])
    assert torch.equal(before[4:], after[4:])
    torch.testing.assert_close(after[4:], alone, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(before[:4], after[:4])
