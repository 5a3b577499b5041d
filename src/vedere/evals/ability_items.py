"""Rows to items of Q-Bench, MuirBench and MMT-Bench, which MIS prints beside its rates: what safety tuning costs (2501.18533).

All three are multiple choice with one or several pictures; each maker takes VLMEvalKit's table and the official file. Sources:
Q-Bench's LLVisionQA (arXiv 2309.14181), MuirBench (2406.09411), MMT-Bench (2404.16006).
"""

from __future__ import annotations

import itertools
import re
from typing import Any

from vedere.evals.image_items import choice
from vedere.evals.items import Item
from vedere.evals.records import Row, listed

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_PLACES = ("category", "l2-category", "l2_category", "task", "type", "concern")


def ability(row: Row) -> list[Item]:
    """MuirBench and MMT-Bench: options as a list or in columns; ``<image>`` stands where the next picture goes."""
    data = dict(row.data)
    count = itertools.count(1)

    def numbered(text: str) -> str:
        return re.sub("<image>", lambda found: f"<image {next(count)}>", text)

    data["question"] = numbered(row.text("question"))
    for name in ("options", "choices"):
        if data.get(name):
            data[name] = [numbered(one) for one in listed(data[name])]
    for letter in _LETTERS:
        if isinstance(data.get(letter), str):
            data[letter] = numbered(data[letter])
    if not row.has("index", "id", "question_id") and row.has("idx"):
        data["index"] = row.text("idx")
    return _placed(Row(row.line, data))


def quality(row: Row) -> list[Item]:
    """Q-Bench: the official file has ``candidates`` and the right one's text, ``correct_ans``."""
    data = dict(row.data)
    if row.has("candidates"):
        candidates = row.texts("candidates")
        data["options"] = candidates
        if row.has("correct_ans"):
            right = row.text("correct_ans")
            if right not in candidates:
                raise row.fail(f"'correct_ans' is '{right[:40]}'", "one of the texts in 'candidates'")
            data["answer"] = _LETTERS[candidates.index(right)]
    return _placed(Row(row.line, data))


def _placed(row: Row) -> list[Item]:
    """The items, whose records say where they belong."""
    place: dict[str, Any] = {
        name: str(row.data[name]) for name in _PLACES if isinstance(row.data.get(name), (str, int))
    }
    items = choice(row)
    for item in items:
        assert isinstance(item.record, dict)
        item.record.update(place)
    return items
