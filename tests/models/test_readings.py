"""Several readings of a tile: the text that most of them agree on, and only other places for what all read alike."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_transcript import by_two, model_of, written

from vedere.errors import ConfigError
from vedere.models.patches import PatchConfig
from vedere.models.reader import CELL, Reader
from vedere.models.readings import agreed, read_tiles
from vedere.models.transcript import Character, Line, Reading


def reading(text: str, sureness: float, cells: int = 20) -> Reading:
    characters = tuple(
        Character(text=letter, top=2, bottom=4, column=2.0 * place, weight=2 * sureness)
        for place, letter in enumerate(text)
    )
    return Reading(lines=(Line(characters=characters, spaces=frozenset()),) if text else (), cells=cells)


READINGS = st.lists(
    st.builds(reading, st.text("abc", max_size=3), st.floats(0.3, 1.0), st.integers(10, 40)), min_size=1, max_size=6
)


@given(READINGS)
def test_one_of_the_readings_is_agreed_on_and_none_of_its_text_is_surer(readings: list[Reading]) -> None:
    found = agreed(readings)
    assert found in readings
    assert all(other.sureness <= found.sureness for other in readings if other.text == found.text)


@given(READINGS, st.integers(0, 5))
def test_a_further_voice_never_makes_its_own_text_lose(readings: list[Reading], number: int) -> None:
    winner = agreed(readings)
    assert agreed([*readings, winner]).text == winner.text
    loser = readings[number % len(readings)]
    assert agreed([*readings, *[loser] * 400]).text == loser.text


def test_many_doubts_yield_to_two_that_agree() -> None:
    right = [reading("harbor", 0.8), reading("harbor", 0.9, cells=32)]
    wrong = [reading("horbor", 0.85), reading("harbar", 0.7), reading("", 0.0)]
    found = agreed([*wrong, *right])
    assert (found.text, found.cells) == ("harbor", 32)
    assert agreed([reading("E", 0.7), reading("", 0.0)]).text == ""  # a doubtful letter against silence
    assert agreed([reading("E", 0.9), reading("", 0.0)]).text == "E"


def test_each_scale_is_read_once_and_the_own_size_not_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = []

    def logits(self: Reader, pixels: torch.Tensor) -> torch.Tensor:
        sides.append(tuple(pixels.shape[-2:]))
        return torch.zeros(len(pixels), 75, pixels.shape[-2] // CELL, pixels.shape[-1] // CELL)

    monkeypatch.setattr(Reader, "logits", logits)
    chances = torch.stack([written([(0, 3, ["abcd"])]), written([])])
    features = torch.nn.functional.pixel_unshuffle(chances, 2).permute(0, 2, 3, 1)
    found = read_tiles(Reader(), torch.randn(2, 3, 192, 192), features, (1.0, 0.8, 1.37))
    assert sides == [(152, 152), (264, 264)]
    assert [each.text for each in found] == ["abcd", ""]
    assert found[0].cells == 24


@torch.no_grad()
def test_readings_that_agree_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A larger size that reads the same text at the same places gives the same visual tokens."""

    def logits(self: Reader, pixels: torch.Tensor) -> torch.Tensor:
        grown = pixels.shape[-1] // 192
        chances = written([(0, 3 * grown, ["abcd"])], cells=24) if grown == 1 else twice
        return torch.logit(chances.clamp(1e-6, 1 - 1e-6))[None].expand(len(pixels), -1, -1, -1)

    small = written([(0, 3, ["abcd"])])
    twice = small.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    twice[-1, :, 1::2] = 0  # still one middle column a character
    monkeypatch.setattr(Reader, "logits", logits)
    monkeypatch.setattr(Reader, "chances", staticmethod(torch.sigmoid))
    pixels = torch.randn(1, 3, 192, 192)
    once = model_of(transcript=True)
    several = model_of(transcript=True, reading_scales=(2.0, 1.0))  # of equal ones the first
    several.load_state_dict(once.state_dict())
    for model in (once, several):
        model.cut_with(by_two)
    torch.testing.assert_close(several.encode(pixels), once.encode(pixels))


@pytest.mark.parametrize("scales", [(), (1.0, 0.0), (9.0,), (float("nan"),)])
def test_scales_that_nothing_is_read_at_are_refused(scales: tuple[float, ...]) -> None:
    with pytest.raises(
        ConfigError, match=r"reading_scales .*: expected at least one share of the tile's size from 0\.25 to 4"
    ):
        PatchConfig(width=8, patch=16, tile=64, stem=("reader",), transcript=True, reading_scales=scales)
