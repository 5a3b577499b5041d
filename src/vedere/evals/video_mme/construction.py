"""Checks for a team that builds a set in Video-MME's form (arXiv 2405.21075, section 3): balance, answers without the video.

* Letters: the shares of right letters against an even spread (chi-square, three degrees of freedom), and what a model
  scores that always says one letter. The published set has 27.2 % B.
* Lengths of options: how often the right one is the longest or the shortest; a quarter is chance.
* Durations, sub-categories, task types: counts against an even spread or the published shape.
* Texts: questions or options that come twice.
* Answerable from text alone: runs with the prompt set ``text-only``. Questions that most runs answer right without the video
  go back to their authors; the published set ended below 15 %, under chance, because such questions had been removed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vedere.errors import RecordError
from vedere.evals.clusters import clustered_error
from vedere.evals.video_mme import taxonomy
from vedere.evals.video_mme.outcomes import Outcome
from vedere.evals.video_mme.questions import Question

CHANCE = 1 / len(taxonomy.LETTERS)
_UNLIKELY = 0.01
"""Below this probability an imbalance is told."""


def uneven_probability(counts: Sequence[int]) -> float:
    """Probability that an even draw of four letters is at least as uneven as these counts (Pearson's chi-square).

    With three degrees of freedom the tail has a closed form: erfc(sqrt(x/2)) + sqrt(2x/pi) exp(-x/2).

    Raises:
        ValueError: not four counts.
    """
    if len(counts) != len(taxonomy.LETTERS):
        raise ValueError(f"{len(counts)} counts; expected {len(taxonomy.LETTERS)}")
    expected = sum(counts) / len(counts)
    if not expected:
        return 1.0
    x = sum((count - expected) ** 2 for count in counts) / expected
    return math.erfc(math.sqrt(x / 2)) + math.sqrt(2 * x / math.pi) * math.exp(-x / 2)


@dataclass(frozen=True, kw_only=True)
class Balance:
    """What `balance` found.

    Attributes:
        questions: Number of questions. letters: Right answers by letter. even: Probability of so uneven letters by
        chance. always: The best letter to always say, and the share it scores. longest: Share of questions whose
        right option is the longest (ties count in parts), and standard errors from chance. shortest: The same for the
        shortest. videos: Videos by duration. cells: Videos by sub-category and duration. tasks: Questions by task
        type and duration. findings: What should be looked at, one sentence each.
    """

    questions: int
    letters: Mapping[str, int]
    even: float
    always: tuple[str, float]
    longest: tuple[float, float]
    shortest: tuple[float, float]
    videos: Mapping[str, int]
    cells: Mapping[str, Mapping[str, int]]
    tasks: Mapping[str, Mapping[str, int]]
    findings: tuple[str, ...]


def balance(questions: Sequence[Question]) -> Balance:
    """Counts letters, option lengths, durations, sub-categories, task types and repeated texts.

    Raises:
        RecordError: no questions.
    """
    if not questions:
        raise RecordError("0 questions to check; expected at least one")
    letters = {letter: sum(one.answer == letter for one in questions) for letter in taxonomy.LETTERS}
    best = max(letters, key=lambda letter: letters[letter])
    place = {one.video_id: one for one in questions}
    found = Balance(
        questions=len(questions),
        letters=letters,
        even=uneven_probability(list(letters.values())),
        always=(best, letters[best] / len(questions)),
        longest=_extreme(questions, max),
        shortest=_extreme(questions, min),
        videos=_ordered(Counter(one.duration for one in place.values()), taxonomy.DURATIONS),
        cells=_crossed((one.sub_category, one.duration) for one in place.values()),
        tasks=_crossed((one.task_type, one.duration) for one in questions),
        findings=(),
    )
    return Balance(**{**vars(found), "findings": tuple(_findings(found, questions))})


def _extreme(questions: Sequence[Question], pick: Any) -> tuple[float, float]:
    share = 0.0
    for one in questions:
        sizes = [len(option) for option in one.options]
        end = pick(sizes)
        hit = sizes[taxonomy.LETTERS.index(one.answer)] == end
        share += hit / sizes.count(end)
    share /= len(questions)
    return share, (share - CHANCE) / math.sqrt(CHANCE * (1 - CHANCE) / len(questions))


def _ordered(counts: Mapping[str, int], order: Sequence[str]) -> dict[str, int]:
    names = [*(name for name in order if name in counts), *sorted(set(counts) - set(order))]
    return {name: counts[name] for name in names}


def _crossed(pairs: Iterable[tuple[str, str]]) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = {}
    for name, duration in pairs:
        found.setdefault(name, Counter())[duration] += 1
    return {name: _ordered(counts, taxonomy.DURATIONS) for name, counts in sorted(found.items())}


def _findings(found: Balance, questions: Sequence[Question]) -> list[str]:
    said = []
    if found.even < _UNLIKELY:
        spread = ", ".join(f"{letter} {count}" for letter, count in found.letters.items())
        said.append(
            f"the right letters are uneven ({spread}; probability {found.even:.2g}): always {found.always[0]} scores "
            f"{100 * found.always[1]:.1f} %; move right answers to rarer letters"
        )
    for name, (share, errors) in (("longest", found.longest), ("shortest", found.shortest)):
        if errors > 3:
            said.append(
                f"the right option is the {name} in {100 * share:.1f} % of questions (chance 25 %): lengthen or shorten "
                "wrong ones"
            )
    if found.videos and max(found.videos.values()) > 1.2 * min(found.videos.values()):
        said.append(f"videos by duration are uneven: {', '.join(f'{n} {c}' for n, c in found.videos.items())}")
    absent = [name for name in taxonomy.DURATIONS if name not in found.videos]
    if absent:
        said.append(f"no {', '.join(absent)} videos")
    thin = sorted(
        f"{name}/{duration}"
        for name, counts in found.cells.items()
        for duration in found.videos
        if not counts.get(duration)
    )
    if thin:
        said.append(f"{len(thin)} sub-categories lack a duration: {', '.join(thin[:6])}{' ...' * (len(thin) > 6)}")
    said += _repeats(questions)
    return said


def _repeats(questions: Sequence[Question]) -> list[str]:
    said = []
    texts: dict[tuple[str, ...], list[str]] = {}
    for one in questions:
        texts.setdefault((one.video_id, " ".join(one.question.lower().split())), []).append(one.question_id)
        bare = [option[2:].strip().lower() for option in one.options]
        if len(set(bare)) < len(bare):
            said.append(f"{one.question_id} has the same option twice")
        if any(not text for text in bare):
            said.append(f"{one.question_id} has an option without words")
    said += [f"{', '.join(names)} ask the same of one video" for names in texts.values() if len(names) > 1]
    return said


@dataclass(frozen=True, kw_only=True)
class Answerable:
    """How far questions are answered without their video.

    Attributes:
        runs: Runs that were counted.
        questions: Questions that all runs were asked.
        accuracy: Share right, over questions and runs, without a letter counted as wrong.
        error: Its standard error, clustered by video; None for one video.
        revise: Questions that so many runs answered right: ids, most runs first.
        needed: Runs that have to be right for a question to be in ``revise``.
        by_task: Share right by task type.
    """

    runs: int
    questions: int
    accuracy: float
    error: float | None
    revise: tuple[str, ...]
    needed: int
    by_task: Mapping[str, float]


def answerable(runs: Sequence[Sequence[Outcome]], needed: int | None = None) -> Answerable:
    """Counts right answers of runs that did not see the videos.

    Args:
        runs: Outcomes of each run (several models, or one with several seeds).
        needed: Runs that have to be right before a question is sent back; by default more than half of them.

    Raises:
        RecordError: no runs, or runs without a common question.
    """
    if not runs:
        raise RecordError("0 runs without the videos; expected at least one result file")
    tables = [{one.question_id: one for one in run if one.response is not None} for run in runs]
    common = [name for name in tables[0] if all(name in table for table in tables)]
    if not common:
        raise RecordError("the runs have no question in common; expected results on the same questions")
    needed = len(runs) // 2 + 1 if needed is None else needed
    right = {name: sum(table[name].corrected == table[name].answer for table in tables) for name in common}
    clusters: dict[str, tuple[float, float]] = {}
    tasks: dict[str, list[float]] = {}
    for name in common:
        share = right[name] / len(runs)
        credit, count = clusters.get(tables[0][name].video_id, (0.0, 0.0))
        clusters[tables[0][name].video_id] = (credit + share, count + 1)
        tasks.setdefault(tables[0][name].task_type, []).append(share)
    revise = sorted((name for name in common if right[name] >= needed), key=lambda name: (-right[name], name))
    return Answerable(
        runs=len(runs),
        questions=len(common),
        accuracy=sum(right.values()) / (len(runs) * len(common)),
        error=clustered_error(clusters.values()),
        revise=tuple(revise),
        needed=needed,
        by_task={name: sum(shares) / len(shares) for name, shares in sorted(tasks.items())},
    )
