"""HallusionBench: accuracy of answers, of figures with all answers right, and of questions right over all their figures.

Read by VLMEvalKit's rule: an answer with both or none of the words yes and no takes a judge's recorded verdict; without one it
is wrong and counted. InternVL and XComposer print the mean of the three. The rows with a picture (951) are the usual set.
XComposer's notebook takes any answer with the letters "yes" for yes and every other one for no; its figures stand beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vedere.answers import kit_yes_no, yes_inside
from vedere.evals.records import Row, Scores, Verdict, mean

_TRUTH = {"1": "yes", "0": "no", "yes": "yes", "no": "no"}
Keys = tuple[str, str, str, str]


def _keys(row: Row) -> Keys:
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


def _judged(row: Row) -> str | None:
    """What a judge model read in an answer that the words leave open."""
    if not row.has("judge_verdict"):
        return None
    verdict = row.text("judge_verdict").strip().lower()
    if verdict not in ("yes", "no", "unknown"):
        raise row.fail(f"'judge_verdict' is '{verdict[:40]}'", "yes, no or unknown")
    return verdict


def score(rows: Sequence[Row]) -> Scores:
    """Score rows ``category, subcategory, set_id, figure_id, question_id, gt_answer, prediction``: percent.

    ``judge_verdict`` (yes, no, unknown) settles an answer that has neither of the words yes and no, or both.
    """
    verdicts = []
    marked: list[tuple[Keys, bool, bool]] = []
    for row in rows:
        truth = _TRUTH.get(row.text("gt_answer", "answer").strip().lower())
        if truth is None:
            raise row.fail(f"'gt_answer' is '{row.text('gt_answer', 'answer')[:40]}'", "0, 1, yes or no")
        text = row.answer("prediction", "model_prediction", "response")
        read = kit_yes_no(text) or _judged(row)
        marked.append((_keys(row), read == truth, yes_inside(text) == truth))
        credit = None if read is None else float(read == truth)
        verdicts.append(Verdict(line=row.line, credit=credit, extracted=read))
    official = [(keys, right) for keys, right, _ in marked]
    kinds: dict[str, list[tuple[Keys, bool]]] = {}
    for row, one in zip(rows, official, strict=True):
        if row.has("category"):
            kinds.setdefault(row.text("category"), []).append(one)
    figures = {
        "n": len(rows),
        **_accuracies(official),
        "per_category": {name: _accuracies(found) for name, found in sorted(kinds.items())},
        "other_rules": {"xcomposer": _accuracies([(keys, right) for keys, _, right in marked])},
    }
    unknown = sum(verdict.extracted is None for verdict in verdicts)
    return Scores(figures=figures, verdicts=verdicts, counts={"unresolved": unknown})


def _accuracies(marked: Sequence[tuple[Keys, bool]]) -> dict[str, Any]:
    """The three accuracies and their mean, of (sub-category, set, figure, question) and whether the answer is right."""
    shown: dict[tuple[str, ...], bool] = {}
    asked: dict[tuple[str, ...], bool] = {}
    for (kind, collection, figure, question), right in marked:
        for groups, key in ((shown, (kind, collection, figure)), (asked, (kind, collection, question))):
            groups[key] = groups.get(key, True) and right
    rights = ([right for _, right in marked], shown.values(), asked.values())
    values = [100 * mean(map(float, found)) for found in rights]
    return {"aAcc": values[0], "fAcc": values[1], "qAcc": values[2], "mean": mean(values)}
