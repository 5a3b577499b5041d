"""Fractional positions, dynamic NTK, and the order of unshuffled patches."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vedere.errors import ConfigError
from vedere.models.patches import pixel_unshuffle
from vedere.models.positions import V2PE_DELTAS, document_positions, rotary_table, rotate, rotate_plainly, v2pe_deltas

LAYOUTS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 30)), max_size=5)  # (text before, image length)


def blocks_of(layout: list[tuple[int, int]], tail: int) -> tuple[int, list[tuple[int, int]]]:
    blocks, place = [], 0
    for text, image in layout:
        blocks.append((place + text, image))
        place += text + image
    return place + tail, blocks


@given(layout=LAYOUTS, tail=st.integers(1, 9))
def test_delta_one_is_plain_positions(layout, tail) -> None:
    length, blocks = blocks_of(layout, tail)
    for deltas in ([1.0] * len(blocks), [Fraction(1)] * len(blocks), v2pe_deltas("default", len(blocks))):
        assert torch.equal(document_positions(length, blocks, deltas), torch.arange(length))


@given(layout=LAYOUTS.filter(bool), tail=st.integers(1, 9), data=st.data())
def test_images_advance_by_delta_and_text_by_one(layout, tail, data) -> None:
    length, blocks = blocks_of(layout, tail)
    deltas = [float(data.draw(st.sampled_from(V2PE_DELTAS))) for _ in blocks]
    positions = document_positions(length, blocks, deltas).double()
    expected, place, following = [], 0, 0
    for (start, size), delta in zip(blocks, deltas, strict=True):
        expected += [following + k for k in range(start - place)]
        before = expected[-1]
        expected += [before + delta * k for k in range(1, size + 1)]
        following = math.ceil(expected[-1]) + 1
        place = start + size
    expected += [following + k for k in range(length - place)]
    assert positions.tolist() == expected
    assert (positions.diff() > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_with_fractional_positions_is_the_plain_model_at_delta_one(make_decoder, dtype) -> None:
    plain, fractional = make_decoder().to(dtype), make_decoder(v2pe=True).to(dtype)
    fractional.load_state_dict(plain.state_dict())
    embeds = plain.embed(torch.arange(20) % 97)
    positions = document_positions(20, [(4, 8)], [1])
    hidden = plain(embeds, positions, [0, 20])
    if dtype == torch.float32:
        assert torch.equal(fractional(embeds, positions.float(), [0, 20]), hidden)
    else:  # rotated in float32, then rounded: as close as bfloat16 is
        torch.testing.assert_close(fractional(embeds, positions.float(), [0, 20]), hidden, rtol=0.05, atol=0.1)


def test_a_smaller_delta_changes_the_model(make_decoder) -> None:
    decoder = make_decoder(v2pe=True)
    embeds = decoder.embed(torch.arange(20) % 97)
    hidden = [decoder(embeds, document_positions(20, [(4, 8)], [d]).float(), [0, 20]) for d in (1, 1 / 16)]
    assert (hidden[0] - hidden[1])[5:].abs().max() > 1e-3


def test_positions_that_cannot_be_made_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"2 deltas for 1 image blocks"):
        document_positions(9, [(1, 2)], [1.0, 1.0])
    with pytest.raises(ConfigError, match=r"delta 2 is outside \(0, 1\]"):
        v2pe_deltas("v2pe_fix", 1, 2)
    with pytest.raises(ConfigError, match=r"unknown position mode 'v2pe'; expected default, v2pe_fix or v2pe_rnd"):
        v2pe_deltas("v2pe", 1)
    with pytest.raises(ConfigError, match=r"give a random\.Random as rng"):
        v2pe_deltas("v2pe_rnd", 1)


# --- dynamic NTK: base * (s L / M - (s - 1)) ^ (d / (d - 2)) beyond M ---------------------------------------------------


def test_dynamic_ntk_changes_nothing_up_to_the_trained_length(make_decoder) -> None:
    plain = make_decoder(max_positions=16)
    scaled = make_decoder(max_positions=16, rope_scaling="dynamic", rope_factor=3.0)
    embeds = plain.embed(torch.arange(16))
    assert torch.equal(scaled(embeds, torch.arange(16), [0, 16]), plain(embeds, torch.arange(16), [0, 16]))


@pytest.mark.parametrize(("length", "factor"), [(17, 2.0), (40, 2.0), (33, 4.0)])
def test_dynamic_ntk_beyond_the_trained_length_is_the_hand_formula(make_decoder, length, factor) -> None:
    trained, theta, width = 16, 10_000.0, 8
    scaled = make_decoder(max_positions=trained, rope_theta=theta, rope_scaling="dynamic", rope_factor=factor)
    base = theta * (factor * length / trained - (factor - 1)) ** (width / (width - 2))
    by_hand = make_decoder(max_positions=trained, rope_theta=base)
    ids, positions = torch.arange(length) % 97, torch.arange(length)
    embeds = scaled.embed(ids)
    torch.testing.assert_close(
        scaled(embeds, positions, [0, length]), by_hand(embeds, positions, [0, length]), rtol=0, atol=2e-5
    )
    plain = make_decoder(max_positions=trained, rope_theta=theta)
    assert (plain(embeds, positions, [0, length]) - scaled(embeds, positions, [0, length])).abs().max() > 1e-3


def test_dynamic_ntk_of_one_document_leaves_the_others_of_its_pack_alone(make_decoder, pack_documents) -> None:
    decoder = make_decoder(max_positions=16, rope_scaling="dynamic")
    long, short = torch.arange(40) % 97, torch.arange(12)
    ids, positions, borders = pack_documents([short, long])
    packed = decoder(decoder.embed(ids), positions, borders)
    for document, rows in ((short, packed[:12]), (long, packed[12:])):
        alone = decoder(decoder.embed(document), torch.arange(len(document)), [0, len(document)])
        torch.testing.assert_close(rows, alone, rtol=0, atol=1e-5)


# --- unshuffle ---------------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(1, 5), columns=st.integers(1, 5), factor=st.integers(1, 3), tiles=st.integers(1, 3))
def test_unshuffling_is_the_published_permutation(rows, columns, factor, tiles) -> None:
    h, w = rows * factor, columns * factor
    index = torch.arange(tiles * h * w * 2).view(tiles, h, w, 2)
    cells = {}
    for r in range(rows):
        for c in range(columns):
            inner = [
                index[:, factor * r + dr, factor * c + dc] for dr in range(factor) for dc in range(factor)
            ]  # row by row inside a cell, channels innermost
            cells[r, c] = torch.cat(inner, dim=-1)
    by_rows = [cells[r, c] for r in range(rows) for c in range(columns)]
    by_columns = [cells[r, c] for c in range(columns) for r in range(rows)]
    assert torch.equal(pixel_unshuffle(index, factor, "v2"), torch.stack(by_rows, 1))
    assert torch.equal(pixel_unshuffle(index, factor, "v1"), torch.stack(by_columns, 1))


def test_the_two_orders_are_transposed_grids() -> None:
    index = torch.arange(2 * 8 * 8 * 3).view(2, 8, 8, 3)
    first, second = (pixel_unshuffle(index, 2, order).view(2, 4, 4, 12) for order in ("v1", "v2"))
    assert torch.equal(first, second.transpose(1, 2))
    assert not torch.equal(first, second)
    assert sorted(second.flatten().tolist()) == index.flatten().tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotation_and_its_gradient_are_those_of_the_readable_form(dtype) -> None:
    torch.manual_seed(4)
    cos, sin = rotary_table(torch.arange(6), 8, 1000.0, dtype)
    grad = torch.randn(6, 3, 8).to(dtype)
    results = []
    for form in (lambda x: rotate(x, cos, sin), lambda x: rotate_plainly(x, cos[:, None], sin[:, None])):
        x = torch.linspace(-3, 3, 6 * 3 * 8).view(6, 3, 8).to(dtype).requires_grad_()
        y = form(x)
        y.backward(grad)
        results.append((y.detach(), x.grad))
    tolerance = {"atol": 1e-6, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.03, "rtol": 0.02}
    for fast, readable in zip(*results, strict=True):
        torch.testing.assert_close(fast, readable, **tolerance)
