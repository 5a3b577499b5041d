"""What the reader reads, put into the visual tokens as the language model's own pieces (a help beyond the paper).

A small frozen language model knows words as pieces of its vocabulary and hardly as letters, so the characters of the stem's
reader (`vedere.models.reader`) alone teach it to read very slowly. Here they are joined to characters with a place, to lines
and to words; the text is cut into pieces as any text is, and each piece takes the visual token that it stands in, of which a
hint of what was seen remains (x being the token that it would be without):

    x_v[slot(i)] = E[piece_i] + HINT |E[piece_i]| x / |x|

Slots follow the reading order: a piece whose place is taken goes to the next one, so that text tokens and visual tokens hold
the same pieces in the same order and the language model can copy them as it copies text.

Nothing here learns. Cost: below 1 ms a picture of 160 px on the CPU.

Axes: K classes of the reader, h x w cells of 8 px, P visual tokens of a tile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vedere.models.reader import CHARACTERS, CLASSES

Cut = Callable[[str], Sequence[tuple[int, str]]]
"""Cuts a text into (id, text) of its pieces; the texts together are the text again."""
Array = np.ndarray[Any, Any]

HINT = 0.25
"""Length of what was seen in a visual token, beside that of the piece which stands in it."""
_MIDDLE = 0.45  # a cell is the middle of a character from this probability on
_OVERLAP = 0.4  # of the lower one's height: so much two neighbours of a line share
_GAP = 0.35  # of the line's height: a wider empty stretch is a space
_WEAK = 0.35  # a character less probable than this on average is not read
_SURE = 0.6  # a line of one or two characters is read from this probability on: patterns look like single characters
_RIVAL = 0.4  # of two answers for one place the weaker one is dropped below this share of the other
_REACH = 4.0  # line heights: the next character of a line is not farther away


@dataclass(frozen=True, kw_only=True)
class Character:
    """A character and the cells under it.

    Attributes:
        text: The character.
        top: First row of cells.
        bottom: One past the last row.
        column: Column of its middle.
        weight: Sum of the probabilities.
    """

    text: str
    top: int
    bottom: int
    column: float
    weight: float

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top


@dataclass(frozen=True, kw_only=True)
class Line:
    """Characters from left to right.

    Attributes:
        characters: At least one.
        spaces: Places before which a word begins, the first left out.
    """

    characters: tuple[Character, ...]
    spaces: frozenset[int]

    @property
    def text(self) -> str:
        """Words with a space between."""
        return "".join(" " * (i in self.spaces) + character.text for i, character in enumerate(self.characters))


def _peaks(chances: Array) -> tuple[Array, Array]:
    """Cells that are the middle of a character, and the likeliest character of each cell, ``[h, w]``."""
    middle, classes = chances[CLASSES], chances[1:CLASSES].argmax(0)
    left = np.pad(middle, ((0, 0), (1, 0)))[:, :-1]
    right = np.pad(middle, ((0, 0), (0, 1)))[:, 1:]
    other_left = np.pad(classes, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
    other_right = np.pad(classes, ((0, 0), (0, 1)), constant_values=-1)[:, 1:]
    peak = (middle > _MIDDLE) & ((middle >= left) | (classes != other_left))
    return peak & ((middle > right) | (classes != other_right)), classes  # one character may answer in two cells


def _joined_rows(peak: Array, classes: Array) -> Array:
    """Between which rows characters go on, ``[h - 1]``: there most middles have the same class above and below."""
    rows, columns = peak.shape
    joined = np.zeros(rows - 1, dtype=bool)
    for row in range(rows - 1):
        same = other = 0
        for column in np.flatnonzero(peak[row]):
            near = slice(max(0, column - 1), min(columns, column + 2))
            below = classes[row + 1, near][peak[row + 1, near]]
            if len(below):
                going_on = bool((below == classes[row, column]).any())
                same, other = same + going_on, other + (not going_on)
        joined[row] = same >= other and same + other > 0
    return joined


def _characters(chances: Array) -> list[Character]:
    """Middles that touch from row to row are one character, whose class is the likeliest of all its cells together."""
    peak, classes = _peaks(chances)
    joined = _joined_rows(peak, classes)
    runs: list[list[tuple[int, int]]] = []
    for row, column in np.argwhere(peak).tolist():
        touching = [run for run in runs if run[-1][0] == row - 1 and abs(run[-1][1] - column) <= 1 and joined[row - 1]]
        if touching:
            min(touching, key=lambda run: (classes[run[-1]] != classes[row, column], abs(run[-1][1] - column))).append(
                (row, column)
            )
        else:
            runs.append([(row, column)])
    found = []
    for run in runs:
        cells = np.stack([chances[1:CLASSES, r, c] * chances[CLASSES, r, c] for r, c in run])
        index = int(cells.sum(0).argmax())
        found.append(
            Character(
                text=CHARACTERS[index],
                top=run[0][0],
                bottom=run[-1][0] + 1,
                column=sum(c for _, c in run) / len(run),
                weight=float(cells[:, index].sum()),
            )
        )
    return found


def _without_rivals(characters: Sequence[Character]) -> list[Character]:
    """Of two answers for the same place the stronger one."""
    kept: list[Character] = []
    for character in sorted(characters, key=lambda c: -c.weight):
        rival = any(
            abs(other.column - character.column) <= 1
            and character.top <= other.bottom
            and other.top <= character.bottom
            and character.weight < _RIVAL * other.weight
            for other in kept
        )
        if not rival and character.weight / character.height > _WEAK:
            kept.append(character)
    return sorted(kept, key=lambda c: (c.column, c.top))


def _follows(last: Character, character: Character) -> bool:
    shared = min(last.bottom, character.bottom) - max(last.top, character.top)
    near = character.column - last.column <= _REACH * max(last.height, character.height, 2)
    return near and shared >= _OVERLAP * min(last.height, character.height) and character.column > last.column


def read_lines(chances: Tensor) -> tuple[Line, ...]:
    """The text of a picture.

    Args:
        chances: ``[K + 1, h, w]``: probabilities of the classes and of being a middle column.

    Returns:
        Its lines from top to bottom.
    """
    grid: Array = chances.detach().float().cpu().numpy()
    rows: list[list[Character]] = []
    for character in _without_rivals(_characters(grid)):
        fitting = [row for row in rows if _follows(row[-1], character)]
        if fitting:
            min(fitting, key=lambda row: abs(_centre(row[-1]) - _centre(character))).append(character)
        else:
            rows.append([character])
    rows = [row for row in rows if len(row) > 2 or _certainty(row) > _SURE]
    rows.sort(key=lambda row: sum(map(_centre, row)) / len(row))
    return tuple(Line(characters=tuple(row), spaces=_spaces(row, grid[0])) for row in rows)


def _certainty(row: Sequence[Character]) -> float:
    return sum(c.weight for c in row) / sum(c.height for c in row)


def _centre(character: Character) -> float:
    return (character.top + character.bottom) / 2


def _spaces(row: Sequence[Character], nothing: Array) -> frozenset[int]:
    """Places of a line where a space stands before the character: a stretch of cells without anything."""
    height = float(np.median([character.height for character in row]))
    found = set()
    for place in range(1, len(row)):
        before, after = row[place - 1], row[place]
        middle = int((max(before.top, after.top) + min(before.bottom, after.bottom) - 1) // 2)
        between = nothing[middle, round(before.column) + 1 : round(after.column)]
        if (between > 0.5).sum() >= max(1.0, _GAP * height):
            found.add(place)
    return frozenset(found)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A piece of text in its slot.

    Attributes:
        token: Id in the language model's vocabulary.
        slot: Visual token of the tile, row by row.
    """

    token: int
    slot: int


