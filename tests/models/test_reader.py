"""The reader: cells line up with places, and its greedy reading keeps order and doubled letters."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from vedere.models.reader import CELL, CHARACTERS, CLASSES, Reader, read_cells


def test_cells_and_channels() -> None:
    torch.manual_seed(0)
    reader = Reader()
    pixels = torch.randn(2, 3, 64, 96)
    logits = reader.logits(pixels)
    assert logits.shape == (2, CLASSES + 1, 8, 12)
    features = reader(pixels)
    assert features.shape == (2, Reader.channels, 4, 6)
    cells = torch.nn.functional.pixel_shuffle(features, 2)
    torch.testing.assert_close(cells[:, :CLASSES].sum(1), torch.ones(2, 8, 12))
    torch.testing.assert_close(cells[:, CLASSES], logits[:, CLASSES].sigmoid())
    assert sum(parameter.numel() for parameter in reader.parameters()) < 1.2e6


def test_a_batch_changes_nothing() -> None:
    torch.manual_seed(1)
    reader = Reader().eval()
    pixels = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(reader(pixels)[1:2], reader(pixels[1:2]), atol=1e-6, rtol=1e-5)


@given(st.text(st.sampled_from(CHARACTERS), min_size=1, max_size=9), st.integers(0, 4))
def test_reading_undoes_writing(text: str, row: int) -> None:
    """Characters two cells wide, all in one row of cells: what was written is read, doubled letters included."""
    logits = torch.full((CLASSES + 1, 5, 20), -4.0)
    for place, character in enumerate(text):
        logits[1 + CHARACTERS.index(character), row, 2 * place : 2 * place + 2] = 4.0
        logits[CLASSES, row, 2 * place] = 4.0
    assert read_cells(logits) == text


def test_nothing_is_read_where_nothing_stands() -> None:
    assert read_cells(torch.full((CLASSES + 1, 5, 5), -3.0)) == ""
    assert CELL == 8
