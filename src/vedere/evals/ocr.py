"""OCRBench, and the older text recognition study of the same authors.

OCRBench: the answer is part of the prediction. The older rule looks for it as whole words, with punctuation removed, and
gives figures that are 4 to 12 points lower.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from vedere.evals.records import Row, Scores, Verdict, by, credit

FORMULA = "Handwritten Mathematical Expression Recognition"
PARTS = {
    "Text Recognition": (
        *("Regular Text Recognition", "Irregular Text Recognition", "Artistic Text Recognition"),
        *("Handwriting Recognition", "Digit String Recognition", "Non-Semantic Text Recognition"),
    ),
    "Scene Text-centric VQA": ("Scene Text-centric VQA",),
    "Doc-oriented VQA": ("Doc-oriented VQA",),
    "Key Information Extraction": ("Key Information Extraction",),
    FORMULA: (FORMULA,),
}
"""The five printed parts and the types of question in them."""


def contains(prediction: str, answers: Sequence[str], formula: bool = False) -> bool:
    """Say whether OCRBench takes an answer: stripped, newlines to blanks, lower case, part of the prediction.

    Formulas keep their case and lose all blanks.
    """

    def plain(text: str) -> str:
        text = text.strip().replace("\n", " ")
        return text.replace(" ", "") if formula else text.lower()

    given = plain(prediction)
    return any(plain(answer) in given for answer in answers)


def word_boundary(prediction: str, answer: str) -> bool:
    r"""Say whether the older rule takes an answer: only letters, digits and white space kept, lower case, ``\banswer\b``."""

    def plain(text: str) -> str:
        return re.sub(r"[^a-zA-Z0-9\s]", "", text).lower()

    return re.search(rf"\b{re.escape(plain(answer))}\b", plain(prediction)) is not None


def score_text(rows: Sequence[Row]) -> Scores:
    """Score rows ``dataset, image, answer, prediction``: ratios by data set, under both rules."""
    boundary = []
    substring = []
    for row in rows:
        given, answer = row.answer(), row.text("answer")
        row.text("dataset")
        boundary.append(Verdict(line=row.line, credit=float(word_boundary(given, answer))))
        substring.append(Verdict(line=row.line, credit=float(contains(given, [answer]))))
    inside = by(rows, substring, "dataset")
    figures = {
        name: {"n": len(found), "word_boundary_acc": credit(found), "substring_acc": credit(inside[name])}
        for name, found in by(rows, boundary, "dataset").items()
    }
    return Scores(figures=figures, verdicts=boundary)


def score_ocrbench(rows: Sequence[Row]) -> Scores:
    """Score rows ``type, answers, prediction``: rows right in all, by type and by printed part; the norm is out of 100."""
    known = [name for types in PARTS.values() for name in types]
    verdicts = []
    for row in rows:
        kind = row.text("type", "category")
        if kind not in known:
            raise row.fail(f"'type' is '{kind}'", f"one of {', '.join(known)}")
        right = contains(
            row.answer("prediction", "predict", "response"), row.texts("answers", "answer"), kind == FORMULA
        )
        verdicts.append(Verdict(line=row.line, credit=float(right)))
    named = [Row(row.line, {"type": row.text("type", "category")}) for row in rows]
    types = {name: [_right(found), len(found)] for name, found in by(named, verdicts, "type").items()}
    parts = {name: sum(types.get(one, [0])[0] for one in inside) for name, inside in PARTS.items()}
    figures = {
        "n": len(rows),
        "score": _right(verdicts),
        "final_score_norm": _right(verdicts) / 10,
        "acc": credit(verdicts),
        "parts": parts,
        "per_type": types,
    }
    return Scores(figures=figures, verdicts=verdicts)


def _right(verdicts: Sequence[Verdict]) -> int:
    return sum(verdict.credit == 1 for verdict in verdicts)