def place_pieces(lines: Sequence[Line], cut: Cut, cells: int, side: int) -> list[Piece]:
    """The pieces of a text in the visual tokens of a tile.

    Args:
        lines: The text.
        cut: Cuts it.
        cells: Cells of a side of the tile.
        side: Visual tokens of a side of the tile; P is its square.

    Returns:
        Pieces with rising slots; of a text with more than P pieces the first ones.
    """
    places: list[tuple[float, float] | None] = []
    text = ""
    for line in lines:
        if text:
            text, places = f"{text} ", [*places, None]
        for number, character in enumerate(line.characters):
            if number in line.spaces:
                text, places = f"{text} ", [*places, None]
            text, places = text + character.text, [*places, (_centre(character), character.column + 0.5)]
    pieces = list(cut(text))[: side * side] if text else []
    slots, start = list[int](), 0
    for _, piece in pieces:
        known = [place for place in places[start : start + len(piece)] if place is not None]
        start += len(piece)
        natural = 0
        if known:
            row, column = (sum(axis) / len(known) for axis in zip(*known, strict=True))
            natural = min(side - 1, int(row * side / cells)) * side + min(side - 1, int(column * side / cells))
        slots.append(max(natural, slots[-1] + 1 if slots else 0))
    for back, number in enumerate(reversed(range(len(slots)))):
        slots[number] = min(slots[number], side * side - 1 - back)
    return [Piece(token=token, slot=slot) for (token, _), slot in zip(pieces, slots, strict=True)]


