"""MM-Vet and LLaVA-Bench in the wild: sums over grades that a judge model has given. The judge is not asked again here."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vedere.evals.records import Row, Scores, Verdict, mean


def score_mmvet(rows: Sequence[Row]) -> Scores:
    """Score rows ``id, scores`` (a grade in 0 to 1 a run): 100 times the mean grade of each run.

    With ``capability`` (a list) the same by capability and by combination of capabilities, of the first run.
    """
    runs = len(rows[0].numbers("scores"))
    grades = [row.numbers("scores", count=runs) for row in rows]
    for row, given in zip(rows, grades, strict=True):
        if not all(0 <= grade <= 1 for grade in given):
            raise row.fail(f"'scores' is {given}", "grades from 0 to 1")
    totals = [100 * mean(run) for run in zip(*grades, strict=True)]
    figures: dict[str, object] = {"n": len(rows), "total_per_run": totals, "mean": mean(totals)}
    figures["std"] = mean((total - mean(totals)) ** 2 for total in totals) ** 0.5
    parts: dict[str, list[float]] = {}
    together: dict[str, list[float]] = {}
    for row, given in zip(rows, grades, strict=True):
        names = row.texts("capability") if row.has("capability") else []
        for name in names:
            parts.setdefault(name, []).append(given[0])
        if names:
            together.setdefault("_".join(sorted(names)), []).append(given[0])
    if parts:
        figures["capability"] = {name: 100 * mean(values) for name, values in sorted(parts.items())}
        figures["capability_combination"] = {name: 100 * mean(values) for name, values in sorted(together.items())}
    verdicts = [Verdict(line=row.line, credit=mean(given)) for row, given in zip(rows, grades, strict=True)]
    return Scores(figures=figures, verdicts=verdicts)


def _pair(row: Row) -> tuple[float, float]:
    """Grades of the reference answer and of the model's."""
    if row.has("scores"):
        reference, model = row.numbers("scores", count=2)
    else:
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)[\s,]+(\d+(?:\.\d+)?)\s*", row.text("judge_first_line"))
        if not found:
            raise row.fail(f"'judge_first_line' is '{row.text('judge_first_line')[:60]}'", "two grades such as '9 7.5'")
        reference, model = float(found[1]), float(found[2])
    if not (0 <= reference <= 10 and 0 <= model <= 10):
        raise row.fail(f"the grades are {reference:g} and {model:g}", "grades from 0 to 10")
    return reference, model


def score_llava_wild(rows: Sequence[Row]) -> Scores:
    """Score rows ``run, question_id, category, scores`` (reference, model).

    For each run and category: 100 times the ratio of sums, and the means of both times 10.
    """
    groups: dict[str, dict[str, list[tuple[float, float]]]] = {}
    verdicts = []
    for row in rows:
        pair = _pair(row)
        run = groups.setdefault(f"run{row.text('run') if row.has('run') else 1}", {})
        for name in (row.text("category"), "all"):
            run.setdefault(name, []).append(pair)
        verdicts.append(Verdict(line=row.line, credit=pair[1] / 10))
    figures = {run: {name: _ratio(pairs) for name, pairs in parts.items()} for run, parts in groups.items()}
    return Scores(figures=figures, verdicts=verdicts)


def _ratio(pairs: Sequence[tuple[float, float]]) -> list[float]:
    reference, model = mean(pair[0] for pair in pairs), mean(pair[1] for pair in pairs)
    return [100 * model / reference if reference else 0.0, 10 * reference, 10 * model]
