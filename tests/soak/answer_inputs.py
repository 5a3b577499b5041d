"""Answer texts and result rows, damaged: whatever a model says gets a verdict, whatever a row lacks is told by its line."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

from cases import Case, law
from mutations import VALUES, damage_json

from vedere.evals.benchmarks import score_rows
from vedere.evals.open_suite import data_folder
from vedere.evals.records import Row, Scores
from vedere.evals.safety.rubrics import RUBRICS

FOUR = {"options": ["red", "blue", "green", "white"], "answer": "B"}
CHOICE = {"question_type": "multiple-choice", "answer": "A", "index2ans": {"A": "x", "B": "y"}, "response": "A"}
PLACES = {"duration": "short", "domain": "Film", "sub_category": "Animation", "task_type": "Counting Problem"}
ROWS: dict[str, list[dict[str, Any]]] = {
    "video-mme": [{"question_id": f"001-{n}", **PLACES, "answer": "ABCD"[n % 4], "response": "A"} for n in range(4)],
    "mmstar": [{"index": n, "question": "q", "answer": "A", "category": "c", "prediction": "A"} for n in range(3)],
    "blink": [{"task": "t", "idx": n, "answer": "(A)", "prediction": "(A)"} for n in range(3)],
    "seed": [
        {"question_id": n, **{f"choice_{x}": f"o{x}" for x in "abcd"}, "answer": "A", "prediction": "A", "question_type_id": 1}
        for n in range(3)
    ],
    "ai2d": [{"index": n, **FOUR, "prediction": "B"} for n in range(3)],
    "scienceqa": [{"index": n, **FOUR, "prediction": "B"} for n in range(3)],
    "realworldqa": [{"index": n, **FOUR, "prediction": "B"} for n in range(3)],
    "mmbench": [{"index": n, "A": "x", "B": "y", "C": "z", "answer": "A", "prediction": "A"} for n in range(3)],
    "mmmu": [
        {**CHOICE, "id": f"validation_Art_{n}"}
        for n in range(3)
    ],
    "mmmu-pro": [{"id": n, "options": ["x", "y"], "answer": "A", "response": "Answer: A"} for n in range(3)],
    "textvqa": [{"id": n, "question": "q", "answers": ["bus"] * 10, "prediction": "bus"} for n in range(3)],
    "docvqa": [{"id": n, "answers": ["12 March"], "prediction": "12 March"} for n in range(3)],
    "chartqa": [{"id": n, "answer": "12.5", "prediction": "12.4"} for n in range(3)],
    "ocrbench": [{"id": n, "type": "Regular Text Recognition", "answers": ["STOP"], "prediction": "stop"} for n in range(3)],
    "pope": [{"id": n, "answer": "yes", "prediction": "Yes.", "split": "random"} for n in range(3)],
    "open-images": [{"id": f"i{n}", "kind": "choice", "category": "c", **FOUR, "prediction": "B"} for n in range(3)]
    + [{"id": "s", "kind": "short", "category": "c", "answer": ["14.50"], "prediction": "14.50"}],
}  # fmt: skip
WORDS = (
    "A",
    "(B)",
    "the answer is",
    "Answer:",
    "C.",
    "\\boxed{D}",
    "yes",
    "no",
    "not",
    "14.50",
    "1e999",
    "答案是 B",
    "Option",
    "I",
    "  ",
    "\n",
)
CHARACTERS = "ABCDabcd()[]{}.:,;*\\$#@ \t\n\0\u2028\u200b\u202e\ud800図🙂ß½²٣"


class Answers:
    """Rows of every scorer, and what judges say."""

    def __init__(self) -> None:
        shipped = [json.loads(line) for line in (data_folder() / "videos.jsonl").read_text("utf-8").splitlines()]
        self.videos = [{**row, "response": row["answer"]} for row in shipped]

    def case(self, rng: random.Random, folder: Path) -> Case:
        if rng.random() < 0.1:
            return self._verdict(rng)
        name = rng.choice([*ROWS, "open-videos"])
        rows = rng.sample(self.videos, 4) if name == "open-videos" else [dict(row) for row in ROWS[name]]
        at = rng.randrange(len(rows))
        field = "response" if "response" in rows[at] else "prediction"
        if rng.random() < 0.6:
            rows[at] = {**rows[at], field: said(rng)}
            return Case(
                what=f"{name}: answer",
                names=("line",),
                expect="works",
                run=lambda: check(name, rows, score_of(name, rows)),
            )
        damaged, what = damage_json(rows[at], rng)
        if not isinstance(damaged, dict):
            damaged, what = {}, "replace all"
        rows[at] = damaged
        return Case(what=f"{name}: {what}", names=("line",), run=lambda: check(name, rows, score_of(name, rows)))

    def _verdict(self, rng: random.Random) -> Case:
        """A judge's words: a verdict only if they are exactly one."""
        rubric = rng.choice(list(RUBRICS.values()))
        good = {name: rng.choice(list(values)) for name, values in rubric.fields.items()}
        text = json.dumps(good)
        expected: dict[str, str] | None = good
        if rng.random() < 0.7:
            damaged, _ = damage_json(good, rng)
            text = rng.choice((said(rng), json.dumps(damaged), text[: rng.randrange(len(text))], text + said(rng)))
            expected = None

        def run() -> None:
            found = rubric.read(text)
            law(expected is None or found == expected, "a verdict that is not read")
            if found is not None:
                law(set(found) == set(rubric.fields), "a verdict with other fields")
                law(all(found[name] in values for name, values in rubric.fields.items()), "a value that there is not")

        return Case(what="judge", names=("line",), expect="works", run=run)


def said(rng: random.Random) -> str:
    """What a model may say: words, noise, very long texts, nothing."""
    way = rng.randrange(5)
    if way == 0:
        return " ".join(rng.choices(WORDS, k=rng.randrange(12)))
    if way == 1:
        return "".join(rng.choices(CHARACTERS, k=rng.randrange(200)))
    if way == 2:
        return rng.choice(WORDS) * rng.choice((1, 50, 4000))
    if way == 3:
        return str(rng.choice([value for value in VALUES if isinstance(value, str)]))
    return rng.choice(WORDS) + "".join(map(chr, rng.choices(range(32, 0x2FFF), k=rng.randrange(300))))


def score_of(name: str, rows: list[dict[str, Any]]) -> Scores:
    """Scores rows; lines count from 1."""
    return score_rows(name, [Row(number, row) for number, row in enumerate(rows, 1)])


def check(name: str, rows: list[dict[str, Any]], scores: Scores) -> None:
    """Verdicts and figures are numbers where they should be, and the JSON form exists."""
    for verdict in scores.verdicts:
        law(verdict.credit is None or 0 <= verdict.credit <= 1, f"a credit of {verdict.credit}")
        law(1 <= verdict.line <= len(rows), f"a verdict of line {verdict.line}")

    def finite(value: Any) -> bool:
        if isinstance(value, dict):
            return all(map(finite, value.values()))
        if isinstance(value, (list, tuple)):
            return all(map(finite, value))
        return not isinstance(value, float) or math.isfinite(value)

    law(finite(dict(scores.figures)), f"a figure of {name} that is no number")
    law(len(json.dumps(dict(scores.figures), allow_nan=False)) > 2, "no figures")


def make(folder: Path) -> Answers:
    """The family."""
    return Answers()