def place_name(name: str, cut: Cut, side: int, text: Sequence[Piece] = ()) -> list[Piece]:
    """The pieces of a name in the middle of a tile's visual tokens, in order; of a longer one the first.

    Args:
        name: The name, or an empty text.
        cut: Cuts it.
        side: Visual tokens of a side of the tile.
        text: Pieces of text that stand in the tile already, around which those of the name are put.
    """
    taken = {piece.slot for piece in text}
    free = [slot for slot in range(side * side) if slot not in taken]
    pieces = list(cut(name))[: len(free)] if name else []
    start = (len(free) - len(pieces)) // 2
    return [Piece(token=token, slot=free[start + number]) for number, (token, _) in enumerate(pieces)]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What was read in a tile.

    Attributes:
        lines: From top to bottom.
        cells: Cells of a side of the tile, in which places are counted.
    """

    lines: tuple[Line, ...]
    cells: int

    @property
    def text(self) -> str:
        """Lines joined by spaces."""
        return " ".join(line.text for line in self.lines)

    @property
    def sureness(self) -> float:
        """Mean certainty of its characters, 0 without any."""
        characters = [character for line in self.lines for character in line.characters]
        return _certainty(characters) if characters else 0.0


class Transcriber:
    """From what was read and named to pieces in the visual tokens of tiles.

    Args:
        cut: The tokenizer's `vedere.text.tokenizer.Tokenizer.pieces`.
        side: Visual tokens of a side of the tile.
    """

    def __init__(self, cut: Cut, side: int) -> None:
        self.cut, self.side = cut, side

    def __call__(self, readings: Sequence[Reading], names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Puts pieces into tiles.

        Args:
            readings: What was read in each of the N tiles; empty: nothing was.
            names: Name of each tile; empty: none.

        Returns:
            (rows of the visual tokens ``[N P]`` that get a piece, ids of the pieces), both ``[M]``.
        """
        rows, tokens = list[int](), list[int]()
        for number, name in enumerate(names):
            pieces = list[Piece]()
            if readings:
                pieces = place_pieces(readings[number].lines, self.cut, readings[number].cells, self.side)
            for piece in (*pieces, *place_name(name, self.cut, self.side, pieces)):
                rows.append(number * self.side**2 + piece.slot)
                tokens.append(piece.token)
        return torch.tensor(rows, dtype=torch.long), torch.tensor(tokens, dtype=torch.long)


def with_pieces(features: Tensor, rows: Tensor, pieces: Tensor) -> Tensor:
    """Visual tokens in which pieces stand.

    Features grow many times longer than embeddings, beside which a piece would not be seen; so where a piece stands, it is the
    token, and what was seen there stays as a hint.

    Args:
        features: ``[N, P, D]``.
        rows: Rows of ``[N P]`` that get a piece, each once, ``[M]``.
        pieces: Embeddings, ``[M, D]``.
    """
    flat = features.flatten(0, 1)
    seen = F.normalize(flat[rows].float(), dim=-1) * pieces.float().norm(dim=-1, keepdim=True) * HINT
    return flat.index_copy(0, rows, (pieces + seen).to(flat.dtype)).view_as(features)
