"""Scores of recorded answers to Video-MME as ``vedere score video-mme`` prints them: cells by name, both extractions and
denominators, standard errors clustered by video.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vedere.evals.records import Row, Scores, Verdict
from vedere.evals.video_mme.outcomes import WHOLE, Cell, Key, Outcome, cells, missing_videos


def outcome(row: Row) -> Outcome:
    """Return a row's outcome; ``missing: true`` marks a video that was not there.

    Raises:
        RecordError: a field is missing, or the answer is no letter A to D.
    """
    answer = row.text("answer")
    if answer not in "ABCD" or len(answer) != 1:
        raise row.fail(f"'answer' is '{answer[:40]}'", "A, B, C or D")
    missing = row.data.get("missing") is True
    question = row.text("question_id", "index") if row.has("question_id", "index") else str(row.line)
    return Outcome(
        question_id=question,
        video_id=row.text("video_id") if row.has("video_id") else question.rpartition("-")[0] or question,
        answer=answer,
        duration=row.text("duration"),
        domain=row.text("domain"),
        sub_category=row.text("sub_category"),
        task_type=row.text("task_type"),
        response=None if missing else row.answer("response", "prediction"),
    )


def name_of(key: Key) -> str:
    """Return a cell's name: ``overall``, ``duration/short``, ``domain/Knowledge``, ``short/domain/Knowledge``."""
    scope, grouping, name = key
    if grouping == "overall":
        return "overall" if scope == WHOLE else f"duration/{scope}"
    return f"{grouping}/{name}" if scope == WHOLE else f"{scope}/{grouping}/{name}"


def score(rows: Sequence[Row]) -> Scores:
    """Score rows ``question_id, duration, domain, sub_category, task_type, answer, response``: percent.

    The official figures (answered questions) stand on top; ``all_rows`` counts questions without a letter as wrong;
    ``corrected`` and ``corrected_all_rows`` are the same by the corrected extraction; ``standard_error`` belongs to
    the official figures.
    """
    found = [outcome(row) for row in rows]
    table = {name_of(key): cell for key, cell in cells(found).items()}
    figures: dict[str, object] = {
        **{
            name: _entry(cell.official.correct, "answered", cell.official.answered)
            for name, cell in sorted(table.items())
        },
        "all_rows": _entries(table, "total", corrected=False),
        "corrected": _entries(table, "answered", corrected=True),
        "corrected_all_rows": _entries(table, "total", corrected=True),
        "standard_error": {name: cell.official.error for name, cell in sorted(table.items())},
    }
    verdicts = [
        Verdict(
            line=row.line,
            credit=float(one.official == one.answer) if one.official else None,
            extracted=one.official or None,
        )
        for row, one in zip(rows, found, strict=True)
    ]
    asked = [one for one in found if one.response is not None]
    counts = {
        "unanswered": sum(not one.official for one in asked),
        "read_differently_when_corrected": sum(one.official != one.corrected for one in asked),
        "missing_videos": len(missing_videos(found)),
    }
    return Scores(figures=figures, verdicts=verdicts, counts=counts)


def _entry(correct: int, denominator: str, total: int) -> dict[str, float]:
    return {"correct": correct, denominator: total, "acc": 100 * correct / total if total else 0.0}


def _entries(table: Mapping[str, Cell], denominator: str, corrected: bool) -> dict[str, dict[str, float]]:
    entries = {}
    for name, cell in sorted(table.items()):
        reading = cell.corrected if corrected else cell.official
        total = cell.questions if denominator == "total" else reading.answered
        entries[name] = _entry(reading.correct, denominator, total)
    return entries
