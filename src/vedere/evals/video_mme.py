"""Video-MME: the official letter extraction with its quirks, a corrected one beside it, both denominators.

The official script's list of phrases lacks two commas, so "Best option: C" is read as the B of "Best"; it takes the first
capital A to D even inside a word; and questions without a letter leave numerator and denominator. ``corrected`` reads with
`vedere.answers.option_letter`, ``all_rows`` counts unanswered questions as wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from vedere.answers import first_choice, option_letter
from vedere.evals.records import Row, Scores, Verdict

PHRASES = (
    *("The best answer is", "The correct answer is", "The answer is", "The answer"),
    "The best option isThe correct option is",
    *("Best answer:Best option:", "Answer:", "Option:", "The correct answer", "The correct option"),
)
"""What the official script deletes, in its order, with its two missing commas."""


def official_letter(response: str) -> str:
    """Return the letter that the official script reads, or "" for a question that counts as not answered.

    Its test for more than ten words without a letter is left out: such an answer has no letter either way.
    """
    text = response.strip()
    for phrase in PHRASES:
        text = text.replace(phrase, "")
    return first_choice(text, "ABCD") or ""


def corrected_letter(response: str) -> str:
    """Return the letter that is clearly chosen, or ""."""
    return option_letter(response) or ""


def _keys(row: Row) -> Iterator[str]:
    duration = row.text("duration")
    yield "overall"
    yield f"duration/{duration}"
    for name in ("domain", "sub_category", "task_type"):
        yield f"{name}/{row.text(name)}"
    for name in ("domain", "task_type"):
        yield f"{duration}/{name}/{row.text(name)}"


def _table(
    rows: Sequence[Row], read: Mapping[int, str], denominator: str, counted: Callable[[str], bool]
) -> dict[str, dict[str, float]]:
    cells: dict[str, list[int]] = {}
    for row in rows:
        letter = read[row.line]
        for key in _keys(row):
            cell = cells.setdefault(key, [0, 0])
            cell[0] += letter == row.text("answer")
            cell[1] += counted(letter)
    return {
        key: {"correct": right, denominator: total, "acc": 100 * right / total if total else 0.0}
        for key, (right, total) in sorted(cells.items())
    }


def score(rows: Sequence[Row]) -> Scores:
    """Score rows ``question_id, duration, domain, sub_category, task_type, answer, response``: percent."""
    responses = {row.line: row.answer("response", "prediction") for row in rows}
    for row in rows:
        if row.text("answer") not in "ABCD" or len(row.text("answer")) != 1:
            raise row.fail(f"'answer' is '{row.text('answer')[:40]}'", "A, B, C or D")
    official = {line: official_letter(text) for line, text in responses.items()}
    corrected = {line: corrected_letter(text) for line, text in responses.items()}
    figures: dict[str, object] = {
        **_table(rows, official, "answered", bool),
        "all_rows": _table(rows, official, "total", lambda letter: True),
        "corrected": _table(rows, corrected, "answered", bool),
        "corrected_all_rows": _table(rows, corrected, "total", lambda letter: True),
    }
    verdicts = [
        Verdict(
            line=row.line,
            credit=float(official[row.line] == row.text("answer")) if official[row.line] else None,
            extracted=official[row.line] or None,
        )
        for row in rows
    ]
    differing = sum(official[line] != corrected[line] for line in official)
    counts = {
        "unanswered": sum(not letter for letter in official.values()),
        "read_differently_when_corrected": differing,
    }
    return Scores(figures=figures, verdicts=verdicts, counts=counts)
