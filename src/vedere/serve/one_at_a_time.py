"""One model for many visitors: an answer begins when the one before has ended."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from vedere.compose.prompts import Prompt
from vedere.compose.steps import Model, StreamingModel


class OneAtATime:
    """A local model has one engine and one set of threads; two answers at once would be slower than one after the other.

    Args:
        model: Answers.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._turn = threading.Lock()

    def answer(self, prompt: Prompt) -> str:
        """As the model's, in turn."""
        with self._turn:
            return self.model.answer(prompt)

    def stream(self, prompt: Prompt) -> Iterator[str]:
        """As the model's, in turn; an answer that is not read to its end gives the turn back when it is closed."""
        with self._turn:
            if isinstance(self.model, StreamingModel):
                yield from self.model.stream(prompt)
            else:
                yield self.model.answer(prompt)
