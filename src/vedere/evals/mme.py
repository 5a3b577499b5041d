"""MME: 14 tasks of yes / no questions, two an image; accuracy plus the share of images with both right.

The parser looks at the first four characters only, so "The answer is yes" is neither. Pairs are two consecutive rows of a
category; the order of rows is data. Beside the figure stand those of answers as InternVL's evaluation rewrites them before the
same parser, and of VLMEvalKit's reading, the one of the words yes and no that occurs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vedere.answers import first_four, internvl_form, kit_yes_no
from vedere.evals.records import Row, Scores, Verdict

PERCEPTION = (
    *("existence", "count", "position", "color", "posters"),
    *("celebrity", "scene", "landmark", "artwork", "OCR"),
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")


OTHER_RULES: dict[str, Callable[[str], str | None]] = {
    "internvl": lambda text: first_four(internvl_form(text)),
    "vlmevalkit": kit_yes_no,
}
"""Readings beside the official one."""
Marked = list[tuple[Row, bool]]


def score(rows: Sequence[Row]) -> Scores:
    """Score rows ``category, image, question, answer, prediction``.

    Raises:
        RecordError: for an unknown category, an answer that is neither yes nor no, or rows of a category that do not pair.
    """
    verdicts: list[Verdict] = []
    groups: dict[str, Marked] = {}
    others: dict[str, dict[str, Marked]] = {name: {} for name in OTHER_RULES}
    for row in rows:
        category, answer = row.text("category"), row.text("answer").strip().lower()
        if category not in (*PERCEPTION, *COGNITION):
            raise row.fail(f"'category' is '{category}'", f"one of {', '.join((*PERCEPTION, *COGNITION))}")
        if answer not in ("yes", "no"):
            raise row.fail(f"'answer' is '{row.text('answer')}'", "Yes or No")
        text = row.answer()
        read = first_four(text)
        verdicts.append(Verdict(line=row.line, credit=float(read == answer), extracted=read))
        groups.setdefault(category, []).append((row, read == answer))
        for name, reading in OTHER_RULES.items():
            others[name].setdefault(category, []).append((row, reading(text) == answer))
    figures = {**_tasks(groups), "other_rules": {name: _tasks(found) for name, found in others.items()}}
    other = sum(verdict.extracted == "other" for verdict in verdicts)
    missing = len(PERCEPTION) + len(COGNITION) - len(groups)
    return Scores(figures=figures, verdicts=verdicts, counts={"unresolved": other, "missing_categories": missing})


def _tasks(groups: dict[str, Marked]) -> dict[str, object]:
    categories = {name: _task(groups[name]) for name in (*PERCEPTION, *COGNITION) if name in groups}
    return {
        "perception": sum(categories.get(name, 0.0) for name in PERCEPTION),
        "cognition": sum(categories.get(name, 0.0) for name in COGNITION),
        "categories": categories,
    }


def _task(rows: Marked) -> float:
    """Accuracy plus paired accuracy, 0 to 200."""
    both = 0
    for (first, one), (second, two) in zip(rows[::2], rows[1::2], strict=False):
        if first.text("image") != second.text("image"):
            raise second.fail(
                f"its image '{second.text('image')}' is not that of line {first.line}, '{first.text('image')}'",
                "two consecutive rows of a category about one image",
            )
        both += one and two
    if len(rows) % 2:
        raise rows[-1][0].fail("the row has no partner", "two consecutive rows of a category about one image")
    right = sum(one for _, one in rows)
    return 100 * right / len(rows) + 100 * both / (len(rows) // 2)
