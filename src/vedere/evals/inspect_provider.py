"""Local models as a provider of Inspect AI: ``--model vedere/mini`` or ``vedere/FOLDER``, batched by vedere's own engine.

Inspect asks from many coroutines at once; a single thread owns the model and feeds the engine from a queue, so that
questions join the running batch whenever there is room. Any task of Inspect can use the provider; vedere's own
benchmarks hand it whole `vedere.evals.items.Prompt`s, which keep frames of a video a video, tile limits and the
beginning of an answer.

Model arguments (``-M name=value``): ``batch`` (8), ``device``, ``max_tiles``, ``hd_num``, ``template``, ``language_model``.
"""

from __future__ import annotations

import base64
import binascii
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from inspect_ai.model import (
    ChatMessage,
    ChatMessageSystem,
    ChatMessageUser,
    ContentImage,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from vedere.errors import ConfigError, PromptError, VedereError
from vedere.evals.items import Frames, Prompt, Sound

if TYPE_CHECKING:
    from vedere.infer.prompts import Question
    from vedere.infer.session import Reply, Session

_ARGUMENTS = ("batch", "device", "max_tiles", "hd_num", "template", "language_model")
_Job = tuple[Any, Future[Any]]


class _Worker:
    """The thread that owns a model. The model is loaded at the first question."""

    def __init__(self, name: str, arguments: dict[str, Any]) -> None:
        self.name, self.arguments = name, arguments
        self.batch = int(arguments.pop("batch", 8))
        self.jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self.session: Session | None = None
        self.sha256 = ""
        self._started = threading.Lock()
        self._thread: threading.Thread | None = None

    def submit(self, job: Any) -> Future[Any]:
        """Queues a question (a callable Session -> Question), or None for the model's hash alone."""
        with self._started:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True, name=f"vedere {self.name}")
                self._thread.start()
        future: Future[Any] = Future()
        self.jobs.put((job, future))
        return future

    def close(self) -> None:
        """Ends the thread after its present batch; the model goes with it."""
        with self._started:
            if self._thread is not None:
                self.jobs.put(None)
                self._thread = None

    def _run(self) -> None:
        session: Session | None = None
        while (job := self.jobs.get()) is not None:
            try:
                session = session or self._load()
                ended = self._batch(session, job)
            except BaseException as error:  # whatever it is, those who wait must hear of it
                self._fail(job, error)
                continue
            if ended:
                return

    def _load(self) -> Session:
        from vedere.infer.session import load
        from vedere.models.delta import tensors_sha256

        session = load(self.name, max_batch=self.batch, say=lambda text: None, **self.arguments)
        self.sha256 = tensors_sha256(session.model.state_dict())
        return session

    def _batch(self, session: Session, first: _Job) -> bool:
        """Answers what is queued, and what joins meanwhile; says whether the end was queued."""
        waiting: list[Future[Any]] = []
        ended = False

        def questions() -> Iterator[Question]:
            nonlocal ended
            job: _Job | None = first
            while job is not None:
                make, future = job
                if make is None:
                    future.set_result(self.sha256)
                elif future.set_running_or_notify_cancel():
                    try:
                        question = make(session)
                    except Exception as error:  # one question's trouble is not the others'
                        future.set_exception(error)
                    else:
                        waiting.append(future)
                        yield question
                try:
                    job = self.jobs.get_nowait()
                    ended = ended or job is None
                except queue.Empty:
                    return

        def refused(number: int, error: VedereError) -> None:
            waiting[number].set_exception(error)

        try:
            for number, reply in session.chat_each(questions(), refused=refused):
                waiting[number].set_result(reply)
        except BaseException as error:
            for future in waiting:
                if not future.done():
                    future.set_exception(error)
            if first[1].done():
                return ended
            raise
        return ended

    @staticmethod
    def _fail(job: _Job, error: BaseException) -> None:
        if not job[1].done():
            job[1].set_exception(error)


