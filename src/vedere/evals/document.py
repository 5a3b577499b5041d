"""DocVQA and InfographicVQA (ANLS), ChartQA (relaxed accuracy)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vedere.evals.distance import edit_distance
from vedere.evals.records import Row, Scores, Verdict, by, credit, mean

THRESHOLD = 0.5
_STRIPPED = str.maketrans(dict.fromkeys(" ().,\n-", None))


def anls(prediction: str, answers: Sequence[str], threshold: float = THRESHOLD) -> float:
    """Return the normalised Levenshtein similarity to the nearest answer, 0 below the threshold (which itself counts).

    Both sides are lower-cased, stripped, with single blanks; the distance is divided by the length of the longer original
    text, so padding costs although it has no distance.
    """
    best = math.inf
    for answer in answers:
        left, right = (" ".join(text.lower().split()) for text in (answer, prediction))
        longest = max(len(answer), len(prediction))
        if not longest:
            return 1.0
        if abs(len(left) - len(right)) / longest <= 1 - threshold:  # otherwise below the threshold whatever they say
            best = min(best, edit_distance(left, right) / longest)
    similarity = 1 - best
    return similarity if similarity >= threshold else 0.0


def relaxed_correct(prediction: str, target: str, tolerance: float = 0.05) -> bool:
    """Say whether ChartQA takes an answer: numbers within 5 % of a target other than 0, else equal texts in any case.

    A trailing % divides by 100; commas, currencies and units make a text of a number.
    """
    given, wanted = _number(prediction), _number(target)
    if given is not None and wanted:
        return abs(given - wanted) / abs(wanted) <= tolerance
    return prediction.lower() == target.lower()


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def score_docvqa(rows: Sequence[Row]) -> Scores:
    """Score rows ``id, answers, prediction``: mean ANLS, and with `` ().,`` newline and ``-`` deleted before comparing."""
    verdicts = []
    stripped = []
    for row in rows:
        given, answers = row.answer("prediction", "answer_predicted", "response"), row.texts("answers", "answer")
        verdicts.append(Verdict(line=row.line, credit=anls(given, answers)))
        bare = [answer.translate(_STRIPPED) for answer in answers]
        stripped.append(anls(given.translate(_STRIPPED), bare))
    figures: dict[str, object] = {
        "n": len(rows),
        "anls_official": credit(verdicts),
        "anls_strip_punct": mean(stripped),
    }
    for name in ("answer_type", "evidence", "operation"):
        groups = by(rows, verdicts, name)
        if groups:
            figures[name] = {part: credit(found) for part, found in groups.items()}
    return Scores(figures=figures, verdicts=verdicts)


def score_chartqa(rows: Sequence[Row]) -> Scores:
    """Score rows ``answer`` or ``label``, ``prediction`` and, for the printed mean, ``split`` (human or augmented): ratios."""
    verdicts = []
    for row in rows:
        right = relaxed_correct(row.answer(), row.text("answer", "label"))
        verdicts.append(Verdict(line=row.line, credit=float(right)))
    splits = {name: credit(found) for name, found in by(rows, verdicts, "split").items()}
    figures: dict[str, object] = {"n": len(rows), "acc": credit(verdicts), **({"per_split": splits} if splits else {})}
    if splits:
        figures["mean_of_splits"] = mean(splits.values())
    return Scores(figures=figures, verdicts=verdicts)
