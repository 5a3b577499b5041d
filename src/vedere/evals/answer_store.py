"""Answers that were paid for once: each is on the disk before the next step, and no run asks for it again.

An answer is known by the SHA-256 of all that it depends on: the model with its hash or address, texts, media by content, and
how it is drawn. Answers of models that draw at random are kept as well: a run that goes on is the same run.

One file a run's folder, a journal (`vedere.journal`): a kill loses at most the answers on their way, and two runs that would
write the same file are refused. Keys that are not asked for any more stay and cost nothing.

Cost: one fsync an answer; about 1 kB an answer in memory and on the disk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vedere.errors import RecordError
from vedere.journal import Journal

FILE = "answers.jsonl"


def answer_key(parts: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of JSON values, whatever order their names are in."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=True, allow_nan=False).encode()).hexdigest()


class AnswerStore:
    """Answers by key.

    Args:
        folder: Where ``answers.jsonl`` is; made if absent.

    Attributes:
        reused: Answers that were found.

    Raises:
        RecordError: another run has the folder, or the file is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reused = 0
        self._answers: dict[str, dict[str, Any]] = {}
        self._journal: Journal | None = self._open()

    def _open(self) -> Journal:
        try:
            journal = Journal(self.folder / FILE)
        except RecordError as error:
            if "in use" in str(error):
                raise RecordError(
                    f"another evaluation is writing to {self.folder}; wait for it, or give this one a folder of its own "
                    "(--out FOLDER; with inspect: -T out=FOLDER)"
                ) from None
            raise
        self._answers = {line["key"]: line for line in journal.lines if isinstance(line.get("key"), str)}
        journal.lines.clear()  # they are held by key
        return journal

    def __len__(self) -> int:
        return len(self._answers)

    def find(self, key: str) -> Mapping[str, Any] | None:
        """Returns what was kept under a key."""
        found = self._answers.get(key)
        self.reused += found is not None
        return found

    def keep(self, key: str, fields: Mapping[str, Any]) -> None:
        """Keeps an answer; it is on the disk when this returns.

        Raises:
            RecordError: the disk is full or fails.
        """
        if self._journal is None:
            self._journal = self._open()
        self._journal.append({"key": key, **fields})
        self._answers[key] = self._journal.lines.pop()

    def close(self) -> None:
        """Closes the file and lets others have it; `keep` opens it again."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None
