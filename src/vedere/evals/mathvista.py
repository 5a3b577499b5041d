"""MathVista: extracted answers to the normal form of their type, compared as texts.

The extraction is recorded (``extraction``), as a judge model made it; without one, the quick rules that need no model are
tried, and rows that they leave open are counted. Today's rule for integers is ``int(float(x))``; the 2023 release's ``int(x)``
refused "3.0". Choices by edit distance always yield some choice, so an empty extraction can be right by chance, as in the
original.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from vedere.answers import quick_extraction
from vedere.evals.distance import edit_distance
from vedere.evals.records import Row, Scores, Verdict, by

METADATA = ("task", "skills", "source", "category", "grade", "context", "language")
"""What tables go by besides the types; official files have these in an object ``metadata``."""
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def normalise_extraction(
    extraction: str, choices: Sequence[str], question_type: str, answer_type: str, precision: int | None
) -> str | None:
    """Return the normal form of an extraction; None where it has none (a number that is none)."""
    if question_type == "multi_choice":
        text = extraction.strip()
        bracketed = re.search(r"\(([a-zA-Z])\)", text)
        letter = bracketed[1].upper() if bracketed else text
        if len(letter) == 1 and letter in _LETTERS[: len(choices)]:
            return choices[_LETTERS.index(letter)]
        return min(choices, key=lambda choice: edit_distance(letter, choice))
    try:
        if answer_type == "integer":
            return str(int(float(extraction)))
        if answer_type == "float":
            return str(round(float(extraction), precision))
    except (ValueError, OverflowError):
        return None
    return extraction


def score(rows: Sequence[Row]) -> Scores:
    """Score rows ``pid, question_type, answer_type, choices, precision, answer`` with ``extraction`` or ``response``."""
    verdicts = []
    unread = 0
    for row in rows:
        question_type, answer_type = row.text("question_type"), row.text("answer_type")
        if question_type not in ("multi_choice", "free_form"):
            raise row.fail(f"'question_type' is '{question_type}'", "multi_choice or free_form")
        choices = row.texts("choices") if question_type == "multi_choice" else []
        extraction = _as_text(row, "extraction")
        if extraction is None and "extraction" in row.data:
            extraction = row.answer("extraction")
        if extraction is None:
            extraction = quick_extraction(row.answer("response", "prediction"), choices, answer_type)
        unread += extraction is None
        precision = row.whole("precision") if row.has("precision") else None
        found = (
            None
            if extraction is None
            else normalise_extraction(extraction, choices, question_type, answer_type, precision)
        )
        right = found is not None and found == (_as_text(row, "answer") or row.text("answer"))
        verdicts.append(Verdict(line=row.line, credit=float(right), extracted=found))
    figures: dict[str, object] = {"average": _part(verdicts)}
    flat = [_flat(row) for row in rows]
    for name in ("question_type", "answer_type", *METADATA):
        groups = by(flat, verdicts, name)
        if groups:
            figures[name] = {part: _part(found) for part, found in groups.items()}
    return Scores(figures=figures, verdicts=verdicts, counts={"unresolved": unread})


def _flat(row: Row) -> Row:
    """The row with what stands in its ``metadata``."""
    metadata = row.data.get("metadata")
    return Row(row.line, {**metadata, **row.data}) if isinstance(metadata, dict) else row


def _as_text(row: Row, name: str) -> str | None:
    """A list as Python writes it; None for a field that is none."""
    value = row.data.get(name)
    return str(value) if isinstance(value, list) else None


def _part(verdicts: Sequence[Verdict]) -> dict[str, float]:
    right = sum(verdict.credit == 1 for verdict in verdicts)
    return {"accuracy": 100 * right / len(verdicts), "correct": right, "total": len(verdicts)}
