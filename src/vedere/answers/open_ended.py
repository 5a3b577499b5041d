"""Texts and numbers out of free answers, as MMMU's and MathVista's scripts read them, quirks included.

Cost: linear in the answer's length.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_TAILS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)
Normal = str | float


def normal_forms(text: str) -> list[Normal]:
    """Return what MMMU compares: a number rounded to 2 decimals, or the lower-cased text (a single character with a blank)."""
    stripped = text.strip()
    try:
        return [round(float(stripped.replace(",", "")), 2)]
    except ValueError:
        lowered = stripped.lower()
        return [f" {lowered}", f"{lowered} "] if len(lowered) == 1 else [lowered]


def open_answers(response: str) -> list[Normal]:
    """Return every text and number that MMMU's parser takes as the answer of an open question.

    Per line the shortest tail after an indicator ("is ", "answer ", ...; in the last line "=" too), else the whole response,
    and all numbers in them.
    """
    pieces = response.strip().strip(".").lower().split("\n")
    tails = []
    for number, piece in enumerate(pieces, 1):
        marks = (*_TAILS, "=") if number == len(pieces) else _TAILS
        tail = _shortest_tail(piece, marks)
        if tail and tail not in (":", ",", ".", "!", "?", ";", "'"):
            tails.append(tail)
    tails = tails or ["\n".join(pieces)]
    numbers = [one for tail in tails for pattern in _NUMBERS for one in pattern.findall(tail)]
    return [form for text in (*tails, *numbers) for form in normal_forms(text)]


def _shortest_tail(piece: str, marks: Sequence[str]) -> str:
    """The shortest text after a mark's last place; empty for none, and where the text ends with a mark that came last."""
    shortest = ""
    for mark in marks:
        if mark in piece:
            tail = piece.rsplit(mark, 1)[-1].strip()
            if not shortest or len(tail) < len(shortest):
                shortest = tail
    return shortest


def quick_extraction(response: str, choices: Sequence[str], answer_type: str) -> str | None:
    """Return the extraction that needs no model: the exact text of a choice, a bare number, or ``The answer is "..."``."""
    stripped = response.strip()
    if stripped in choices:
        return stripped
    try:
        if answer_type == "integer":
            return str(int(stripped))
        if answer_type == "float":
            return str(float(stripped))
    except ValueError:
        pass
    told = re.search(r'The answer is "(.*)"\.', response)
    return told[1] if told else None
