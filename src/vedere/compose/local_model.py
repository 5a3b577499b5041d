"""A local model behind the `Model` protocol of composition: prompts with their pictures in place, to one session.

A model of the XComposer line that answers by its own template was tuned to the published prompts; they go to it piece by
piece, frame and beginning of the answer included, each text between two pictures tokenised by itself (arXiv 2309.15112,
sec. 3.3; 2401.16420). Any other model gets plain questions (`vedere.compose.plain_prompts`) as an ordinary turn.

Beams, sampling and penalty of repetition are those of the published demos: five beams for the first version's article, places
and choices, and a penalty on what was answered; on the prompt, too, only where the demos ask with ids
(`vedere.compose.prompts.Decoding`). An answer of beams does not stream, it comes at once.

Cost: that of the answers; a choice among four pictures is one prompt with all of them and some words.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vedere.compose.article import Picture
from vedere.compose.plain_prompts import plain_style
from vedere.compose.prompts import FIRST, SECOND, Prompt, Style
from vedere.errors import ConfigError, ContextError
from vedere.infer.sampling import SamplingParams
from vedere.infer.session import Session, Stream
from vedere.models.xcomposer import XComposer
from vedere.models.xcomposer2 import XComposer2
from vedere.packages import Say, say_on_stderr
from vedere.plan import SquarePolicy, plan_media

if TYPE_CHECKING:
    from vedere.text.chat import Template

_TYPICAL = (640, 480)  # pixels of a picture whose positions are reckoned with
_SEED = 1 << 31


def published_style(session: Session) -> Style | None:
    """The published prompts that a model was tuned to; None: it was not."""
    kinds: tuple[tuple[type, str, Style], ...] = ((XComposer, "ixc1", FIRST), (XComposer2, "ixc2", SECOND))
    for kind, template, style in kinds:
        if isinstance(session.model, kind) and session.prompts.template.name == template:
            most, size = session.prompts.max_positions, _positions(session)
            if size > style.per_picture:  # another model of the line, which was not tuned to 4096 positions
                return replace(style, room=most, per_picture=size)
            return replace(style, room=min(style.room, most))
    return None


def _positions(session: Session) -> int:
    """Positions of a picture of an ordinary size among several; 0 for a model that sees none."""
    policy = session.prompts.policy
    if policy is None:
        return 0
    return plan_media(*_TYPICAL, policy if isinstance(policy, SquarePolicy) else policy.for_images(5)).tokens


def style_of(session: Session, language: str = "en") -> Style:
    """The prompts for a session: the published ones if it was tuned to them, else plain questions in its size.

    Args:
        session: The model.
        language: Of plain questions, ``en`` or ``zh``.

    Raises:
        ConfigError: another language.
    """
    published = published_style(session)
    if published is not None:
        return published
    room = session.prompts.max_positions
    if session.prompts.policy is None:
        return plain_style(language, room=room)
    return plain_style(language, room=room, per_picture=_positions(session) + 2)


class LocalModel:
    """Answers by a session.

    Args:
        session: The model.
        seed: Answers that are drawn depend on it, the prompt, and nothing else.
        temperature: Of prompts that do not ask to be drawn; 0 takes the most probable token.
        beams: Of searches; None: as the prompt's decoding says, 1: no search.
        say: Receives a line where an answer was cut.
    """

    def __init__(
        self,
        session: Session,
        *,
        seed: int = 0,
        temperature: float = 0.0,
        beams: int | None = None,
        say: Say = say_on_stderr,
    ) -> None:
        check_beams(beams)
        self.session, self.seed, self.temperature, self.beams, self._say = session, seed, temperature, beams, say
        self._framed = copy.copy(session)  # the same engine, another template
        self._framed.prompts = replace(session.prompts, template=_bare(session.prompts.template))
        self._published = published_style(session) is not None

    @property
    def identity(self) -> str:
        """What answers depend on besides the prompt."""
        beams = "" if self.beams is None else f", beams {self.beams}"
        return f"local {self.session.name}, seed {self.seed}, temperature {self.temperature:g}{beams}"

    @property
    def sees(self) -> bool:
        """Whether it takes pictures."""
        return self.session.prompts.policy is not None

    def answer(self, prompt: Prompt) -> str:
        """As `vedere.compose.steps.Model.answer`.

        Raises:
            ConfigError: pictures for a model that sees none.
            MediaError: a picture cannot be read.
            ContextError: the prompt leaves no room for an answer.
        """
        return "".join(self.stream(prompt))

    def stream(self, prompt: Prompt) -> Iterator[str]:
        """The same in pieces, as they come."""
        if prompt.pictures and not self.sees:
            raise ConfigError(
                f"'{self.session.name}' sees no pictures, and the step '{prompt.step}' shows {len(prompt.pictures)}; load a "
                "model that sees, or let retrieval choose"
            )
        pieces = self._asked(prompt)
        yield from pieces
        if pieces.reply is not None and pieces.reply.reason == "length" and prompt.step == "write":
            self._say(f"the answer to '{prompt.step}' was cut after {pieces.reply.answer_tokens} tokens")

    def _asked(self, prompt: Prompt) -> Stream:
        framed = self._published and prompt.parts != prompt.question
        session = self._framed if framed else self.session
        parts = prompt.parts if framed else (*prompt.question, *([f"\n{prompt.start}"] if prompt.start else []))
        text = "".join(part if isinstance(part, str) else "<image>" for part in parts)
        decoding = prompt.decoding
        options: dict[str, Any] = {
            "images": [part.path for part in parts if isinstance(part, Picture)],
            "system": "none" if framed else None,
            "temperature": 1.0 if decoding.sample else self.temperature,
            "top_k": decoding.top_k,
            "top_p": decoding.top_p,
            "repetition_penalty": decoding.repetition_penalty,
            "penalise_prompt": not framed or decoding.penalise_prompt,
            "seed": zlib.crc32(f"{self.seed}\n{text}".encode()) % _SEED,
        }
        beams = decoding.beams if self.beams is None else self.beams

        def ask(**more: Any) -> Stream:
            if beams == 1:
                return session.chat(text, stream=True, **options, **more)
            reply = session.chat(text, num_beams=beams, **options, **more)
            return Stream(iter([reply.text, reply]))

        try:
            return ask(max_new_tokens=decoding.new_tokens)
        except ContextError:  # fewer may still fit
            return ask()


def check_beams(beams: int | None) -> None:
    """Refuses a number of beams that cannot be searched.

    Raises:
        ConfigError: below 1.
    """
    if beams is not None:
        SamplingParams(num_beams=beams)


def _bare(template: Template) -> Template:
    """A template that frames nothing, for texts that bring their own frame."""
    return replace(
        template,
        system=None,
        system_with_media=None,
        user_header="",
        user_end="",
        assistant_header="",
        turn_markers=(),
        untagged_in_front=False,
        grain="prompt",
    )
