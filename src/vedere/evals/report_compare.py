"""Two runs of one benchmark, item by item: differences with intervals, over all items and by tag. Pure.

Only items that both runs have are compared, and their number is said. An item without a verdict has no credit; in safety
runs it is in no comparison instead, because a judge's silence says nothing about the model. The interval is clustered by the
items' groups (`vedere.evals.intervals`); where it and the bootstrap's disagree on which side of zero they lie, there are few
clusters, and neither should be believed alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vedere.errors import RecordError
from vedere.evals.intervals import Comparison, compare
from vedere.evals.report_records import ReportRun, tables_of

LEAST = 5
"""Fewest groups of a tag's value that is compared: fewer say too little about their spread."""


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Two runs compared; second minus first.

    Attributes:
        first: Model of the first run.
        second: Of the second.
        items: Items that both have.
        only_one: Items that one of them lacks.
        unjudged: Items of safety runs left out because one of them has no verdict.
        whole: Over all common items.
        by: Tag -> value -> comparison.
    """

    first: str
    second: str
    items: int
    only_one: int
    unjudged: int
    whole: Comparison
    by: Mapping[str, Mapping[str, Comparison]] = field(default_factory=dict)


def pair(first: ReportRun, second: ReportRun, *, draws: int = 2000) -> Paired:
    """Compares two runs of one benchmark.

    Raises:
        RecordError: of two benchmarks, or without a common item.
    """
    if first.benchmark != second.benchmark:
        raise RecordError(f"a run of {first.benchmark} and one of {second.benchmark}; expected two of one benchmark")
    places = {item.id: place for place, item in enumerate(second.items)}
    shared = [(place, places[item.id]) for place, item in enumerate(first.items) if item.id in places]
    common = shared
    if first.private or second.private:
        common = [(a, b) for a, b in shared if None not in (first.items[a].credit, second.items[b].credit)]
    if not common:
        raise RecordError(
            f"{first.model} and {second.model} have no item of {first.benchmark} in common that can be "
            "compared; is it the same data?"
        )
    ours, theirs, clusters = first.credits, second.credits, first.clusters

    def compared(places: Sequence[tuple[int, int]]) -> Comparison:
        return compare(
            [ours[a] for a, _ in places], [theirs[b] for _, b in places], [clusters[a] for a, _ in places], draws=draws
        )

    by: dict[str, dict[str, Comparison]] = {}
    other = dict(common)
    for name, values in tables_of(first).items():
        parts = {value: [(a, other[a]) for a in found if a in other] for value, found in values.items()}
        large = {
            value: compared(found) for value, found in parts.items() if len({clusters[a] for a, _ in found}) >= LEAST
        }
        if large:
            by[name] = large
    return Paired(
        first=first.model,
        second=second.model,
        items=len(common),
        only_one=len(first.items) + len(second.items) - 2 * len(shared),
        unjudged=len(shared) - len(common),
        whole=compared(common),
        by=by,
    )
