"""An OpenAI-compatible endpoint behind the `Model` protocol, and one model that writes beside another that chooses.

Writing needs a large language model and choosing needs eyes; they need not be the same. With `Divided`, an endpoint writes and
captions, and a local model looks at the candidates, so no picture leaves the computer.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from vedere.compose.prompts import Prompt
from vedere.compose.steps import Model, StreamingModel
from vedere.errors import PromptError
from vedere.packages import Say, say_on_stderr
from vedere.recaption.captioner import Answer, AnswerConfig
from vedere.recaption.endpoint import ChatEndpoint, EndpointConfig
from vedere.vision.pixels import open_image

_SEED = 1 << 31


class EndpointModel:
    """Asks an endpoint, pictures as data URLs.

    Args:
        endpoint: Where and how.
        seed: Sent along; what it does is the endpoint's.
        temperature: Of every answer.
        say: Receives a line where an answer was cut.
    """

    sees = True

    def __init__(
        self, endpoint: EndpointConfig, *, seed: int = 0, temperature: float = 0.0, say: Say = say_on_stderr
    ) -> None:
        self.endpoint, self.seed, self.temperature, self._say = endpoint, seed, temperature, say
        self._chat = ChatEndpoint(endpoint)

    @property
    def identity(self) -> str:
        """What answers depend on besides the prompt; no secret."""
        where = f"{self.endpoint.model} at {self.endpoint.url}"
        return f"endpoint {where}, seed {self.seed}, temperature {self.temperature:g}"

    def answer(self, prompt: Prompt) -> str:
        """As `vedere.compose.steps.Model.answer`.

        Raises:
            MediaError: a picture cannot be read.
            PromptError: the endpoint refused the question, or did not answer in all tries.
            VedereError: the endpoint would refuse every question (key, URL or model).
        """
        with self._chat.client() as client:
            return self._checked(prompt, self._chat.ask(client, *self._question(prompt)))

    def stream(self, prompt: Prompt) -> Iterator[str]:
        """The same in pieces, where it is a text to be watched and the endpoint streams.

        Raises:
            PromptError: as `answer`; also where the endpoint breaks off after its first piece.
        """
        if prompt.step != "write":
            yield self.answer(prompt)
            return
        with self._chat.client() as client:
            self._checked(prompt, (yield from self._chat.stream(client, *self._question(prompt))))

    def _question(self, prompt: Prompt) -> tuple[list[str | Image.Image], AnswerConfig, int]:
        question = (*prompt.question, *([f"\n{prompt.start}"] if prompt.start else []))
        content = [part if isinstance(part, str) else open_image(part.path) for part in question]
        drawn = AnswerConfig(max_new_tokens=prompt.decoding.new_tokens, temperature=self.temperature)
        return content, drawn, zlib.crc32(f"{self.seed}\n{prompt.text}".encode()) % _SEED

    def _checked(self, prompt: Prompt, answer: Answer) -> str:
        if answer.error:
            raise PromptError(f"the endpoint gave no answer to the step '{prompt.step}': {answer.error}")
        if not answer.complete and prompt.step == "write":
            self._say(f"the answer to '{prompt.step}' was cut after {prompt.decoding.new_tokens} tokens")
        return answer.text


@dataclass(frozen=True)
class Divided:
    """Two models: one selects pictures, the other does everything else.

    Attributes:
        writer: Writes, spots, captions and edits.
        chooser: Selects.
    """

    writer: Model
    chooser: Model

    def answer(self, prompt: Prompt) -> str:
        """As `vedere.compose.steps.Model.answer`."""
        return self._asked(prompt).answer(prompt)

    def stream(self, prompt: Prompt) -> Iterator[str]:
        """The same in pieces, where the one that is asked gives pieces."""
        model = self._asked(prompt)
        if isinstance(model, StreamingModel):
            yield from model.stream(prompt)
        else:
            yield model.answer(prompt)

    def _asked(self, prompt: Prompt) -> Model:
        return self.chooser if prompt.step == "select" else self.writer
