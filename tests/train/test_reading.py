"""Training of the reader: labels stand where characters stand, and a few steps teach something."""

from __future__ import annotations

import json
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vedere.data.build import typefaces as faces
from vedere.models.reader import CHARACTERS, CLASSES, NOTHING, Reader
from vedere.models.shards import read_file
from vedere.models.transcript import read_lines
from vedere.train.reading import ReadingConfig, label_cells, measure, reading_loss, render_example, train_reader


@pytest.fixture(autouse=True)
def local_typefaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The typefaces that are on every computer: no test fetches one."""
    monkeypatch.setattr(faces, "all_typefaces", faces.local_typefaces)


@given(
    st.lists(st.tuples(st.sampled_from(CHARACTERS), st.integers(0, 17), st.integers(1, 3)), min_size=1, max_size=6),
    st.sampled_from([(160, 160), (320, 96), (100, 200)]),
)
def test_every_character_has_exactly_one_middle_column(places, size) -> None:
    characters, column = [], 0
    for character, _, width in places:  # side by side, each a few cells wide
        left, right = column / 20 * size[0], (column + width) / 20 * size[0]
        characters.append((character, (left, 0.3 * size[1], right, 0.6 * size[1])))
        column += width
    classes, middle = label_cells(characters, size, 160)
    assert classes.shape == middle.shape == (20, 20)
    row = classes[8]
    assert int(middle[8].sum()) == len(places)
    labels = [int(value) for value in row[middle[8] == 1]]
    assert labels == [CHARACTERS.index(character) + 1 for character, _, _ in places]
    assert bool((classes[:5] == NOTHING).all())
    assert bool((classes[13:] == NOTHING).all())


def test_a_narrow_character_still_labels_a_cell() -> None:
    classes, middle = label_cells([("i", (81.0, 70.0, 83.0, 72.0))], (160, 160), 160)
    assert classes.nonzero().tolist() == middle.nonzero().tolist() == [[8, 10]]
    assert int(label_cells([("é", (0, 0, 50, 50))], (160, 160), 160)[0].sum()) == 0


def test_perfect_logits_read_the_text() -> None:
    """Labels of rendered lines, taken for answers, give back what was drawn: the measure can reach 1."""
    read = total = 0
    for number in range(40):
        _, classes, middle, text = render_example("heldout", 3, number, 160)
        logits = torch.nn.functional.one_hot(classes, CLASSES).permute(2, 0, 1) * 9.0 - 4.0
        total += 1
        chances = Reader.chances(torch.cat([logits, middle[None] * 9.0 - 4.0])[None])[0]
        read += " ".join(line.text for line in read_lines(chances)) == text
    assert read >= 0.85 * total


def test_examples_follow_from_their_numbers() -> None:
    first, second, other = (render_example("train", 0, number, 160) for number in (4, 4, 5))
    assert all(torch.equal(a, b) for a, b in zip(first[:3], second[:3], strict=True))
    assert not torch.equal(first[0], other[0])


def test_a_perfect_answer_costs_nothing() -> None:
    classes = torch.tensor([[[0, 3]]])
    middle = torch.tensor([[[0.0, 1.0]]])
    good = torch.full((1, CLASSES + 1, 1, 2), -30.0)
    good[0, 0, 0, 0] = good[0, 3, 0, 1] = good[0, CLASSES, 0, 1] = 30.0
    assert float(reading_loss(good, classes, middle)) < 1e-6
    assert float(reading_loss(-good, classes, middle)) > 10


def test_training_writes_weights_and_figures_and_goes_on(tmp_path) -> None:
    random.seed(0)
    ticks = iter(range(10_000))
    config = ReadingConfig(side=64, batch=8, minutes=0.2, workers=0)
    out, said = tmp_path / "reader.safetensors", []
    figures = train_reader(config, out, said.append, clock=lambda: float(next(ticks)))
    lines = [json.loads(line) for line in out.with_suffix(".jsonl").read_text().splitlines()]
    assert lines[-1] == figures
    assert 0 <= figures["exact"] <= 1
    reader = Reader()
    reader.load_state_dict(read_file(out)[0])
    assert measure(reader, config, 20)["lines"] == 20
    train_reader(config, out, said.append, clock=lambda: float(next(ticks)))
    assert any(line.startswith("going on from") for line in said)
