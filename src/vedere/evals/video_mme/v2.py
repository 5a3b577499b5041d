"""Video-MME-v2 (arXiv 2604.05015): eight options, four questions a video as one group, a group score that is not linear.

A ``relevance`` group with c of 4 right is worth 100 (c / 4)^2. A ``logic`` group counts the questions k that are
right before the first wrong one and reads their worth from the table of its structure; where two questions may be
taken in either order, the later of them alone lifts k by one. The score is the mean over groups; plain accuracy
stands beside it.

Groups are four rows in a row: sorting or dropping rows would mix them, so rows that do not form groups are refused. The
published scorer marks an answer without a letter by -1, which a logic group then takes for right and a relevance group
subtracts; here it is wrong, and ``published_score`` gives the published number where it differs.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vedere.answers import video_mme_v2_letter
from vedere.evals.clusters import clustered_error
from vedere.evals.records import Row, Scores, Verdict, mean

LETTERS = "ABCDEFGH"
GROUP = 4
_SQUARES = (0.0, 6.25, 25.0, 56.25, 100.0)
STRUCTURES: dict[str, tuple[float, ...]] = {
    "[1, 2, 3, 4]": _SQUARES,
    "[1, [2, 3], 4]": (0.0, 100 / 12, 400 / 12, 700 / 12, 100.0),
    "[[1, 2], 3, 4]": (0.0, 10.0, 20.0, 50.0, 100.0),
}
"""Structure of a logic group -> worth of 0 to 4 leading right answers."""
_HEADS = ("group_type", "level", "second_head", "third_head")


def relevance_score(right: Sequence[int]) -> float:
    """Return the worth of a group of four by the number of right ones.

    Args:
        right: 1 or 0 a question; -1 as the published scorer has it gives 0 for a negative sum.
    """
    total = sum(right)
    return _SQUARES[total] if total >= 0 else 0.0


def logic_score(right: Sequence[int], structure: str) -> float:
    """Return the worth of a group of four whose questions build on each other.

    Args:
        right: 1 or 0 a question, in order.
        structure: A key of `STRUCTURES`, as the data write it.

    Raises:
        KeyError: an unknown structure.
    """
    worth = STRUCTURES[structure]
    leading = next((place for place, one in enumerate(right) if not one), len(right))
    if structure == "[1, [2, 3], 4]" and leading == 1 and right[2]:
        leading = 2
    if structure == "[[1, 2], 3, 4]" and leading == 0 and right[1]:
        leading = 1
    return worth[leading]


@dataclass(frozen=True)
class _Group:
    rows: Sequence[Row]
    right: tuple[int, ...]
    marked: tuple[int, ...]  # with -1 for answers without a letter
    structure: str

    @property
    def kind(self) -> str:
        return self.rows[0].text("group_type")

    def worth(self, right: Sequence[int]) -> float:
        return relevance_score(right) if self.kind == "relevance" else logic_score(right, self.structure)


def _structure(row: Row) -> str:
    value = row.data.get("group_structure")
    try:
        found = str(ast.literal_eval(value) if isinstance(value, str) else value)
    except (ValueError, SyntaxError):
        found = ""
    if found not in STRUCTURES:
        raise row.fail(f"'group_structure' is {str(value)[:40]!r}", " or ".join(STRUCTURES))
    return found


def _groups(rows: Sequence[Row], read: Mapping[int, str]) -> list[_Group]:
    if len(rows) % GROUP:
        raise rows[-1].fail(f"{len(rows)} rows", f"a multiple of {GROUP}, the groups of the data in their order")
    groups = []
    for start in range(0, len(rows), GROUP):
        four = rows[start : start + GROUP]
        kind = four[0].text("group_type")
        if kind not in ("relevance", "logic"):
            raise four[0].fail(f"'group_type' is '{kind}'", "relevance or logic")
        for row in four[1:]:
            if row.text("video_id") != four[0].text("video_id") or row.text("group_type") != kind:
                raise row.fail(
                    f"the row is of video '{row.text('video_id')}' ({row.text('group_type')}) in a group of video "
                    f"'{four[0].text('video_id')}' ({kind})",
                    f"{GROUP} rows in a row about one video: keep the order of the data and leave no row out",
                )
        right = tuple(int(read[row.line] == row.text("answer")) for row in four)
        marked = tuple(one if read[row.line] else -1 for one, row in zip(right, four, strict=True))
        groups.append(_Group(four, right, marked, _structure(four[0]) if kind == "logic" else ""))
    return groups


def score(rows: Sequence[Row]) -> Scores:
    """Score rows ``video_id, question_id, group_type, group_structure, answer, response, [level, second_head, third_head]``.

    Figures are percent: ``score`` the mean over groups with its standard error (a group is a video), ``acc`` over
    questions; the same by group type, level and heads. A group is under the heads of its last question, a question
    under its own.
    """
    for row in rows:
        if row.text("answer") not in set(LETTERS):
            raise row.fail(f"'answer' is '{row.text('answer')[:40]}'", "A to H")
    read = {row.line: video_mme_v2_letter(row.answer("response", "prediction")) for row in rows}
    groups = _groups(rows, read)
    worths = [group.worth(group.right) for group in groups]
    error = clustered_error((worth, 1) for worth in worths)
    figures: dict[str, object] = {
        "score": mean(worths),
        "standard_error": error,
        "acc": 100 * mean(one for group in groups for one in group.right),
        "groups": len(groups),
        "published_score": mean(group.worth(group.marked) for group in groups),
    }
    for head in _HEADS:
        figures[f"by_{head}"] = _by(groups, worths, head)
    verdicts = [
        Verdict(line=row.line, credit=float(one), extracted=read[row.line] or None)
        for group in groups
        for row, one in zip(group.rows, group.right, strict=True)
    ]
    counts = {"unanswered": sum(not one for one in read.values())}
    return Scores(figures=figures, verdicts=verdicts, counts=counts)


def _by(groups: Sequence[_Group], worths: Sequence[float], head: str) -> dict[str, dict[str, float]]:
    scores: dict[str, list[float]] = {}
    rights: dict[str, list[int]] = {}
    for group, worth in zip(groups, worths, strict=True):
        if group.rows[-1].has(head):
            scores.setdefault(group.rows[-1].text(head), []).append(worth)
        for row, one in zip(group.rows, group.right, strict=True):
            if row.has(head):
                rights.setdefault(row.text(head), []).append(one)
    names = sorted({*scores, *rights})
    return {
        name: {
            "score": mean(scores.get(name, [])),
            "groups": len(scores.get(name, [])),
            "acc": 100 * mean(rights.get(name, [])),
            "questions": len(rights.get(name, [])),
        }
        for name in names
    }
