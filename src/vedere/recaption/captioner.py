"""What answers questions about pictures: the protocol, and a local model behind it.

A captioner is given questions lazily and yields answers as they come, in any order; it takes a new question only when it has
room for it, so that pictures are opened one batch at a time. What one question did wrong comes back as an answer with an
error; what would go wrong with every question is raised.

Cost: that of the model; the local one keeps ``max_batch`` questions in one continuous batch (`vedere.infer.engine`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from PIL import Image

from vedere.config import check_ranges

if TYPE_CHECKING:
    from vedere.infer.session import Session


@dataclass(frozen=True, kw_only=True, eq=False)
class Asked:
    """A question about one picture.

    Attributes:
        name: Of the picture; "" for the grey picture of blind questions.
        image: The picture, RGB.
        prompt: The question.
        seed: Of the answer, 0 to 2^31 - 1.
    """

    name: str
    image: Image.Image
    prompt: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back.

    Attributes:
        text: As the model wrote it.
        complete: It ended by itself and not at the limit of tokens.
        error: Why there is no answer; "" if there is one.
    """

    text: str = ""
    complete: bool = True
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class AnswerConfig:
    """How answers are drawn.

    Attributes:
        max_new_tokens: Most tokens of an answer.
        temperature: 0 takes the most probable token.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ConfigError: a number out of range.
        """
        check_ranges(self, max_new_tokens=1, temperature=0)


class Captioner(Protocol):
    """Answers questions about pictures."""

    @property
    def identity(self) -> dict[str, Any]:
        """What the answers depend on besides picture, prompt and seed; plain JSON without secrets, ``model`` among it."""
        ...

    def answers(self, questions: Iterable[Asked]) -> Iterator[tuple[Asked, Answer]]:
        """Yields each question with its answer, as they come; closing the iterator stops the work.

        Raises:
            VedereError: what would fail for every question.
        """
        ...


class LocalCaptioner:
    """A model in this process.

    Args:
        session: The model (`vedere.load`).
        config: How answers are drawn.
    """

    def __init__(self, session: Session, config: AnswerConfig | None = None) -> None:
        self.session, self.config = session, config or AnswerConfig()

    @property
    def identity(self) -> dict[str, Any]:
        """Name or folder of the model, what it was trained as, and how answers are drawn."""
        trained = self.session.extras.get("trained")
        return {"model": self.session.name, "trained": trained, **vars(self.config)}

    def answers(self, questions: Iterable[Asked]) -> Iterator[tuple[Asked, Answer]]:
        """As `Captioner.answers`."""
        from vedere.infer.prompts import Question

        taken: dict[int, Asked] = {}

        def taking() -> Iterator[Question]:
            for number, asked in enumerate(questions):
                taken[number] = asked
                yield Question(text=asked.prompt, images=[asked.image], seed=asked.seed, **vars(self.config))

        for number, reply in self.session.chat_each(taking()):
            yield taken.pop(number), Answer(text=reply.text, complete=reply.reason == "stop")
