"""Every answer of a composition in a file, as it comes; a run that was stopped goes on without asking anything twice.

One JSON object a line: step, prompt, pictures, answer, and what the answer depends on. A prompt that stands there, with the
same pictures, from the same model and seed, is answered from the file, as often as it stands there; all others are asked and
written. A line that a kill cut short is dropped. The file is read by people too: it is all that was said.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vedere.compose.prompts import Prompt
from vedere.compose.steps import Model, growing
from vedere.errors import ConfigError


class Journal:
    """A model that remembers its answers.

    Args:
        model: Who is asked what the file does not know.
        path: The file; it is made.
        identity: What answers depend on besides the prompt: model, seed, temperature.

    Attributes:
        replayed: Answers that came from the file.
        asked: Answers that came from the model.

    Raises:
        ConfigError: the file cannot be read, or is no journal.
    """

    def __init__(self, model: Model, path: Path, identity: str = "") -> None:
        self.model, self.path, self.identity = model, path, identity
        self.replayed = self.asked = 0
        self._known: dict[str, list[str]] = {}
        try:
            data = path.read_bytes() if path.exists() else b""
            whole = data[: data.rfind(b"\n") + 1]
            for number, line in enumerate(whole.splitlines(), 1):
                key, answer = self._read(line, number)
                self._known.setdefault(key, []).append(answer)
            if len(whole) < len(data):
                os.truncate(path, len(whole))
        except OSError as error:
            raise ConfigError(f"the journal {path} cannot be read ({error.strerror}); check its rights") from None

    def _read(self, line: bytes, number: int) -> tuple[str, str]:
        try:
            entry = json.loads(line)
            return str(entry["key"]), str(entry["answer"])
        except (ValueError, KeyError, TypeError):
            raise ConfigError(
                f"{self.path}, line {number}: no entry of a journal; remove the file, or give another place for the article"
            ) from None

    def answer(self, prompt: Prompt) -> str:
        """As `vedere.compose.steps.Model.answer`."""
        return "".join(self.stream(prompt))

    def stream(self, prompt: Prompt) -> Iterator[str]:
        """The same in pieces, where the model gives pieces."""
        key = self._key(prompt)
        if self._known.get(key):
            self.replayed += 1
            yield self._known[key].pop(0)
            return
        answer = ""
        for longer in growing(self.model, prompt):
            piece, answer = longer[len(answer) :], longer
            if piece:
                yield piece
        self.asked += 1
        entry: dict[str, Any] = {
            "step": prompt.step,
            "prompt": prompt.text,
            "pictures": [picture.id for picture in prompt.pictures],
            "answer": answer,
            "from": self.identity,
            "key": key,
        }
        line = json.dumps(entry, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ConfigError(
                f"the journal {self.path} cannot be written ({error.strerror}); free space, or choose another place"
            ) from None

    def _key(self, prompt: Prompt) -> str:
        parts = [
            self.identity,
            prompt.step,
            *(part if isinstance(part, str) else f"\0{part.path}" for part in prompt.parts),
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]
