"""Benchmarks of critics: RM-Bench, VL-RewardBench, VisualProcessBench, asked of any model that writes.

A generative model gives a reward as a number in its answer, a preference as the number of a response, and a verdict on steps as
a line of + and -. The wording is our own. A reward model's own scores (probabilities of a step) are scored by
``vedere score`` from a file instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from vedere.answers import first_number, first_or_second, signs
from vedere.evals.image_items import pictures
from vedere.evals.items import Item
from vedere.evals.records import Row, listed

UNREAD = -1.0
"""Stands for a reward that could not be read: below every reward."""


def rm_bench(row: Row) -> list[Item]:
    """RM-Bench: a prompt with three chosen and three rejected responses; six items, one a response."""
    identifier, asked = row.text("id"), row.text("prompt")
    items = []
    for side in ("chosen", "rejected"):
        responses = listed(row.get(side))
        if len(responses) != 3:
            raise row.fail(f"'{side}' has {len(responses)} responses", "three, one a style")
        for style, response in enumerate(responses):
            text = (
                "Grade a response to a prompt from 0 (useless or wrong) to 100 (correct and helpful). Reply with the number "
                f"alone.\n\n[Prompt]\n{asked}\n\n[Response]\n{response}\n\nGrade:"
            )
            record = {"id": identifier, "side": side, "style": style}
            shown = {"domain": row.text("domain")} if row.has("domain") else {}
            name = f"{identifier}/{side}/{style}"
            items.append(Item(id=name, parts=(text,), record=record, group=identifier, metadata=shown))
    return items


def rm_bench_rows(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns one row a prompt with its six rewards."""
    rows: dict[str, dict[str, Any]] = {}
    for record in records:
        row = rows.setdefault(
            str(record["id"]), {"id": record["id"], "score_chosen": [UNREAD] * 3, "score_rejected": [UNREAD] * 3}
        )
        reward = first_number(str(record["prediction"]))
        row[f"score_{record['side']}"][record["style"]] = UNREAD if reward is None else reward
    return list(rows.values())


def reward_bench(row: Row) -> list[Item]:
    """VL-RewardBench: which of two responses about a picture is better; their order is drawn by the id."""
    identifier = row.text("id")
    responses = listed(row.get("response", "responses"))
    ranking = [int(float(one)) for one in listed(row.get("human_ranking", "ranking"))]
    if len(responses) != 2 or sorted(ranking) != [0, 1]:
        raise row.fail(f"{len(responses)} responses ranked {ranking}", "two responses, ranked [0, 1] or [1, 0]")
    swapped = hashlib.sha256(identifier.encode()).digest()[0] % 2
    best = ranking.index(0)
    shown = responses[::-1] if swapped else responses
    text = (
        "Two responses were given to a question about the picture. Say which one is better: correct, and without anything that "
        "the picture does not show. Reply with 1 or 2 alone.\n\n"
        f"[Question]\n{row.text('query', 'question')}\n\n[Response 1]\n{shown[0]}\n\n[Response 2]\n{shown[1]}\n\nBetter:"
    )
    group = row.text("group", "task", "query_source")
    record = {"id": identifier, "group": group, "better": 2 - (best == swapped)}
    return [
        Item(
            id=identifier,
            parts=(*pictures(row), text),
            record=record,
            target=str(record["better"]),
            metadata={"group_name": group},
        )
    ]


def reward_bench_rows(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns rows that say whether the better response was named; an answer that names none is wrong."""
    rows = []
    for record in records:
        right = first_or_second(str(record["prediction"])) == record["better"]
        rows.append({"id": record["id"], "group": record["group"], "correct": int(right)})
    return rows


def visual_process(row: Row) -> list[Item]:
    """VisualProcessBench: is each step of a solution right?"""
    response = row.data.get("response")
    inner = Row(row.line, response) if isinstance(response, dict) else row
    steps = listed(inner.get("steps"))
    labels = [int(float(one)) for one in listed(inner.get("process_correctness", "labels"))]
    if len(steps) != len(labels):
        raise row.fail(f"{len(steps)} steps with {len(labels)} labels", "a label for each step")
    numbered = "\n".join(f"Step {number}: {step}" for number, step in enumerate(steps, 1))
    text = (
        f"### Question:\n{row.text('question')}\n\n### Solution Process:\n{numbered}\n\n"
        "For each step write + if the solution is right up to it, - if not. Reply with one line of "
        f"{len(steps)} signs, separated by blanks."
    )
    identifier = row.text("id", "index") if row.has("id", "index") else str(row.line)
    record = {"id": identifier, "labels": labels}
    if row.has("source", "data_source"):
        record["source"] = row.text("source", "data_source")
    target = " ".join({1: "+", -1: "-"}.get(label, "0") for label in labels)
    return [Item(id=identifier, parts=(*pictures(row, needed=False), text), record=record, target=target)]


def visual_process_rows(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns rows with a label for each step; an answer with another number of signs says that all are wrong."""
    rows = []
    for record in records:
        found, labels = signs(str(record["response"])), record["labels"]
        readable = len(found) == len(labels)
        said = [1 if right else -1 for right in found] if readable else [-1] * len(labels)
        kept = {name: record[name] for name in ("id", "labels", "source") if name in record}
        rows.append({**kept, "prediction": said, "unread": not readable})
    return rows
