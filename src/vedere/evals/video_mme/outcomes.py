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

from vedere.answers import video_mme_corrected, video_mme_letter
from vedere.evals.clusters import clustered_error
from vedere.evals.video_mme import taxonomy

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
        object.__setattr__(self, "official", video_mme_letter(self.response or ""))
        object.__setattr__(self, "corrected", video_mme_corrected(self.response or ""))


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


_Sums = dict[str, int]
"""Video -> five counts in one number, so that adding is one addition: questions, answered and right, for each extraction."""
_BITS = 24
_ANSWERED, _RIGHT, _CLEAR, _CLEAR_RIGHT = (1 << _BITS * place for place in (1, 2, 3, 4))
_MASK = (1 << _BITS) - 1


def _cell(sums: _Sums) -> Cell:
    rows = list(sums.values())
    questions, answered, right, clear, clear_right = ([row >> _BITS * k & _MASK for row in rows] for k in range(5))
    return Cell(
        questions=sum(questions),
        videos=len(rows),
        official=_reading(right, answered, questions),
        corrected=_reading(clear_right, clear, questions),
    )


def _reading(right: list[int], answered: list[int], questions: list[int]) -> Reading:
    correct, count, total = sum(right), sum(answered), sum(questions)
    error = clustered_error(zip(right, answered, strict=True))
    # with a letter for every question both denominators are the same
    strict_error = error if count == total else clustered_error(zip(right, questions, strict=True))
    return Reading(
        correct=correct,
        answered=count,
        accuracy=100 * correct / count if count else 0.0,
        error=None if error is None else 100 * error,
        strict=100 * correct / total if total else 0.0,
        strict_error=None if strict_error is None else 100 * strict_error,
    )


def _counts(one: Outcome) -> int:
    counts = 1
    if one.official:
        counts += _ANSWERED + (_RIGHT if one.official == one.answer else 0)
    if one.corrected:
        counts += _CLEAR + (_CLEAR_RIGHT if one.corrected == one.answer else 0)
    return counts


def crossed_cells(outcomes: Iterable[Outcome], fields: Sequence[str]) -> dict[tuple[str, ...], Cell]:
    """Cells of every combination of fields that occurs, in the order of the tables.

    Args:
        outcomes: Of one result.
        fields: Some of ``duration``, ``domain``, ``sub_category``, ``task_type``.
    """
    sums: dict[tuple[str, ...], _Sums] = {}
    for one in outcomes:
        if one.response is not None:
            videos = sums.setdefault(tuple(getattr(one, name) for name in fields), {})
            videos[one.video_id] = videos.get(one.video_id, 0) + _counts(one)
    kinds = ["scope" if name == "duration" else name for name in fields]

    def place(key: tuple[str, ...]) -> list[tuple[int, str]]:
        return [(_rank(kind, name), name) for kind, name in zip(kinds, key, strict=True)]

    return {key: _cell(sums[key]) for key in sorted(sums, key=place)}


def cells(outcomes: Iterable[Outcome]) -> dict[Key, Cell]:
    """Cells of all scopes and groupings that occur, in the order of the tables; strange names come last."""
    sums: dict[Key, _Sums] = {}
    for one in outcomes:
        if one.response is None:
            continue
        counts = _counts(one)
        scope, video = one.duration, one.video_id
        for key in (
            (scope, "overall", ""),
            (scope, "domain", one.domain),
            (scope, "sub_category", one.sub_category),
            (scope, "task_type", one.task_type),
        ):
            videos = sums.get(key)
            if videos is None:
                videos = sums[key] = {}
            videos[video] = videos.get(video, 0) + counts
    for (_, grouping, name), videos in list(sums.items()):  # the whole set is the durations together
        whole = sums.setdefault((WHOLE, grouping, name), {})
        for video, row in videos.items():
            whole[video] = whole.get(video, 0) + row
    return {key: _cell(sums[key]) for key in sorted(sums, key=_place)}


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
