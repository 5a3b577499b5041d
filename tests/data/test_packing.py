"""Laws of the packer (nothing lost, doubled or split; limits; exact continuation) and of collation."""

import json
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedere.data.packing import BinPacker, Document, PackLimits, check_document, collate, first_fit
from vedere.errors import ConfigError, RecordError
from vedere.plan import SpanKind
from vedere.text.render import Span

LIMITS = PackLimits(tokens=100, tiles=6, open_bins=4, close_at=0.95)
sizes_of_a_stream = st.lists(st.tuples(st.integers(1, 100), st.integers(0, 6)), max_size=80)


def pack_all(packer, stream, first=0):
    """(packs, packs + bins left over) of a stream of sizes, items being indices."""
    packs = []
    for index, (tokens, tiles) in enumerate(stream, first):
        leaving = packer.add(tokens, tiles, index)
        if leaving is not None:
            packs.append(leaving)
    return packs


def flush_all(packer):
    packs = []
    while (leaving := packer.flush()) is not None:
        packs.append(leaving)
    return packs


@settings(max_examples=60, deadline=None)
@given(stream=sizes_of_a_stream)
def test_every_item_is_packed_once_within_the_limits(stream):
    packer = BinPacker(LIMITS)
    packs = []
    for index, (tokens, tiles) in enumerate(stream):
        leaving = packer.add(tokens, tiles, index)
        packs += [leaving] if leaving else []
        assert len(packer.bins()) <= LIMITS.open_bins
    packs += flush_all(packer)
    assert Counter(item for pack in packs for item in pack) == Counter(range(len(stream)))
    for pack in packs:
        assert pack == sorted(pack)  # order of arrival
        assert sum(stream[item][0] for item in pack) <= LIMITS.tokens
        assert sum(stream[item][1] for item in pack) <= LIMITS.tiles


@settings(max_examples=60, deadline=None)
@given(stream=sizes_of_a_stream, cut=st.integers(0, 80))
def test_continuing_from_a_snapshot_equals_never_stopping(stream, cut):
    cut = min(cut, len(stream))
    whole = BinPacker(LIMITS)
    expected = pack_all(whole, stream[:cut])
    before = len(expected)
    snapshot = json.loads(json.dumps(whole.bins()))
    expected += pack_all(whole, stream[cut:], cut) + flush_all(whole)
    continued = BinPacker(LIMITS)
    continued.restore([[tuple(entry) for entry in content] for content in snapshot])
    assert pack_all(continued, stream[cut:], cut) + flush_all(continued) == expected[before:]


@settings(max_examples=30, deadline=None)
@given(stream=sizes_of_a_stream)
def test_the_published_algorithm_loses_nothing_either(stream):
    packs = list(first_fit(stream, LIMITS))
    assert Counter(item for pack in packs for item in pack) == Counter(range(len(stream)))
    for pack in packs:
        assert sum(stream[item][0] for item in pack) <= LIMITS.tokens
        assert sum(stream[item][1] for item in pack) <= LIMITS.tiles


def skewed(count, seed=0):
    rng = random.Random(seed)
    return [int(min(2000, max(20, rng.lognormvariate(5.3, 1.0)))) for _ in range(count)]


