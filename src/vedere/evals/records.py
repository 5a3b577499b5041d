"""Rows of a result file, with line numbers, and what scoring them gives.

A result file is JSONL, one answer a line; one JSON array or object is taken too. Every complaint names the line. Repeated
questions count once: the first row stays, later ones are left out and counted.

Cost: the file is held in memory, about 1 kB an answer.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vedere.answers import FINAL_RULES
from vedere.errors import RecordError

_NAMES = ("id", "index", "pid", "idx", "question_id", "i")
_PLACE = (
    *("run", "dataset", "dataset_name", "split", "sampling", "subset", "setting", "category", "subcategory", "set_id"),
    *("figure_id", "visual_input", "group", "task", "video_id"),
)
FINAL_RULE = "final_rule"
"""Field of a row that names the rule for the final answer of a reasoning response."""
_LARGEST = 1e300
_TOPIC = ("domain", "type", "source")
_CONTENT = ("image", "question", "sent")
_TRUTH = ("answer", "answers")


@dataclass(frozen=True)
class Row:
    """One recorded answer and the line it stands on; getters raise `RecordError` with line, field and what was expected."""

    line: int
    data: Mapping[str, Any]

    def fail(self, problem: str, expected: str) -> RecordError:
        """Return the error that names this row's line."""
        return RecordError(f"line {self.line}: {problem}; expected {expected}")

    def has(self, *names: str) -> bool:
        """Say whether one of the fields is there (a null counts as absent, as does the NaN of an empty cell)."""
        return any(not _null(self.data.get(name)) for name in names)

    def get(self, *names: str) -> Any:
        """Return the first of the fields that is there."""
        for name in names:
            if not _null(self.data.get(name)):
                return self.data[name]
        there = ", ".join(f"'{name}'" for name in self.data) or "nothing"
        empty = next((name for name in names if name in self.data), "")
        problem = f"'{empty}' is null" if empty else f"no field '{names[0]}' (the row has {there})"
        raise self.fail(problem, ("a value for " if empty else "") + " or ".join(f"'{name}'" for name in names))

    def text(self, *names: str) -> str:
        """Return a text; numbers are taken as their text."""
        value = self.data.get(names[0])
        if isinstance(value, str):
            return value
        value = self.get(*names)
        if isinstance(value, str):
            return value
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return str(value)
        raise self.fail(f"'{names[0]}' is {_shown(value)}", "a text")

    def answer(self, *names: str) -> str:
        """Return the model's answer, by default field ``prediction`` or ``response``; null means an empty answer.

        Field ``final_rule`` names how a response that reasons first is read (`vedere.answers.FINAL_RULES`).
        """
        names = names or ("prediction", "response")
        first = self.data.get(names[0])
        if not isinstance(first, str):
            first = "" if not self.has(*names) and any(name in self.data for name in names) else self.text(*names)
        rule = self.data.get(FINAL_RULE)
        if rule is None:
            return first
        if rule not in FINAL_RULES:
            raise self.fail(f"'{FINAL_RULE}' is {_shown(rule)}", " or ".join(f"'{name}'" for name in FINAL_RULES))
        return FINAL_RULES[rule](first)

    def texts(self, *names: str) -> list[str]:
        """Return a list of texts; a single text is a list of one, unless it is the text of a list, as tables have it."""
        value = _held(self.get(*names))
        values = value if isinstance(value, list) else [value]
        if not values or any(isinstance(one, bool) or not isinstance(one, (str, int, float)) for one in values):
            raise self.fail(f"'{names[0]}' is {_shown(value)}", "a text or a list of texts, at least one")
        return [str(one) for one in values]

    def number(self, *names: str) -> float:
        """Return a finite number."""
        value = self.get(*names)
        if _is_number(value):
            return float(value)
        raise self.fail(f"'{names[0]}' is {_shown(value)}", "a number")

    def whole(self, *names: str) -> int:
        """Return a whole number; its text is taken too, as tables give it."""
        value = self.get(*names)
        if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,18}(\.0*)?\s*", value):
            value = int(value.split(".")[0])
        if _is_number(value) and value == int(value):
            return int(value)
        raise self.fail(f"'{names[0]}' is {_shown(value)}", "a whole number")

    def numbers(self, *names: str, count: int | None = None) -> list[float]:
        """Return a list of finite numbers, of the given length where one is given; the text of a list is taken too."""
        value = _held(self.get(*names))
        good = isinstance(value, list) and all(map(_is_number, value))
        if not good or (count is not None and len(value) != count) or not value:
            raise self.fail(f"'{names[0]}' is {_shown(value)}", f"a list of {count or 'at least one'} numbers")
        return [float(one) for one in value]

    def options(self) -> dict[str, str]:
        """Return letter -> text of the options that are there.

        Field ``options`` (object, list or the text of one), ``choices``, or fields A ... Z; empty ones are absent options, gaps
        are allowed.
        """
        value = _held(next((self.data[name] for name in ("options", "choices") if self.has(name)), None))
        if value is None:
            value = {letter: self.data[letter] for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if letter in self.data}
        if isinstance(value, list):
            value = dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", value, strict=False))
        if not isinstance(value, dict) or any(len(str(key)) != 1 or not "A" <= str(key) <= "Z" for key in value):
            raise self.fail(
                f"'options' is {_shown(value)}", "a list of texts, or an object from capital letters to texts"
            )
        there = {key: str(text) for key, text in value.items() if not _absent(text)}
        if not there:
            raise self.fail("the row has no options", "'options', or fields 'A', 'B', ... with texts")
        return there


