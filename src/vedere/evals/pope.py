"""POPE: yes / no about objects; accuracy, precision, recall, F1 (positive is yes) and the share of yes.

LLaVA's reading is the figure; XComposer's and VLMEvalKit's stand beside it. Averaging F1 over samplings is not the F1 of
all rows together: both are given when rows name their sampling. A row of VLMEvalKit's table names several
("adversarial,popular") where a question is in several; it counts once in each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vedere.answers import first_sentence, kit_yes_no, only_no
from vedere.evals.records import Row, Scores, Verdict, mean

_CELLS = ("TP", "FP", "TN", "FN")
_SPLIT = ("split", "category", "sampling", "subset")


def figures_of(counts: Mapping[str, int]) -> dict[str, float]:
    """Return the figures of a confusion table; ratios without a denominator are 0."""
    hit, false, rejected, missed = (counts[name] for name in _CELLS)
    total = hit + false + rejected + missed
    precision = hit / (hit + false) if hit + false else 0.0
    recall = hit / (hit + missed) if hit + missed else 0.0
    return {
        **{name: counts[name] for name in _CELLS},
        "acc": (hit + rejected) / total if total else 0.0,
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        "yes_ratio": (hit + false) / total if total else 0.0,
    }


def score(rows: Sequence[Row]) -> Scores:
    """Score rows ``answer, prediction`` (and ``split``, several with commas), or confusion tables ``split, TP, FP, TN, FN``."""
    flat = [table for row in rows for table in _tables(row)]
    if flat:
        return Scores(figures=_together({name: [counts] for name, counts in flat}))
    verdicts: list[Verdict] = []
    groups: dict[str, list[dict[str, int]]] = {}
    others: dict[str, dict[str, int]] = {"xcomposer": dict.fromkeys(_CELLS, 0), "vlmevalkit": dict.fromkeys(_CELLS, 0)}
    unknown = kit_right = total = 0
    for row in rows:
        truth = row.text("answer", "label").strip().lower()
        if truth not in ("yes", "no"):
            raise row.fail(f"'answer' is '{truth[:40]}'", "yes or no")
        # LLaVA's files have the answer in ``text``, the benchmark's own the question
        given = any(name in row.data for name in ("prediction", "response"))
        text = row.answer("prediction", "response") if given else row.answer("prediction", "response", "text")
        read = first_sentence(text)
        kit = kit_yes_no(text)
        unknown += kit is None
        splits = [name.strip() for name in _split(row).split(",")]
        total += len(splits)
        kit_right += len(splits) * (kit == truth)
        for name in splits:
            groups.setdefault(name, []).append(_cell(truth, read))
        for name, other in (("xcomposer", only_no(text)), ("vlmevalkit", kit or "no")):
            cell = _cell(truth, other)
            others[name] = {key: others[name][key] + len(splits) * cell[key] for key in _CELLS}
        verdicts.append(Verdict(line=row.line, credit=float(read == truth), extracted=read))
    other_rules = {name: figures_of(counts) for name, counts in others.items()}
    other_rules["vlmevalkit"]["acc"] = kit_right / total  # no verdict counts as no in F1, and is wrong all the same
    figures = {**_together(groups), "other_rules": other_rules}
    return Scores(figures=figures, verdicts=verdicts, counts={"unresolved_vlmevalkit": unknown})


def _split(row: Row) -> str:
    return row.text(*_SPLIT) if row.has(*_SPLIT) else ""


def _cell(truth: str, read: str) -> dict[str, int]:
    name = ("TP" if truth == "yes" else "FP") if read == "yes" else ("FN" if truth == "yes" else "TN")
    return {cell: int(cell == name) for cell in _CELLS}


def _tables(row: Row) -> list[tuple[str, dict[str, int]]]:
    """Confusion tables in a row: its own, or those under the names of samplings."""
    if any(name in row.data for name in _CELLS):
        return [(_split(row), _counts(row))]
    nested = {name: value for name, value in row.data.items() if isinstance(value, dict) and "TP" in value}
    return [(name, _counts(Row(row.line, value))) for name, value in nested.items()]


def _counts(row: Row) -> dict[str, int]:
    counts = {}
    for name in _CELLS:
        value = row.number(name)
        if value < 0 or value != int(value):
            raise row.fail(f"'{name}' is {value:g}", "a whole number of answers")
        counts[name] = int(value)
    return counts


def _together(groups: Mapping[str, Sequence[Mapping[str, int]]]) -> dict[str, Any]:
    summed = {name: {key: sum(cell[key] for cell in cells) for key in _CELLS} for name, cells in groups.items()}
    if set(summed) == {""}:
        return dict(figures_of(summed[""]))
    figures: dict[str, Any] = {name or "unnamed": figures_of(counts) for name, counts in summed.items()}
    figures["mean_f1"] = mean(one["f1"] for one in list(figures.values()))
    figures["pooled"] = figures_of({key: sum(counts[key] for counts in summed.values()) for key in _CELLS})
    return figures