@pytest.mark.parametrize("tiles_bind", [False, True])
def test_a_skewed_stream_fills_at_least_95_percent(tiles_bind):
    rng = random.Random(1)
    limits = PackLimits(tokens=4096, tiles=14)
    stream = []
    for text in skewed(8000):
        tiles = rng.choice([0, 0, 1, 1, 1, 2, 3, 5, 7]) if tiles_bind else 0
        stream.append((min(4000, text // 3 + 258 * tiles) if tiles else text, tiles))
    packs = pack_all(BinPacker(limits), stream)
    tokens = sum(stream[item][0] for pack in packs for item in pack) / (limits.tokens * len(packs))
    tiles = sum(stream[item][1] for pack in packs for item in pack) / (limits.tiles * len(packs))
    assert max(tokens, tiles) >= 0.95
    reference = list(first_fit(stream, PackLimits(tokens=4096, tiles=14, open_bins=20)))
    assert len(packs) <= 1.01 * len(reference)


def test_what_fits_no_pack_is_named_and_changes_nothing():
    packer = BinPacker(LIMITS)
    packer.add(60, 1, "a")
    before = packer.bins()
    with pytest.raises(RecordError, match=r"sample 'long one' has 101 tokens, a pack holds 100; raise"):
        packer.add(101, 0, "b", "long one")
    with pytest.raises(RecordError, match=r"sample 'wide one' has 7 tiles, a pack holds 6; raise"):
        packer.add(50, 7, "b", "wide one")
    with pytest.raises(RecordError, match=r"sample 'empty' has no tokens"):
        packer.add(0, 0, "b", "empty")
    assert packer.bins() == before


def test_limits_that_nothing_meets_are_refused():
    with pytest.raises(ConfigError, match="expected tokens >= 1"):
        PackLimits(tokens=0)
    with pytest.raises(ConfigError, match="0 < close_at <= 1"):
        PackLimits(close_at=1.5)


# ------------------------------------------------------------------------------------------------------------ collation

PER_TILE = 4


def document(name="a", text=3, tiles=(1,), side=8, fill=1, hd=False):
    """A document of pictures with the given tiles (or as many in a grid, and a global view), ``text`` tokens around each."""
    types, spans = [0] * text, []
    for media, count in enumerate([count + hd for count in tiles]):
        spans.append(Span(media, 0, len(types), PER_TILE * count, SpanKind.VISUAL))
        types += [1] * PER_TILE * count + [0] * text
    ids = np.arange(len(types)) + 100 * fill
    return Document(
        name=name,
        ids=ids,
        labels=np.where(np.array(types) == 0, ids, -100),
        span_types=np.array(types, np.uint8),
        spans=tuple(spans),
        tiles=np.full((sum(tiles), 3, side, side), fill, np.uint8),
        grids=tuple((count, 1) for count in tiles) if hd else (),
        weight=fill / 2,
    )


@settings(max_examples=30, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 5), st.lists(st.integers(1, 3), max_size=3)), min_size=1, max_size=6),
    hd=st.booleans(),
)
def test_a_pack_is_its_documents_one_after_the_other(shapes, hd):
    documents = [document(f"d{k}", text, tuple(tiles), fill=k + 1, hd=hd) for k, (text, tiles) in enumerate(shapes)]
    pack = collate(documents)
    assert pack.grids == tuple((count, 1) for _, tiles in shapes for count in tiles if hd)
    assert len(pack.tiles) + len(pack.grids) == sum(item.tile_count for item in documents)
    assert pack.segments.dtype == np.int32
    assert pack.names == tuple(item.name for item in documents)
    np.testing.assert_array_equal(pack.weights, [item.weight for item in documents])
    tile, media = 0, 0
    for item, start, end in zip(documents, pack.segments[:-1], pack.segments[1:], strict=True):
        np.testing.assert_array_equal(pack.ids[start:end], item.ids)
        np.testing.assert_array_equal(pack.span_types[start:end], item.span_types)
        assert pack.labels[start] == -100
        np.testing.assert_array_equal(pack.labels[start + 1 : end], item.labels[1:])
        np.testing.assert_array_equal(pack.tiles[tile : tile + len(item.tiles)], item.tiles)
        tile += len(item.tiles)
        for span in item.spans:
            assert span._replace(media=span.media + media, start=span.start + start) in pack.spans
        media += len(item.spans)
    assert pack.segments[-1] == len(pack.ids)
    assert tile == len(pack.tiles)
    covered = np.zeros(len(pack.ids), np.uint8)
    for span in pack.spans:
        covered[span.start : span.start + span.length] += 1
    np.testing.assert_array_equal(covered, pack.span_types)


def change(item, **changes):
    return Document(**{**vars(item), **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tiles": np.zeros((3, 3, 8, 8), np.uint8)}, "sample 'a' has 3 tiles but 4 visual tokens"),
        ({"tiles": np.zeros((0, 3, 8, 8), np.uint8)}, "sample 'a' has 0 tiles but 4 visual tokens"),
        ({"tiles": np.zeros((1, 3, 8, 8), np.float32)}, r"expected uint8 \[N, 3, S, S\]"),
        ({"grids": ((1, 2),)}, "sample 'a' has 1 tiles for grids of 2; plan and pixels"),
        ({"spans": ()}, "sample 'a' has 4 visual tokens but spans for 0"),
        ({"labels": np.zeros(2, np.int64)}, "sample 'a' has 10 ids, 2 labels, 10 span types"),
    ],
)
def test_a_document_that_disagrees_with_itself_is_named(changes, message):
    with pytest.raises(RecordError, match=message):
        collate([document("b"), change(document("a"), **changes)])


def test_tiles_without_visual_tokens_are_an_error():
    text = document("a", tiles=())
    with pytest.raises(RecordError, match="sample 'a' has 2 tiles but 0 visual tokens"):
        check_document(change(text, tiles=np.zeros((2, 3, 8, 8), np.uint8)))


def test_a_known_number_of_tokens_per_tile_is_checked():
    check_document(document(tiles=(2,)), PER_TILE)
    with pytest.raises(RecordError, match="1 tiles of 16 tokens but 4 visual tokens"):
        check_document(document(), 16)
    with pytest.raises(RecordError, match="2 tiles of 4 tokens but 4 visual tokens"):
        check_document(change(document(), grids=((1, 1),)), PER_TILE)


def test_documents_of_two_policies_do_not_mix():
    with pytest.raises(RecordError, match=r"sample 'b' has 4 visual tokens for 1 tiles of \(3, 16, 16\)"):
        collate([document("a"), document("t", tiles=()), document("b", side=16)])
    other = change(document("b", tiles=(2,)), tiles=np.zeros((1, 3, 8, 8), np.uint8))  # 8 tokens a tile
    with pytest.raises(RecordError, match=r"sample 'b' has 8 visual tokens for 1 tiles.*have 4 a tile"):
        collate([document("a"), other])


def test_tiles_with_and_without_global_views_do_not_mix():
    hd, plain = document("h", hd=True), document("p", tiles=(2,))
    for first, second, words in (
        (hd, plain, r"for 2 tiles of \(3, 8, 8\); .* with global views: all data sets"),
        (plain, hd, r"for 2 tiles of \(3, 8, 8\) with global views; .*\): all data sets"),
    ):
        with pytest.raises(RecordError, match=words):
            collate([first, document("t", tiles=()), second])
    assert collate([document("t", tiles=()), hd]).grids == ((1, 1),)


def test_text_only_packs_have_no_tiles():
    pack = collate([document("a", tiles=()), document("b", tiles=())])
    assert pack.tiles.shape[0] == 0
    assert pack.spans == ()
    with pytest.raises(RecordError, match="no documents"):
        collate([])
