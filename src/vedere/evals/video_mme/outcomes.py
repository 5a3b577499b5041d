"""What became of each question, and cells of a table counted from it.

A cell holds both extractions and both denominators: ``answered`` (the official script drops questions without a
letter from numerator and denominator) and ``questions`` (other harnesses count them as wrong). Every accuracy has a
standard error clustered by video, because three questions share one. Questions of missing videos are in no cell; they
are counted apart. Groups are made by field, so that ``Multilingual``, a domain and a sub-category, is counted once in
each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from vedere.evals.clusters import clustered_error
from vedere.evals.video_mme import taxonomy
from vedere.evals.video_mme.letters import corrected_letter, official_letter

GROUPINGS = ("domain", "sub_category", "task_type")
WHOLE = "all"
"""Scope of the whole set, beside the durations."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A question, what was right, and what the model said.

    Attributes:
        question_id: Unique in a result.
        video_id: Cluster of the standard errors.
        duration: short, medium or long.
        domain: See `taxonomy`.
        sub_category: See `taxonomy`.
        task_type: See `taxonomy`.
        answer: The right letter.
        response: The model's raw text; None for a missing video, which is in no cell.
        official: Letter read by the official script, or "".
        corrected: Letter read by the corrected rule, or "".
    """

    question_id: str
    video_id: str
    duration: str
    domain: str
    sub_category: str
    task_type: str
    answer: str
    response: str | None
    official: str = field(init=False)
    corrected: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "official", official_letter(self.response or ""))
        object.__setattr__(self, "corrected", corrected_letter(self.response or ""))


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Accuracy of a cell under one extraction; percent and points.

    Attributes:
        correct: Questions answered right.
        answered: Questions with a letter.
        accuracy: Of the answered ones; 0 where there are none, as officially.
        error: Its standard error, clustered by video; None with fewer than two videos.
        strict: Accuracy with questions without a letter counted as wrong.
        strict_error: Its standard error.
    """

    correct: int
    answered: int
    accuracy: float
    error: float | None
    strict: float
    strict_error: float | None


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of a table.

    Attributes:
        questions: Questions in it.
        videos: Videos that they are about.
        official: By the official extraction: the figure.
        corrected: By the corrected one.
    """

    questions: int
    videos: int
    official: Reading
    corrected: Reading


Key = tuple[str, str, str]
"""(scope, grouping, name): scope is a duration or ``all``; grouping ``overall`` with the name ""."""


class _Sums:
    """Per video: questions, and for each extraction right and answered ones."""

    def __init__(self) -> None:
        self.videos: dict[str, list[int]] = {}

    def add(self, one: Outcome) -> None:
        sums = self.videos.get(one.video_id)
        if sums is None:
            sums = self.videos[one.video_id] = [0, 0, 0, 0, 0]
        sums[0] += 1
        if one.official:
            sums[2] += 1
            sums[1] += one.official == one.answer
        if one.corrected:
            sums[4] += 1
            sums[3] += one.corrected == one.answer

    def cell(self) -> Cell:
        return Cell(
            questions=sum(sums[0] for sums in self.videos.values()),
            videos=len(self.videos),
            official=self._reading(1, 2),
            corrected=self._reading(3, 4),
        )

    def _reading(self, right: int, answered: int) -> Reading:
        rows = self.videos.values()
        correct, count, total = (sum(sums[place] for sums in rows) for place in (right, answered, 0))
        error = clustered_error((sums[right], sums[answered]) for sums in rows)
        strict_error = clustered_error((sums[right], sums[0]) for sums in rows)
        return Reading(
            correct=correct,
            answered=count,
            accuracy=100 * correct / count if count else 0.0,
            error=None if error is None else 100 * error,
            strict=100 * correct / total if total else 0.0,
            strict_error=None if strict_error is None else 100 * strict_error,
        )


def cells(outcomes: Iterable[Outcome]) -> dict[Key, Cell]:
    """Cells of all scopes and groupings that occur, in the order of the tables; strange names come last."""
    sums: dict[Key, _Sums] = {}
    for one in outcomes:
        if one.response is None:
            continue
        for scope in (one.duration, WHOLE):
            for grouping in ("overall", *GROUPINGS):
                key = (scope, grouping, "" if grouping == "overall" else getattr(one, grouping))
                found = sums.get(key)
                if found is None:
                    found = sums[key] = _Sums()
                found.add(one)
    return {key: sums[key].cell() for key in sorted(sums, key=_place)}


_ORDER: Mapping[str, Sequence[str]] = {
    "scope": (*taxonomy.DURATIONS, WHOLE),
    "overall": ("",),
    "domain": tuple(taxonomy.DOMAINS),
    "sub_category": taxonomy.SUB_CATEGORIES,
    "task_type": taxonomy.TASK_TYPES,
}


def _place(key: Key) -> tuple[int, int, int, str]:
    scope, grouping, name = key
    groupings = ("overall", *GROUPINGS)
    return _rank("scope", scope), groupings.index(grouping), _rank(grouping, name), f"{scope}/{name}"


def _rank(kind: str, name: str) -> int:
    order = _ORDER[kind]
    return order.index(name) if name in order else len(order)


def names_of(found: Iterable[Key], grouping: str) -> list[str]:
    """Names of a grouping that occur, in the order of the tables."""
    return sorted({name for _, kind, name in found if kind == grouping}, key=lambda name: (_rank(grouping, name), name))


def count(outcomes: Sequence[Outcome], what: Callable[[Outcome], bool]) -> int:
    """Number of outcomes that fit."""
    return sum(map(what, outcomes))


def missing_videos(outcomes: Iterable[Outcome]) -> list[str]:
    """Ids of videos without answers because their files are missing."""
    return sorted({one.video_id for one in outcomes if one.response is None})
