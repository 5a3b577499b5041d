"""HallusionBench: accuracy of answers, of figures with all answers right, and of questions right over all their figures.

Read by VLMEvalKit's rule, without its judge model: an answer with both or none of the words yes and no is wrong and counted.
InternVL and XComposer print the mean of the three. The rows with a picture (951) are the usual set.
"""

from __future__ import annotations

from collections.abc import Sequence

from vedere.answers import kit_yes_no
from vedere.evals.records import Row, Scores, Verdict, credit, mean

_TRUTH = {"1": "yes", "0": "no", "yes": "yes", "no": "no"}


def _keys(row: Row) -> tuple[str, str, str, str]:
    """(sub-category, set, figure, question): own fields, or the parts of ``index`` between underscores."""
    if row.has("set_id"):
        kind = f"{row.text('category') if row.has('category') else ''}/{row.text('subcategory', 'l2-category')}"
        return kind, row.text("set_id"), row.text("figure_id"), row.text("question_id")
    parts = row.text("index").split("_")
    if len(parts) < 6:
        raise row.fail(
            f"'index' is '{row.text('index')}'", "fields set_id, figure_id, question_id, or six parts joined by _"
        )
    return row.text("l2-category", "subcategory"), parts[3], parts[4], parts[5]


def score(rows: Sequence[Row]) -> Scores:
    """Score rows ``category, subcategory, set_id, figure_id, question_id, gt_answer, prediction``: percent."""
    verdicts = []
    figures_right: dict[tuple[str, ...], bool] = {}
    questions_right: dict[tuple[str, ...], bool] = {}
    for row in rows:
        truth = _TRUTH.get(row.text("gt_answer", "answer").strip().lower())
        if truth is None:
            raise row.fail(f"'gt_answer' is '{row.text('gt_answer', 'answer')[:40]}'", "0, 1, yes or no")
        read = kit_yes_no(row.answer("prediction", "model_prediction", "response"))
        right = read == truth
        kind, collection, shown, asked = _keys(row)
        for groups, key in (
            (figures_right, (kind, collection, shown)),
            (questions_right, (kind, collection, asked)),
        ):
            groups[key] = groups.get(key, True) and right
        verdicts.append(Verdict(line=row.line, credit=None if read is None else float(right), extracted=read))
    of_answers = 100 * credit(verdicts)
    of_figures = 100 * mean(map(float, figures_right.values()))
    of_questions = 100 * mean(map(float, questions_right.values()))
    figures = {
        "n": len(rows),
        "aAcc": of_answers,
        "fAcc": of_figures,
        "qAcc": of_questions,
        "mean": mean((of_answers, of_figures, of_questions)),
    }
    unknown = sum(verdict.extracted is None for verdict in verdicts)
    return Scores(figures=figures, verdicts=verdicts, counts={"unresolved": unknown})
