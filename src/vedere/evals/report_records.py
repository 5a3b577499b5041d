"""What a report shows of a run: items with answers and credits, whatever kind of log they come from.

`vedere.evals.report_sources` makes these from logs; pictures are small JPEGs by then. A private run (a safety log) has items
of id, category and label only: its `ReportItem`s have no question, no answer and no picture; nothing further on can leak.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vedere.errors import RecordError


@dataclass(frozen=True, kw_only=True)
class ReportItem:
    """An item with one model's answer.

    Attributes:
        id: Unique in the run.
        question: What was asked.
        options: Letter -> text.
        target: The right answer.
        answer: What the model said.
        read: What the rules read in it.
        credit: 0 to 1; None where there is no verdict.
        label: The verdict in a word, where it is more than right or wrong.
        group: Items of a group are not independent.
        tags: Name -> value: category, duration, task.
        media: Small pictures, as JPEG or PNG files.
        note: Why there is no answer or no verdict.
    """

    id: str
    question: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    answer: str = ""
    read: str = ""
    credit: float | None = None
    label: str = ""
    group: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    media: Sequence[bytes] = ()
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class ReportRun:
    """One model on one benchmark.

    Attributes:
        benchmark: Its name.
        model: Of the model, as people call it.
        items: In order.
        figures: Official figures, nested.
        facts: Name -> value: date, prompt set, judge, versions.
        private: Items are ids, categories and labels only.
        rates: Of a private run: what `vedere.evals.safety.rates.summary` says of its set.
    """

    benchmark: str
    model: str
    items: Sequence[ReportItem]
    figures: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    private: bool = False
    rates: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks the ids, and that a private run shows nothing.

        Raises:
            RecordError: an id comes twice, or a private item has a text or a picture.
        """
        seen: set[str] = set()
        for item in self.items:
            if item.id in seen:
                raise RecordError(f"{self.benchmark} has the id '{item.id}' twice; expected one answer an item")
            seen.add(item.id)
            if self.private and any((item.question, item.answer, item.options, item.media, item.target, item.read)):
                raise RecordError(f"{self.benchmark} {item.id} would show more than id, category and label")

    @property
    def credits(self) -> list[float]:
        """Credit of each item; one without a verdict has none."""
        return [item.credit or 0.0 for item in self.items]

    @property
    def clusters(self) -> list[str]:
        """Cluster of each item, an item alone being its own."""
        return [f"group {item.group}" if item.group else f"item {item.id}" for item in self.items]


MOST_VALUES = 40
"""Tags with more values than this are no table."""


def tables_of(run: ReportRun) -> dict[str, dict[str, list[int]]]:
    """Tag -> value -> places of its items; tags with one value or too many are left out."""
    found: dict[str, dict[str, list[int]]] = {}
    for place, item in enumerate(run.items):
        for name, value in item.tags.items():
            found.setdefault(name, {}).setdefault(value, []).append(place)
    return {name: values for name, values in found.items() if 1 < len(values) <= MOST_VALUES}
