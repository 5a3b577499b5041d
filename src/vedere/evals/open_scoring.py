"""Scores of the open suite's picture questions: letters, and short answers by their normal form.

A choice counts by the letter that is clearly chosen (`vedere.answers.option_letter`), or by the text of exactly one option
where the answer is that text. A short answer counts when its normal form (`vedere.answers.normalise`) is that of an accepted
one. What cannot be read is wrong, and counted.
"""

from __future__ import annotations

from collections.abc import Sequence

from vedere.answers import exact_match, option_letter
from vedere.evals.records import Row, Scores, Verdict, by, credit


def read_choice(answer: str, options: dict[str, str]) -> str | None:
    """Returns the letter that an answer chooses, or None."""
    letter = option_letter(answer, "".join(options))
    if letter is not None:
        return letter
    named = [one for one, text in options.items() if exact_match(answer, text)]
    return named[0] if len(named) == 1 else None


def judge(row: Row) -> Verdict:
    """Judges one row ``kind, options, answer, prediction``.

    Raises:
        RecordError: an unknown kind, or an answer that is no option.
    """
    kind, given = row.text("kind"), row.answer()
    if kind == "short":
        right = any(exact_match(given, accepted) for accepted in row.texts("answer"))
        return Verdict(line=row.line, credit=float(right), extracted=given.strip()[:200] or None)
    if kind != "choice":
        raise row.fail(f"'kind' is '{kind[:40]}'", "choice or short")
    options, target = row.options(), row.text("answer")
    if target not in options:
        raise row.fail(f"'answer' is '{target[:40]}'", f"one of {', '.join(options)}")
    letter = read_choice(given, options)
    return Verdict(line=row.line, credit=float(letter == target), extracted=letter)


def score(rows: Sequence[Row]) -> Scores:
    """Scores rows ``id, kind, category, options, answer, prediction``: ratios over all rows, by category and by kind.

    ``guessing`` is what a random letter gives on average, short answers counted as never guessed.
    """
    verdicts = [judge(row) for row in rows]
    chances = [1 / len(row.options()) if row.text("kind") == "choice" else 0.0 for row in rows]
    figures = {
        "n": len(rows),
        "acc": credit(verdicts),
        "per_category": {name: credit(found) for name, found in sorted(by(rows, verdicts, "category").items())},
        "per_kind": {name: credit(found) for name, found in sorted(by(rows, verdicts, "kind").items())},
        "guessing": sum(chances) / len(chances) if chances else 0.0,
    }
    return Scores(figures=figures, verdicts=verdicts, counts={"unresolved": sum(v.extracted is None for v in verdicts)})
