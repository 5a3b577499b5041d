"""From records with answers to what is reported: figures, denominators, clustered standard error, versions of the rules.

The same function serves a run's end and ``vedere score log``, so a finished log gives the same figures again, or those of
newer rules, with nothing but itself.

Standard error: questions about one picture or video are not independent, so it is clustered by them (`vedere.evals.clusters`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vedere.answers import ANSWER_RULES_VERSION
from vedere.evals.benchmarks import SCORING_RULES_VERSION
from vedere.evals.intervals import standard_error
from vedere.evals.items import Benchmark
from vedere.evals.records import Scores, Verdict


@dataclass(frozen=True, kw_only=True)
class Asked:
    """An item after the run, as the log keeps it.

    Attributes:
        id: Of the item.
        record: The scorer's fields, answer and judge's fields included.
        group: Cluster; empty for an item that stands alone.
        metadata: What was shown beside it.
        not_asked: Why the model was not asked (an unreadable picture); empty if it was.
        judge: ``rules``, ``read``, ``unread``, or empty where nothing was to be judged.
    """

    id: str
    record: Mapping[str, Any]
    group: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    not_asked: str = ""
    judge: str = ""


def summarise(benchmark: Benchmark, asked: Sequence[Asked], failed: int = 0) -> dict[str, Any]:
    """Returns what is reported of a run.

    Args:
        benchmark: Whose scorer it is.
        asked: Items with their answers, in the benchmark's order.
        failed: Items without an answer because their sample failed; they are in no figure.

    Returns:
        ``figures`` (those of ``vedere score``), ``credit`` (mean of the verdicts with its clustered standard error),
        ``counts`` (denominators) and ``rules`` (versions).

    Raises:
        RecordError: a record does not fit; the message names its place.
    """
    scores = benchmark.score([one.record for one in asked])
    lines = [verdict.credit or 0.0 for verdict in scores.verdicts]
    groups = [one.group or one.id for one in asked]
    credit: dict[str, Any] = {}
    if len(lines) == len(asked):
        credit = {
            "mean": sum(lines) / max(1, len(lines)),
            "standard_error": standard_error(lines, groups),
            "groups": len(set(groups)),
        }
    return {
        "figures": dict(scores.figures),
        "credit": credit,
        "counts": {**counts_of(asked, scores, failed)},
        "rules": {"scoring": SCORING_RULES_VERSION, "answers": ANSWER_RULES_VERSION},
    }


def counts_of(asked: Sequence[Asked], scores: Scores, failed: int) -> dict[str, int]:
    """Returns the denominators: every item is in exactly one of ``answered``, ``not_asked`` and ``failed``."""
    not_asked = sum(bool(one.not_asked) for one in asked)
    counts = {
        "items": len(asked) + failed,
        "answered": len(asked) - not_asked,
        "not_asked": not_asked,
        "failed": failed,
        **scores.counts,
    }
    for kind in ("rules", "read", "unread"):
        number = sum(one.judge == kind for one in asked)
        if number:
            counts[{"rules": "settled_by_rules", "read": "judged", "unread": "judge_unreadable"}[kind]] = number
    return counts


def flat(figures: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, float]]:
    """Yields nested figures as (name, number), names joined by a slash; what is no number is left out."""
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{before}{name}/")
        elif isinstance(value, (list, tuple)):
            yield from flat({str(place): one for place, one in enumerate(value)}, f"{before}{name}/")
        elif isinstance(value, (int, float)) and math.isfinite(value):
            yield before + str(name), float(value)


def shown(verdict: Verdict | None) -> tuple[float, str]:
    """Returns (credit, what was read) of a verdict for the viewer."""
    if verdict is None:
        return 0.0, ""
    return verdict.credit or 0.0, verdict.extracted or ""
