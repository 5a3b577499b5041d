"""The tables of Video-MME-v2: score and accuracy by setting; the same by group type, level and heads.

A figure reads "49.4 ±1.3": the mean group score with its standard error over groups, a group being a video's four questions.
The accuracy over questions stands beside it, as the leaderboard prints both. Groups are under the heads of their last question.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vedere.evals.records import Scores
from vedere.evals.video_mme.tables import Table

HEADS = {"group_type": "group type", "level": "level", "second_head": "second head", "third_head": "third head"}


def v2_tables(results: Mapping[str, Scores]) -> list[Table]:
    """All tables.

    Args:
        results: Name of a setting -> scores of `vedere.evals.video_mme.v2.score`.
    """
    lines = [
        (
            name,
            str(scores.figures["groups"]),
            _with_error(scores.figures["score"], scores.figures["standard_error"]),
            f"{scores.figures['acc']:.1f}",
            str(scores.counts["unanswered"]),
            f"{scores.figures['published_score']:.1f}",
        )
        for name, scores in results.items()
    ]
    head = ("setting", "groups", "score", "accuracy", "unanswered", "published scorer")
    made = [Table("score and accuracy", head, tuple(lines))]
    for field, title in HEADS.items():
        parts = {name: scores.figures[f"by_{field}"] for name, scores in results.items()}
        values = sorted({value for part in parts.values() for value in part})
        if values:
            made.append(_by(title, parts, values))
    return made


def _by(title: str, parts: Mapping[str, Mapping[str, Any]], values: list[str]) -> Table:
    head = [title, "groups", "questions"]
    for name in parts:
        head += [f"score, {name}", f"accuracy, {name}"]
    lines = []
    for value in values:
        cells = [part.get(value) for part in parts.values()]
        first = next(cell for cell in cells if cell is not None)
        line = [value, str(first["groups"]), str(first["questions"])]
        for cell in cells:
            line += [
                "-" if cell is None or not cell["groups"] else f"{cell['score']:.1f}",
                "-" if cell is None or not cell["questions"] else f"{cell['acc']:.1f}",
            ]
        lines.append(tuple(line))
    return Table(f"by {title}", tuple(head), tuple(lines))


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.1f}" if error is None else f"{value:.1f} ±{error:.1f}"
