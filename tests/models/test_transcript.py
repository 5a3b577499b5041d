"""The transcript: reading undoes writing, pieces keep their order, and the model gets exactly their embeddings."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vedere.errors import ConfigError
from vedere.models.decoder import DecoderConfig
from vedere.models.mono_internvl import MonoInternVL, MonoInternVLConfig
from vedere.models.patches import PatchConfig
from vedere.models.reader import CHARACTERS, CLASSES, Reader
from vedere.models.transcript import HINT, place_pieces, read_lines

WORDS = st.lists(st.text(st.sampled_from(CHARACTERS), min_size=1, max_size=4), min_size=1, max_size=2).filter(
    lambda words: sum(map(len, words)) > 2
)


def written(lines: list[tuple[int, int, list[str]]], cells: int = 24) -> Tensor:
    """Sure logits of lines (first row, rows, words): characters two cells wide, a space of two cells."""
    logits = torch.full((1, CLASSES + 1, cells, cells), -8.0)
    logits[:, 0] = 4.0
    for row, height, words in lines:
        column = 0
        for word in words:
            for character in word:
                under = (slice(row, row + height), slice(column, column + 2))
                logits[(0, 0, *under)] = -8.0
                logits[(0, 1 + CHARACTERS.index(character), *under)] = 8.0
                logits[0, CLASSES, row : row + height, column] = 8.0
                column += 2
            column += 2
    return Reader.chances(logits)[0]


@given(WORDS, st.integers(0, 4), st.integers(1, 5))
def test_reading_undoes_writing(words: list[str], row: int, height: int) -> None:
    """Doubled letters and spaces included, whatever the height of the line (a space is wide for its height)."""
    text = " ".join(line.text for line in read_lines(written([(row, height, words)])))
    assert text == " ".join(words)


@given(WORDS, WORDS, st.integers(1, 4), st.integers(1, 3))
def test_lines_come_from_top_to_bottom(first: list[str], second: list[str], height: int, gap: int) -> None:
    found = read_lines(written([(0, height, first), (height + gap, height, second)]))
    assert [line.text for line in found] == [" ".join(first), " ".join(second)]


def test_nothing_and_single_doubts_are_not_read() -> None:
    assert read_lines(written([])) == ()
    sure = written([(3, 2, ["a"])])
    assert [line.text for line in read_lines(sure)] == ["a"]
    assert read_lines(sure * 0.7) == ()


def by_two(text: str) -> list[tuple[int, str]]:
    return [(number, piece) for number, piece in enumerate(re.findall(r" ?..?", text))]


@given(st.lists(WORDS, min_size=1, max_size=4), st.integers(2, 6))
def test_slots_rise_and_the_first_pieces_come_first(lines: list[list[str]], side: int) -> None:
    read = read_lines(written([(6 * number, 3, words) for number, words in enumerate(lines)]))
    pieces = place_pieces(read, by_two, 24, side)
    slots = [piece.slot for piece in pieces]
    assert slots == sorted(set(slots))
    assert not slots or 0 <= slots[0] <= slots[-1] < side**2
    whole = by_two(" ".join(line.text for line in read))
    assert [piece.token for piece in pieces] == [index for index, _ in whole][: side**2]


def test_a_piece_stands_where_its_characters_stand() -> None:
    pieces = place_pieces(read_lines(written([(10, 3, ["abcdef"])])), by_two, 24, 6)
    assert [piece.slot for piece in pieces] == [12, 13, 14]  # row 11.5 of 24 is the third of six; columns 1, 5, 9
    crowded = place_pieces(read_lines(written([(21, 3, ["abcdefgh"])])), by_two, 24, 2)
    assert [piece.slot for piece in crowded] == [0, 1, 2, 3]


def model_of(transcript: bool, reading_scales: tuple[float, ...] = (1.0,)) -> MonoInternVL:
    torch.manual_seed(0)
    decoder = DecoderConfig(hidden_size=16, ffn_size=24, layers=1, heads=2, kv_heads=1, head_dim=8, vocab_size=99)
    vision = PatchConfig(
        width=12, patch=16, tile=192, stem=("reader",), transcript=transcript, reading_scales=reading_scales
    )
    return MonoInternVL(MonoInternVLConfig(vision=vision, decoder=decoder)).eval()


@torch.no_grad()
def test_pieces_take_their_places_and_all_else_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    chances = torch.stack([written([(0, 3, ["abcd"])]), written([(12, 3, ["xyz"])])])
    monkeypatch.setattr(Reader, "forward", lambda self, pixels: torch.nn.functional.pixel_unshuffle(chances, 2))
    pixels = torch.randn(2, 3, 192, 192)
    plain, model = model_of(transcript=False), model_of(transcript=True)
    model.load_state_dict(plain.state_dict())
    with pytest.raises(
        ConfigError, match=r"has no tokenizer for it; load it with vedere\.load, or call model\.cut_with"
    ):
        model.encode(pixels)
    model.cut_with(by_two)
    seen, found = plain.encode(pixels), model.encode(pixels)
    expected = seen.clone()
    for tile, first in ((0, 0), (1, 18)):
        for piece in (0, 1):
            own, hint = model.decoder.embed.weight[piece], seen[tile, first + piece]
            expected[tile, first + piece] = own + HINT * own.norm() * hint / hint.norm()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_transcript_needs_a_reader() -> None:
    with pytest.raises(ConfigError, match=r"a transcript needs a reader, and the stem is \['lite0'\]; add reader"):
        PatchConfig(width=8, patch=16, tile=64, stem=("lite0",), transcript=True)
