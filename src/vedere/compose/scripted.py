"""A model that says what a file says: tests, demonstrations, and answers that somebody else's model gave.

The file is JSON: for each step (``write``, ``spot``, ``caption``, ``select``, ``expand``, ``rewrite``, ``abbreviate``,
``insert``) an answer or a list of them, used in turn, the last one again and again. An answer ``{"error": "..."}`` fails with
that message. ``pace`` is the number of seconds between two words of a streamed answer.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vedere.compose.prompts import Prompt
from vedere.config import nearest
from vedere.errors import ConfigError, VedereError

STEPS = ("write", "spot", "caption", "select", "expand", "rewrite", "abbreviate", "insert")

Answer = str | Mapping[str, str]


class ScriptedModel:
    """Answers each step from its list, the last answer again and again.

    Attributes:
        answers: Step -> answers.
        pace: Seconds between two words of a streamed answer.
    """

    def __init__(self, answers: Mapping[str, Answer | Sequence[Answer]], pace: float = 0.0) -> None:
        """Checks the script.

        Raises:
            ConfigError: a step that does not exist, an answer that is no text, or a pace that is no time.
        """
        self.answers: dict[str, list[Answer]] = {}
        for step, given in answers.items():
            if step not in STEPS:
                raise ConfigError(f"no step '{step}'{nearest(step, STEPS)} (steps: {', '.join(STEPS)})")
            listed: list[Any] = list(given) if isinstance(given, list | tuple) else [given]
            if not listed or not all(map(_is_answer, listed)):
                raise ConfigError(
                    f"the answers to '{step}' are {given!r}; expected a text, {{\"error\": text}}, or a list of those"
                )
            self.answers[step] = listed
        if isinstance(pace, bool) or not isinstance(pace, int | float) or not 0 <= pace <= 10:
            raise ConfigError(f"a pace of {pace!r}; expected seconds between two words, 0 to 10")
        self.pace = pace

    @classmethod
    def load(cls, path: Path | str) -> ScriptedModel:
        """Reads a script.

        Raises:
            ConfigError: no such file, or no script.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"the script {path} cannot be read ({error.strerror}); check the path") from None
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"the script {path} is no JSON ({error})") from None
        if not isinstance(data, dict):
            raise ConfigError(f"the script {path} holds a {type(data).__name__}; expected an object, step -> answers")
        try:
            return cls({step: given for step, given in data.items() if step != "pace"}, data.get("pace", 0.0))
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    def answer(self, prompt: Prompt) -> str:
        """The next answer to a step.

        Raises:
            ConfigError: the script has none for this step.
            VedereError: the script says so.
        """
        given = self.answers.get(prompt.step)
        if given is None:
            raise ConfigError(
                f"the script answers {', '.join(self.answers) or 'nothing'}; add answers to '{prompt.step}'"
            )
        answer = given.pop(0) if len(given) > 1 else given[0]
        if isinstance(answer, str):
            return answer
        raise VedereError(answer["error"])

    def stream(self, prompt: Prompt) -> Iterator[str]:
        """The same, word by word."""
        for piece in re.findall(r"\s*\S+\s*?|\s+", self.answer(prompt)):
            time.sleep(self.pace)
            yield piece


def _is_answer(given: object) -> bool:
    return isinstance(given, str) or (
        isinstance(given, Mapping) and set(given) == {"error"} and isinstance(given["error"], str)
    )
