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
            return str(round(float(extraction), precision if precision is not None else 0))
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
        extraction = row.answer("extraction") if "extraction" in row.data else None
        if extraction is None:
            extraction = quick_extraction(row.answer("response", "prediction"), choices, answer_type)
        unread += extraction is None
        precision = int(row.number("precision")) if row.has("precision") else None
        found = (
            None
            if extraction is None
            else normalise_extraction(extraction, choices, question_type, answer_type, precision)
        )
        right = found is not None and found == row.text("answer")
        verdicts.append(Verdict(line=row.line, credit=float(right), extracted=found))
    figures: dict[str, object] = {"average": _part(verdicts)}
    for name in ("question_type", "answer_type", "task", "skills", "source", "category", "grade", "context"):
        groups = by(rows, verdicts, name)
        if groups:
            figures[name] = {part: _part(found) for part, found in groups.items()}
    return Scores(figures=figures, verdicts=verdicts, counts={"unresolved": unread})


def _part(verdicts: Sequence[Verdict]) -> dict[str, float]:
    right = sum(verdict.credit == 1 for verdict in verdicts)
    return {"accuracy": 100 * right / len(verdicts), "correct": right, "total": len(verdicts)}