class VedereAPI(ModelAPI):
    """A model of vedere for Inspect.

    Args:
        model_name: ``mini``, a folder, or ``ORG/NAME`` of the hub.
        base_url: Not used.
        api_key: Not used.
        config: Inspect's defaults for this model.
        arguments: See the module.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008  (Inspect's own signature)
        **arguments: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        unknown = sorted(set(arguments) - set(_ARGUMENTS))
        if unknown:
            raise ConfigError(
                f"model argument '{unknown[0]}' of vedere/{model_name} is not known; expected {', '.join(_ARGUMENTS)}"
            )
        self._worker = _Worker(model_name, {name: value for name, value in arguments.items() if value is not None})

    async def sha256(self) -> str:
        """SHA-256 of the loaded weights."""
        future = self._worker.submit(None)
        return str(await anyio.to_thread.run_sync(future.result, abandon_on_cancel=True))

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """Answers a conversation of texts and pictures."""
        if tools:
            raise PromptError(f"vedere/{self.model_name} was given tools; local models of vedere take none")
        return await self._answer(lambda session: question_of(input, config))

    async def generate_prompt(self, prompt: Prompt, config: GenerateConfig) -> ModelOutput:
        """Answers a prompt of a benchmark."""
        return await self._answer(lambda session: question_of_prompt(session, prompt, config))

    async def _answer(self, make: Any) -> ModelOutput:
        future = self._worker.submit(make)
        try:
            reply: Reply = await anyio.to_thread.run_sync(future.result, abandon_on_cancel=True)
        except anyio.get_cancelled_exc_class():
            future.cancel()
            raise
        output = ModelOutput.from_content(
            self.model_name, reply.text, stop_reason="stop" if reply.reason == "stop" else "max_tokens"
        )
        output.usage = ModelUsage(
            input_tokens=reply.prompt_tokens,
            output_tokens=reply.answer_tokens,
            total_tokens=reply.prompt_tokens + reply.answer_tokens,
        )
        return output

    def max_connections(self) -> int:
        """Questions under way: a batch, and some that wait to join it."""
        return 4 * self._worker.batch

    def connection_key(self) -> str:
        """One limit a model."""
        return f"vedere/{self.model_name}"

    def should_retry(self, ex: BaseException) -> bool:
        """A local model gives the same error again."""
        return False

    def close(self) -> None:
        """Lets the model go."""
        self._worker.close()


def _sampling(config: GenerateConfig) -> dict[str, Any]:
    """Fields of a `Question` that say how it is answered."""
    if config.stop_seqs or (config.num_choices or 1) > 1:
        raise PromptError("local models of vedere take neither stop sequences nor several choices; leave these out")
    fields: dict[str, Any] = {
        "temperature": config.temperature or 0.0,
        "top_k": config.top_k or 0,
        "top_p": 1.0 if config.top_p is None else config.top_p,
        "seed": config.seed,
    }
    return fields | ({} if config.max_tokens is None else {"max_new_tokens": config.max_tokens})


def question_of_prompt(session: Session, prompt: Prompt, config: GenerateConfig) -> Question:
    """A benchmark's prompt as a question of a session.

    Media in front of all text are left untagged, so that each model puts them as it was trained.

    Raises:
        MediaError: a picture or video cannot be read.
        PromptError: an option that local models do not have.
    """
    from vedere.infer.prompts import Question

    images, videos, text = [], [], ""
    for part in prompt.parts:
        if isinstance(part, str):
            text += part
        elif isinstance(part, Frames):
            videos.append(session.prompts.frames(part.images(), part.name, part.times))
            text += "<video>"
        elif isinstance(part, Sound):
            raise PromptError(
                f"the sound of {part.name} was given, but vedere's models do not hear; ask one that does, or use transcripts"
            )
        else:
            images += part.images()
            text += "<image>"
    bare = text.removeprefix("<image>" * len(images) + "<video>" * len(videos))
    return Question(
        text=text if "<image>" in bare or "<video>" in bare else bare,
        images=images,
        videos=videos,
        system=prompt.system or None,
        opening=prompt.prefill,
        max_tiles=prompt.max_tiles,
        **_sampling(config),
    )


def question_of(messages: list[ChatMessage], config: GenerateConfig) -> Question:
    """Inspect's messages as a question with its history; pictures go where they stand.

    Raises:
        PromptError: a conversation that does not alternate between user and assistant.
    """
    from vedere.infer.prompts import Exchange, Question

    system = "\n".join(message.text for message in messages if isinstance(message, ChatMessageSystem)) or None
    turns = [message for message in messages if not isinstance(message, ChatMessageSystem)]
    opening = ""
    if turns and turns[-1].role == "assistant":
        opening = turns.pop().text
    history = []
    if len(turns) % 2 == 0 or any(turn.role != ("user", "assistant")[place % 2] for place, turn in enumerate(turns)):
        raise PromptError(
            f"the conversation's roles are {', '.join(turn.role for turn in turns) or 'none'}; expected user and assistant "
            "in turn, the user last"
        )
    for asked, answered in zip(turns[:-1:2], turns[1::2], strict=True):
        text, images = _content(asked)
        history.append(Exchange(question=text, answer=answered.text, images=images))
    text, images = _content(turns[-1])
    return Question(text=text, images=images, history=history, system=system, opening=opening, **_sampling(config))


def _content(message: ChatMessage) -> tuple[str, list[bytes]]:
    """Text with ``<image>`` where pictures stand, and their contents."""
    if isinstance(message.content, str) or not isinstance(message, ChatMessageUser):
        return message.text, []
    text, images = "", []
    for part in message.content:
        if isinstance(part, ContentImage):
            images.append(_data(part.image))
            text += "<image>\n"
        elif part.type == "text":
            text += part.text
        else:
            raise PromptError(f"a message holds {part.type}; local models of vedere take texts and pictures")
    return text, images


def _data(url: str) -> bytes:
    head, _, data = url.partition(",")
    try:
        if not head.startswith("data:") or not head.endswith(";base64"):
            raise ValueError("no data URL")
        return base64.b64decode(data, validate=True)
    except (ValueError, binascii.Error) as error:
        raise PromptError(f"a picture begins with {url[:40]!r} ({error}); expected a data URL with base64") from None
