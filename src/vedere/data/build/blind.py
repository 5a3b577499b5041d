"""Guessing without looking: the baseline that every reported skill has to beat, and the scores beside it.

The blind baseline answers each held-out question with the most frequent training answer to the same question text
(where the training set has enough of them), to the same type of question, or of the same kind. It is made twice, with
and without the question text, and the better one counts, because a model that reads only the question can do both.

Cost: one pass over the records.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vedere.answers import exact_match, normalise
from vedere.errors import RecordError

MIN_SUPPORT = 5
"""A question text is trusted from this many training answers on; rarer ones fall back to the type of question."""
Record = Mapping[str, Any]
_MEDIA = re.compile(r"^(<(image|video)>\n)+")


@dataclass(frozen=True, kw_only=True)
class Score:
    """Correct answers out of all."""

    correct: int
    total: int

    @property
    def accuracy(self) -> float:
        """Share of correct answers; 0 for an empty set."""
        return self.correct / self.total if self.total else 0.0


def read_records(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of all kinds in a stage's folder, in the order of the file names."""
    for path in sorted(folder.glob("*.jsonl")):
        with path.open(encoding="utf-8") as file:
            yield from (json.loads(line) for line in file if line.strip())


def turns(record: Record) -> list[tuple[str, str, str]]:
    """Return (question, answer, question type) of every turn of a record.

    Raises:
        RecordError: when questions, answers and question types do not come in equal numbers.
    """
    conversations = record["conversations"]
    types = str(record["question_type"]).split("+")
    humans = [_MEDIA.sub("", turn["value"]) for turn in conversations if turn["from"] == "human"]
    answers = [turn["value"] for turn in conversations if turn["from"] == "gpt"]
    if not len(humans) == len(answers) == len(types):
        raise RecordError(
            f"record '{record.get('id', '?')}' has {len(humans)} questions, {len(answers)} answers and {len(types)} "
            "question types (joined by '+'); there must be equally many"
        )
    return list(zip(humans, answers, types, strict=True))


class BlindGuesser:
    """The most frequent training answer, looked up by question text, question type or kind."""

    def __init__(self, records: Iterable[Record]) -> None:
        """Count the answers of the training records."""
        self._counts: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        for record in records:
            kind = str(record["kind"])
            for question, answer, question_type in turns(record):
                for key in ((kind, "text", normalise(question)), (kind, "type", question_type), (kind,)):
                    self._counts[key][answer] += 1

    def guess(self, kind: str, question: str, question_type: str, *, read_question: bool = True) -> str:
        """Return the guess, "" for a kind that was never seen; ties go to the answer that sorts first."""
        keys: list[tuple[str, ...]] = [(kind, "type", question_type), (kind,)]
        text = (kind, "text", normalise(question))
        if read_question and self._counts.get(text, Counter()).total() >= MIN_SUPPORT:
            keys.insert(0, text)
        for key in keys:
            if key in self._counts:
                return min(self._counts[key].items(), key=lambda pair: (-pair[1], pair[0]))[0]
        return ""


def blind_accuracy(train_records: Iterable[Record], heldout_records: Iterable[Record]) -> dict[str, float]:
    """Return the accuracy of guessing without looking, by kind: the better of the two guessers."""
    guesser = BlindGuesser(train_records)
    correct: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    total: Counter[str] = Counter()
    for record in heldout_records:
        kind = str(record["kind"])
        for question, answer, question_type in turns(record):
            total[kind] += 1
            for index, read_question in enumerate((False, True)):
                guess = guesser.guess(kind, question, question_type, read_question=read_question)
                correct[kind][index] += exact_match(guess, answer)
    return {kind: max(correct[kind]) / total[kind] for kind in sorted(total)}


def score_answers(heldout_records: Iterable[Record], answers: Mapping[str, str]) -> dict[str, Score]:
    """Score a model's answers by normalised exact match.

    Args:
        heldout_records: records with one question each.
        answers: record id -> answer; a record without an answer counts as wrong.

    Returns:
        Scores by kind (`"scenes"`) and by kind and type of question (`"scenes/count"`).

    Raises:
        RecordError: for an answer to a record that is not there.
    """
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    known = set()
    for record in heldout_records:
        name, kind = str(record["id"]), str(record["kind"])
        known.add(name)
        _, target, question_type = turns(record)[0]
        right = name in answers and exact_match(answers[name], target)
        for key in (kind, f"{kind}/{question_type}"):
            counts[key][0] += right
            counts[key][1] += 1
    strange = sorted(set(answers) - known)
    if strange:
        raise RecordError(
            f"{len(strange)} answers belong to no held-out record, the first to '{strange[0]}'; "
            "score answers against the records they were made from"
        )
    return {key: Score(correct=right, total=total) for key, (right, total) in sorted(counts.items())}