def listed(value: Any) -> list[str]:
    """Returns a list that a table holds as a text: JSON, or the text of a Python list; a text that is none is a list of one."""
    found = _held(value)
    return [str(one) for one in found] if isinstance(found, list) else [str(found).strip()]


def _held(value: Any) -> Any:
    """What a text holds that is the text of a list; any other value as it is."""
    text = value.strip() if isinstance(value, str) else ""
    if not (text.startswith("[") and text.endswith("]")):
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(found, list):
            return found
    return value


def _null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _LARGEST
    )  # a NaN is not less


def _absent(text: Any) -> bool:
    return _null(text) or str(text).strip() in ("", "nan")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a row was found to be worth.

    Attributes:
        line: Line of the row.
        credit: 0 to 1; None where the row is not judged (unanswered, or open to a judge model).
        extracted: What the rule read in the answer; None if nothing.
    """

    line: int
    credit: float | None
    extracted: str | None = None


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Figures of a result file, as ``vedere score --json`` prints them, the verdicts under them, and counts beside them."""

    figures: Mapping[str, Any]
    verdicts: Sequence[Verdict] = ()
    counts: Mapping[str, int] = field(default_factory=dict)


def read_rows(path: Path) -> list[Row]:
    """Read a result file.

    Raises:
        RecordError: for a file that is not there, is not UTF-8, holds no row, or has a line that is no JSON object.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise RecordError(
            f"{path} cannot be read ({error.strerror}); expected a JSONL file of recorded answers"
        ) from None
    except UnicodeDecodeError as error:
        raise RecordError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    rows = list(_whole(text) or _lines(text, path))
    if not rows:
        raise RecordError(f"{path} holds no answers; expected one JSON object a line")
    return rows


def _whole(text: str) -> list[Row] | None:
    """Rows of a file that is one array, or one object over several lines."""
    if not text.lstrip().startswith(("[", "{\n", "{\r")):
        return None
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    found = data if isinstance(data, list) else [data]
    for number, one in enumerate(found, 1):
        if not isinstance(one, dict):
            raise RecordError(f"item {number} of the array is {_shown(one)}; expected a JSON object")
    return [Row(number, one) for number, one in enumerate(found, 1)]


def _lines(text: str, path: Path) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
        except (ValueError, RecursionError) as error:
            why = getattr(error, "msg", str(error))
            raise RecordError(
                f"{path.name} line {number} is no JSON ({why}); expected one JSON object a line"
            ) from None
        if not isinstance(data, dict):
            raise RecordError(f"{path.name} line {number} is {_shown(data)}; expected a JSON object")
        yield Row(number, data)


def name_of(row: Row) -> str:
    """Return what a row's question is called across files: its first identifier with its place, else its line."""
    found = next((str(row.data[name]) for name in _NAMES if row.data.get(name) is not None), f"line {row.line}")
    place = (str(row.data[name]) for name in _PLACE if isinstance(row.data.get(name), (str, int)))
    return "/".join((*place, found))


def without_repeats(rows: Iterable[Row]) -> tuple[list[Row], int]:
    """Return the rows whose question has not come before, and the number of those left out.

    A question is known by its identifiers together with its place (split, video, ...), image, question text and right answer.
    Rows without an identifier that have neither image nor text are all kept.
    """
    seen = set()
    kept = []
    count = 0
    for row in rows:
        named = row.has(*_NAMES) or (row.has("image") and row.has("question", "dataset"))
        key = json.dumps([row.data.get(name) for name in (*_NAMES, *_PLACE, *_TOPIC, *_CONTENT, *_TRUTH)], default=str)
        if named and key in seen:
            count += 1
            continue
        seen.add(key)
        kept.append(row)
    return kept, count


def mean(values: Iterable[float]) -> float:
    """Return the mean, 0 for no values."""
    found = list(values)
    return sum(found) / len(found) if found else 0.0


def by(rows: Iterable[Row], verdicts: Iterable[Verdict], name: str) -> dict[str, list[Verdict]]:
    """Return the verdicts by a field's value, in order of appearance; rows without the field are left out."""
    groups: dict[str, list[Verdict]] = {}
    for row, verdict in zip(rows, verdicts, strict=True):
        values = row.data.get(name)
        for value in values if isinstance(values, list) else [values]:
            if value is not None:
                groups.setdefault(str(value), []).append(verdict)
    return groups


def credit(verdicts: Iterable[Verdict]) -> float:
    """Return the mean credit; rows that are not judged count as wrong."""
    return mean(verdict.credit or 0.0 for verdict in verdicts)
