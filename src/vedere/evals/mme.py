"""MME: 14 tasks of yes / no questions, two an image; accuracy plus the share of images with both right.

The parser looks at the first four characters only, so "The answer is yes" is neither. Pairs are two consecutive rows of a
category; the order of rows is data.
"""

from __future__ import annotations

from collections.abc import Sequence

from vedere.answers import first_four
from vedere.evals.records import Row, Scores, Verdict

PERCEPTION = (
    *("existence", "count", "position", "color", "posters"),
    *("celebrity", "scene", "landmark", "artwork", "OCR"),
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")


def score(rows: Sequence[Row]) -> Scores:
    """Score rows ``category, image, question, answer, prediction``.

    Raises:
        RecordError: for an unknown category, an answer that is neither yes nor no, or rows of a category that do not pair.
    """
    verdicts: list[Verdict] = []
    groups: dict[str, list[tuple[Row, Verdict]]] = {}
    for row in rows:
        category, answer = row.text("category"), row.text("answer").strip().lower()
        if category not in (*PERCEPTION, *COGNITION):
            raise row.fail(f"'category' is '{category}'", f"one of {', '.join((*PERCEPTION, *COGNITION))}")
        if answer not in ("yes", "no"):
            raise row.fail(f"'answer' is '{row.text('answer')}'", "Yes or No")
        read = first_four(row.answer())
        verdicts.append(Verdict(line=row.line, credit=float(read == answer), extracted=read))
        groups.setdefault(category, []).append((row, verdicts[-1]))
    categories = {name: _task(groups[name]) for name in (*PERCEPTION, *COGNITION) if name in groups}
    figures = {
        "perception": sum(categories.get(name, 0.0) for name in PERCEPTION),
        "cognition": sum(categories.get(name, 0.0) for name in COGNITION),
        "categories": categories,
    }
    other = sum(verdict.extracted == "other" for verdict in verdicts)
    missing = len(PERCEPTION) + len(COGNITION) - len(categories)
    return Scores(figures=figures, verdicts=verdicts, counts={"unresolved": other, "missing_categories": missing})


def _task(rows: Sequence[tuple[Row, Verdict]]) -> float:
    """Accuracy plus paired accuracy, 0 to 200."""
    both = 0
    for (first, one), (second, two) in zip(rows[::2], rows[1::2], strict=False):
        if first.text("image") != second.text("image"):
            raise second.fail(
                f"its image '{second.text('image')}' is not that of line {first.line}, '{first.text('image')}'",
                "two consecutive rows of a category about one image",
            )
        both += one.credit == two.credit == 1
    if len(rows) % 2:
        raise rows[-1][0].fail("the row has no partner", "two consecutive rows of a category about one image")
    right = sum(verdict.credit or 0 for _, verdict in rows)
    return 100 * right / len(rows) + 100 * both / (len(rows) // 2)
