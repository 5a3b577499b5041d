"""The namer: what it says is the likeliest name, and the model gets the pieces of that name where no text is read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from vedere.errors import CheckpointError, ConfigError
from vedere.models.checkpoints import load_model, save_model
from vedere.models.decoder import DecoderConfig
from vedere.models.mono_internvl import MonoInternVL, MonoInternVLConfig
from vedere.models.namer import NAMES, NOTHING, Namer, read_namer
from vedere.models.patches import PatchConfig
from vedere.models.quantized import Weights, pack_weights
from vedere.models.stem import EfficientNetLite0, stem_shapes
from vedere.models.transcript import HINT, Piece, Reading, Transcriber, place_name, read_lines

NAMED = ("a cat", "dog", "one two three four five")


def cut(text: str) -> list[tuple[int, str]]:
    return [(number + 7, piece) for number, piece in enumerate(re.findall(r" ?\w+", text))]


def test_the_map_reads_mean_and_maximum() -> None:
    torch.manual_seed(0)
    namer, features = Namer(3, 5), torch.randn(2, 4, 4, 5)
    cells = features.view(2, 16, 5)
    pooled = torch.cat([cells.sum(1) / 16, cells.max(1).values], dim=1)
    expected = pooled @ namer.map.weight.T + namer.map.bias
    torch.testing.assert_close(namer(features), expected)


def test_the_likeliest_name_is_told_unless_nothing_is_likely() -> None:
    namer = Namer(3, 2)
    torch.nn.init.zeros_(namer.map.weight)

    def told(*chances: float) -> list[str]:
        namer.map.bias.data = torch.tensor(chances).log()
        return namer.tell(torch.zeros(2, 1, 1, 2), NAMED)

    assert told(0.1, 0.2, 0.6, 0.1) == ["dog", "dog"]
    assert told(0.6, 0.2, 0.1, 0.1) == ["", ""]
    rest = (1 - NOTHING) / 3
    assert told(NOTHING + 0.01, rest - 0.02, rest - 0.01, rest + 0.02) == ["", ""]
    assert told(NOTHING - 0.01, rest, rest - 0.01, rest + 0.02) == [NAMED[2]] * 2


@pytest.mark.parametrize(
    ("name", "slots"), [("dog", [12]), ("a cat", [11, 12]), ("", []), ("w " * 30, list(range(25)))]
)
def test_a_name_stands_in_the_middle(name: str, slots: list[int]) -> None:
    pieces = place_name(name.strip(), cut, 5)
    assert [piece.slot for piece in pieces] == slots
    assert [piece.token for piece in pieces] == [token for token, _ in cut(name.strip())][:25]


def test_a_name_stands_around_the_text_that_is_read() -> None:
    from test_transcript import by_two, written

    read = [Reading(lines=read_lines(written(lines)), cells=24) for lines in ([(0, 3, ["abcd"])], [])]
    both, tokens = Transcriber(by_two, 6)(read, ["abcd", "ab"])
    assert both.tolist() == [0, 1, 18, 19, 36 + 17]
    assert tokens.tolist() == [0, 1, 0, 1, 0]


@given(st.sets(st.integers(0, 24)), st.text("ab ", max_size=60))
def test_pieces_of_name_and_text_never_share_a_slot(taken: set[int], name: str) -> None:
    text = [Piece(token=1, slot=slot) for slot in sorted(taken)]
    slots = [piece.slot for piece in place_name(name, cut, 5, text)]
    assert slots == sorted(set(slots) - taken)
    assert len(slots) == min(len(cut(name)), 25 - len(taken))


def model_of(names: tuple[str, ...]) -> MonoInternVL:
    torch.manual_seed(0)
    decoder = DecoderConfig(hidden_size=16, ffn_size=24, layers=1, heads=2, kv_heads=1, head_dim=8, vocab_size=99)
    vision = PatchConfig(width=12, patch=16, tile=64, stem=("lite0",), names=names)
    return MonoInternVL(MonoInternVLConfig(vision=vision, decoder=decoder)).eval()


@torch.no_grad()
@pytest.mark.parametrize("form", ["bf16", "bf16-single", "int8"])
def test_names_are_told_in_every_form_of_the_weights(form: Weights) -> None:
    model = model_of(NAMED).bfloat16()
    model.cut_with(cut)
    pixels = torch.randn(2, 3, 64, 64).bfloat16()
    before = model.encode(pixels)
    after = pack_weights(model, form).encode(pixels)
    assert (after - before).float().norm() <= 0.02 * before.float().norm()


@torch.no_grad()
def test_the_pieces_of_a_name_take_the_middle_and_all_else_stays(tmp_path: Path) -> None:
    plain, model = model_of(()), model_of(NAMED)
    model.load_state_dict(plain.state_dict(), strict=False)
    model.stem.namer.map.weight.zero_()
    model.stem.namer.map.bias.copy_(torch.tensor([0.0, 9.0, 0.0, 0.0]))
    pixels = torch.randn(2, 3, 64, 64)
    with pytest.raises(ConfigError, match=r"has no tokenizer for it; load it with vedere\.load"):
        model.encode(pixels)
    model.cut_with(cut)
    seen, found = plain.encode(pixels), model.encode(pixels)
    expected = seen.clone()  # four visual tokens, the two pieces of "a cat" in the middle two
    for tile in (0, 1):
        for number in (0, 1):
            own, hint = model.decoder.embed.weight[7 + number], seen[tile, 1 + number]
            expected[tile, 1 + number] = own + HINT * own.norm() * hint / hint.norm()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)

    save_model(model, tmp_path)
    again = load_model(tmp_path).eval()
    assert isinstance(again, MonoInternVL)
    assert again.config.vision.names == NAMED
    again.cut_with(cut)
    assert torch.equal(again.encode(pixels), found)


def test_names_need_the_part_of_the_stem_that_tells_them() -> None:
    with pytest.raises(ConfigError, match=r"names are told by lite0, and the stem is \['reader'\]; add lite0"):
        PatchConfig(width=8, patch=16, tile=64, stem=("reader",), names=("cat",))


def test_shapes_know_the_namer() -> None:
    more = stem_shapes(("lite0",), 3).items() - stem_shapes(("lite0",)).items()
    width = 2 * EfficientNetLite0.channels
    assert more == {("namer.map.weight", (4, width)), ("namer.map.bias", (4,))}


def test_the_shipped_namer_knows_a_thousand_names_once_each() -> None:
    names, weights = read_namer()
    assert len(names) > 1000
    assert len(set(names)) == len(names)
    assert {"crocodile", "dress"} <= set(names)
    assert weights["map.weight"].shape == (1 + len(names), 2 * EfficientNetLite0.channels)


@pytest.mark.parametrize("names", [None, "[", "[]", '["one"]'])
def test_a_file_without_its_names_is_refused(tmp_path: Path, names: str | None) -> None:
    path = tmp_path / "namer.safetensors"
    metadata = None if names is None else {NAMES: names}
    save_file({"map.weight": torch.zeros(3, 4), "map.bias": torch.zeros(3)}, path, metadata=metadata)
    count = len(json.loads(names)) if names and names != "[" else 0
    with pytest.raises(CheckpointError, match=rf"holds {count} names and 3 rows of weights; expected one row more"):
        read_namer(path)
