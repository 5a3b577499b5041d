"""The tables of Video-MME: durations, domains, sub-categories, task types, by setting, with standard errors; as rows of texts
and as JSON.

A cell reads "61.3 ±1.9": accuracy in percent and its standard error in points, clustered by video (1.96 of it is half
a 95 % interval). The figure is the official one; the last table holds both extractions and both denominators beside
each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from vedere.config import nearest
from vedere.errors import ConfigError
from vedere.evals.video_mme import taxonomy
from vedere.evals.video_mme.outcomes import (
    GROUPINGS,
    WHOLE,
    Cell,
    Key,
    Outcome,
    cells,
    crossed_cells,
    missing_videos,
    names_of,
)

Denominator = Literal["answered", "all"]
Extraction = Literal["official", "corrected"]
SCOPES = (WHOLE, *taxonomy.DURATIONS)
TITLES = {"domain": "domain", "sub_category": "sub-category", "task_type": "task type"}
Line = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table: a title, the names of its columns, its lines."""

    title: str
    head: Line
    lines: tuple[Line, ...]


def figure(cell: Cell | None, extraction: Extraction = "official", denominator: Denominator = "answered") -> str:
    """A cell as text; a dash for one without questions."""
    if cell is None:
        return "-"
    reading = cell.official if extraction == "official" else cell.corrected
    value, error = (
        (reading.accuracy, reading.error) if denominator == "answered" else (reading.strict, reading.strict_error)
    )
    return f"{value:.1f}" if error is None else f"{value:.1f} ±{error:.1f}"


def tables(results: Mapping[str, Sequence[Outcome]]) -> list[Table]:
    """All tables of one model.

    Args:
        results: Name of a setting -> its outcomes.
    """
    counted = {name: cells(outcomes) for name, outcomes in results.items()}
    made = [_leaderboard(counted)]
    made += [_grouping(counted, grouping) for grouping in GROUPINGS]
    return [*made, _denominators(counted, results)]


def _leaderboard(counted: Mapping[str, Mapping[Key, Cell]]) -> Table:
    lines = [
        (setting, *(figure(found.get((scope, "overall", ""))) for scope in SCOPES))
        for setting, found in counted.items()
    ]
    return Table("overall and by duration", ("setting", "overall", *taxonomy.DURATIONS), tuple(lines))


def _grouping(counted: Mapping[str, Mapping[Key, Cell]], grouping: str) -> Table:
    names = names_of((key for found in counted.values() for key in found), grouping)
    head = [TITLES[grouping], "questions"]
    several = len(counted) > 1
    for setting in counted:
        head += [f"{scope}, {setting}" if several else scope for scope in SCOPES]
    lines = []
    for name in names:
        whole = [found[WHOLE, grouping, name] for found in counted.values() if (WHOLE, grouping, name) in found]
        entries = [figure(found.get((scope, grouping, name))) for found in counted.values() for scope in SCOPES]
        lines.append((name, str(max(cell.questions for cell in whole)), *entries))
    return Table(f"by {TITLES[grouping]}", tuple(head), tuple(lines))


def _denominators(counted: Mapping[str, Mapping[Key, Cell]], results: Mapping[str, Sequence[Outcome]]) -> Table:
    kinds: tuple[tuple[Extraction, Denominator, str], ...] = (
        ("official", "answered", "official"),
        ("official", "all", "official, all"),
        ("corrected", "answered", "corrected"),
        ("corrected", "all", "corrected, all"),
    )
    head = ("setting", "videos", "questions", "no letter", *(name for *_, name in kinds), "missing videos")
    lines = []
    for setting, found in counted.items():
        for scope in SCOPES:
            cell = found.get((scope, "overall", ""))
            if cell is None:
                continue
            figures = [figure(cell, extraction, denominator) for extraction, denominator, _ in kinds]
            none = str(cell.questions - cell.official.answered)
            missing = str(len(missing_videos(results[setting]))) if scope == WHOLE else ""
            name = setting if scope == WHOLE else f"{setting}, {scope}"
            lines.append((name, str(cell.videos), str(cell.questions), none, *figures, missing))
    return Table("both extractions, of the answered questions and of all", head, tuple(lines))


def crossed(results: Mapping[str, Sequence[Outcome]], fields: Sequence[str]) -> Table:
    """One table of every combination of fields, a column a setting.

    Args:
        results: Name of a setting -> its outcomes.
        fields: Some of ``duration``, ``domain``, ``sub_category``, ``task_type``, in order.

    Raises:
        ConfigError: another field, or one twice.
    """
    valid = ("duration", *GROUPINGS)
    for name in fields:
        if name not in valid or fields.count(name) > 1:
            raise ConfigError(f"'{name}'{nearest(name, valid)} (a table goes by some of {', '.join(valid)}, each once)")
    counted = {setting: crossed_cells(outcomes, fields) for setting, outcomes in results.items()}
    keys = list(dict.fromkeys(key for found in counted.values() for key in found))
    lines = []
    for key in keys:
        questions = max(found[key].questions for found in counted.values() if key in found)
        lines.append((*key, str(questions), *(figure(found.get(key)) for found in counted.values())))
    names = [TITLES.get(name, name) for name in fields]
    return Table(f"by {' and '.join(names)}", (*names, "questions", *counted), tuple(lines))


def as_json(results: Mapping[str, Sequence[Outcome]]) -> dict[str, Any]:
    """The same cells as JSON: setting -> scope -> grouping -> name -> cell."""
    found: dict[str, Any] = {}
    for setting, outcomes in results.items():
        scopes: dict[str, Any] = {}
        for (scope, grouping, name), cell in cells(outcomes).items():
            entry = scopes.setdefault(scope, {})
            if grouping == "overall":
                entry["overall"] = dataclasses.asdict(cell)
            else:
                entry.setdefault(grouping, {})[name] = dataclasses.asdict(cell)
        found[setting] = {"cells": scopes, "missing_videos": missing_videos(outcomes)}
    return found
