"""An OpenAI-compatible endpoint, and a captioner behind it: bounded, paced, and patient with what passes.

Questions go to ``URL/chat/completions`` with the picture as a data URL. At most ``concurrency`` are on their way, and starts
are spaced so that no minute has more than ``per_minute``. What passes (no connection, time-outs, 408, 425, 429, 5xx, bodies
that are no answer) is tried again after a wait that doubles; a ``Retry-After`` holds back all questions, not only the one that
was told. A setting that a model does not take (``max_tokens``, ``temperature``, ``seed``) is left out, the first of them
renamed, and the question asked again. What concerns one picture (400, 413, 415, 422, or retries used up) is an answer with an
error. What concerns all (a wrong key, URL or model: 401, 403, 404, ...) ends the work, as Ctrl-C does, after the answers on
their way have come. An answer may be read while it is written (server-sent events).

The key is read from an environment variable and from nowhere else; it is in no message, file or config.

Cost: one thread a question on its way; one picture of at most ``side`` px in each.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import random
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from vedere.config import check_ranges
from vedere.errors import ConfigError, VedereError
from vedere.recaption.captioner import Answer, AnswerConfig, Asked

_PASSING = frozenset((408, 409, 425, 429))
_OF_ONE_PICTURE = frozenset((400, 413, 415, 422))
_SETTINGS = ("max_tokens", "temperature", "seed")  # models that reason refuse some of them
_LONGEST_TOLD = 600.0  # seconds that a Retry-After may ask for


@dataclass(frozen=True, kw_only=True)
class EndpointConfig:
    """Where the endpoint is and how it is treated.

    Attributes:
        url: Base URL, up to and without ``/chat/completions``: ``http://localhost:8000/v1``.
        model: Model that the endpoint is asked for.
        key_variable: Environment variable that holds the key; if it is not set, none is sent.
        concurrency: Most questions on their way.
        per_minute: Most questions started in a minute; 0: no limit.
        retries: Times that a question is asked again.
        timeout: Seconds without a byte after which a try has failed.
        first_wait: Seconds before the first retry; each further wait is twice as long.
        longest_wait: Most seconds between two tries, unless the endpoint says how long.
        side: Pictures are sent with at most so many pixels a side.
    """

    url: str
    model: str
    key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 4
    per_minute: float = 0.0
    retries: int = 6
    timeout: float = 120.0
    first_wait: float = 1.0
    longest_wait: float = 60.0
    side: int = 1024

    def __post_init__(self) -> None:
        """Checks the ranges and the URL.

        Raises:
            ConfigError: a number out of range, no http(s) URL, or one with a secret in it.
        """
        check_ranges(
            self, concurrency=1, per_minute=0, retries=0, timeout=0, first_wait=0, longest_wait=self.first_wait, side=16
        )
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"endpoint '{self.url}'; expected a URL such as http://localhost:8000/v1")
        if "@" in parts.netloc or parts.query:
            raise ConfigError(
                f"the endpoint's URL at {parts.hostname} holds a user or a query, where secrets would be; put the key into an "
                "environment variable (--key-variable NAME)"
            )


class _Stopped(Exception):
    """The work is being given up while a thread waits."""


class _Fatal(VedereError):
    """Would fail for every question."""


class Pace:
    """When the next question may start: spaced starts, and a common wait when the endpoint asks for one.

    Args:
        per_minute: Most starts in a minute; 0: no limit.
    """

    def __init__(self, per_minute: float) -> None:
        self.spacing = 60.0 / per_minute if per_minute else 0.0
        self.next = 0.0
        self.lock = threading.Lock()

    def start(self, now: float) -> float:
        """Takes the next free place in time; returns the seconds until it."""
        with self.lock:
            place = max(now, self.next)
            self.next = place + self.spacing
            return place - now

    def hold(self, until: float) -> None:
        """No start before ``until``."""
        with self.lock:
            self.next = max(self.next, until)


class ChatEndpoint:
    """Asks an endpoint, one question at a time and thread.

    Args:
        config: Where and how.

    Attributes:
        retried: Tries after the first of all questions.
    """

    def __init__(self, config: EndpointConfig) -> None:
        self.config = config
        self.retried = 0
        self._key = os.environ.get(config.key_variable, "").strip()
        self._pace = Pace(config.per_minute)
        self._stop = threading.Event()
        self._refused: set[str] = set()  # settings that this endpoint's model does not know

    def client(self) -> Any:
        """A connection, to be closed (a context)."""
        import httpx2

        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        return httpx2.Client(timeout=self.config.timeout, headers=headers)

    def stop(self) -> None:
        """Gives up what waits."""
        self._stop.set()

    def restart(self) -> None:
        """Takes questions again after `stop`."""
        self._stop.clear()

    def ask(self, client: Any, content: Sequence[str | Image.Image], answer: AnswerConfig, seed: int) -> Answer:
        """One question with all its tries.

        Args:
            client: Of `client`.
            content: Texts and pictures in order.
            answer: How the answer is drawn.
            seed: Of the answer.

        Raises:
            VedereError: what would fail for every question.
        """
        body = self._body(content, answer, seed)
        jitter = random.Random(seed)
        problem = ""
        for number in range(self.config.retries + 1):
            if number:
                self.retried += 1
                longest = min(self.config.longest_wait, self.config.first_wait * 2 ** (number - 1))
                self._sleep(longest * jitter.uniform(0.5, 1.0))
            self._sleep(self._pace.start(time.monotonic()))
            found = self._try(client, self._suited(body))
            if isinstance(found, Answer):
                return found
            problem = found
        return Answer(error=f"{problem}, after {self.config.retries + 1} tries")

    def stream(
        self, client: Any, content: Sequence[str | Image.Image], answer: AnswerConfig, seed: int
    ) -> Generator[str, None, Answer]:
        """`ask` in pieces, as they come (server-sent events); closing the generator hangs up.

        An endpoint that does not stream, or fails before its first piece, is asked as by `ask`. One that breaks off later is
        not asked again, for what it said was shown: the answer has a text and an error.

        Returns:
            The whole answer.
        """
        import httpx2

        body = self._suited(self._body(content, answer, seed)) | {"stream": True}
        self._sleep(self._pace.start(time.monotonic()))
        text, reason, problem = "", "", "the connection ended before the answer did"
        try:
            with client.stream("POST", f"{self.config.url.rstrip('/')}/chat/completions", json=body) as response:
                if response.status_code == 200 and "event-stream" in response.headers.get("Content-Type", ""):
                    for line in response.iter_lines():
                        piece, ended = _event(line)
                        reason = reason or ended
                        if piece:
                            text += piece
                            yield piece
                elif response.status_code == 200:
                    response.read()
                    found = _answer(response)
                    if found is not None:
                        yield found.text
                        return found
        except httpx2.TimeoutException:
            problem = f"no further piece within {self.config.timeout:g} s"
        except httpx2.TransportError as error:
            problem = f"no connection ({self._safe(str(error)) or type(error).__name__})"
        if text:
            return Answer(text=text, complete=reason != "length", error="" if reason else problem)
        found = self.ask(client, content, answer, seed)
        if found.text:
            yield found.text
        return found

    def _body(self, content: Sequence[str | Image.Image], answer: AnswerConfig, seed: int) -> dict[str, Any]:
        return {
            "model": self.config.model,
            "messages": [{"role": "user", "content": self._content(content)}],
            "max_tokens": answer.max_new_tokens,
            "temperature": answer.temperature,
            "seed": seed,
        }

    def _sleep(self, seconds: float) -> None:
        if self._stop.wait(max(0.0, seconds)):
            raise _Stopped

    def _try(self, client: Any, body: dict[str, Any]) -> Answer | str:
        """An answer, or what passes."""
        import httpx2

        try:
            response = client.post(f"{self.config.url.rstrip('/')}/chat/completions", json=body)
        except httpx2.TimeoutException:
            return f"no answer within {self.config.timeout:g} s"
        except httpx2.TransportError as error:
            return f"no connection ({self._safe(str(error)) or type(error).__name__})"
        status = response.status_code
        said = self._safe(response.text)
        refused = _setting_refused(said, body) if status == 400 else ""
        if refused:  # by the model, so by all further questions as well
            self._refused.add(refused)
            return self._try(client, self._suited(body))
        if status == 200:
            return _answer(response) or f"status 200 with a body that is no chat completion: {said!r}"
        if status in _PASSING or status >= 500:
            with contextlib.suppress(ValueError):
                seconds = float(response.headers.get("Retry-After", ""))
                self._pace.hold(time.monotonic() + max(0.0, min(seconds, _LONGEST_TOLD)))
            return f"status {status}: {said}"
        if status in _OF_ONE_PICTURE:
            return Answer(error=f"refused with status {status}: {said}")
        hint = (
            f"is the key in {self.config.key_variable} right? ({'one was sent' if self._key else 'it is not set'})"
            if status in (401, 403)
            else "are URL and model right?"
        )
        raise _Fatal(f"{self.config.url} answers with status {status} for model '{self.config.model}': {said}; {hint}")

    def _safe(self, text: str) -> str:
        """The beginning of what an endpoint said, without the key that some repeat."""
        text = text.replace(self._key, "***") if self._key else text
        return " ".join(text.split())[:200]

    def _suited(self, body: dict[str, Any]) -> dict[str, Any]:
        """A question without the settings that the model has refused; the limit of tokens has a newer name."""
        suited = {name: value for name, value in body.items() if name not in self._refused}
        if "max_tokens" in self._refused and "max_tokens" in body:
            suited["max_completion_tokens"] = body["max_tokens"]
        return suited

    def _content(self, content: Sequence[str | Image.Image]) -> str | list[dict[str, Any]]:
        """Parts in order; a question of words alone is one text, for endpoints that see nothing know no parts."""
        texts = [part for part in content if isinstance(part, str)]
        return "".join(texts) if len(texts) == len(content) else [self._part(part) for part in content]

    def _part(self, part: str | Image.Image) -> dict[str, Any]:
        if isinstance(part, str):
            return {"type": "text", "text": part}
        image = part
        if max(image.size) > self.config.side:
            image = image.copy()
            image.thumbnail((self.config.side, self.config.side))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=92)
        url = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
        return {"type": "image_url", "image_url": {"url": url}}


class EndpointCaptioner:
    """Asks an endpoint.

    Args:
        endpoint: Where and how.
        config: How answers are drawn.
    """

    def __init__(self, endpoint: EndpointConfig, config: AnswerConfig | None = None) -> None:
        self.endpoint, self.config = endpoint, config or AnswerConfig()
        self._chat = ChatEndpoint(endpoint)

    @property
    def retried(self) -> int:
        """Tries after the first of all questions."""
        return self._chat.retried

    @property
    def identity(self) -> dict[str, Any]:
        """URL, model, size of pictures, and how answers are drawn."""
        where = {"model": self.endpoint.model, "endpoint": self.endpoint.url, "side": self.endpoint.side}
        return where | dict(vars(self.config))

    def answers(self, questions: Iterable[Asked]) -> Iterator[tuple[Asked, Answer]]:
        """As `vedere.recaption.captioner.Captioner.answers`."""
        self._chat.restart()
        waiting = iter(questions)
        going: dict[Future[Answer], Asked] = {}
        ending: BaseException | None = None
        with (
            self._chat.client() as client,
            ThreadPoolExecutor(self.endpoint.concurrency) as pool,
        ):
            try:
                while True:
                    while ending is None and len(going) < self.endpoint.concurrency:
                        asked = next(waiting, None)
                        if asked is None:
                            break
                        going[pool.submit(self._ask, client, asked)] = asked
                    if not going:
                        break
                    try:
                        done = wait(going, return_when=FIRST_COMPLETED).done
                    except KeyboardInterrupt as error:
                        if ending is not None:  # the second one
                            raise
                        ending, done = error, set()
                        self._chat.stop()
                    for future in done:
                        asked = going.pop(future)
                        try:
                            yield asked, future.result()
                        except _Fatal as error:
                            ending = ending or ConfigError(str(error))
                            self._chat.stop()
                        except _Stopped:
                            continue
            finally:
                self._chat.stop()
                for future in going:
                    future.cancel()
        if ending is not None:
            raise ending

    def _ask(self, client: Any, asked: Asked) -> Answer:
        return self._chat.ask(client, [asked.image, asked.prompt], self.config, asked.seed)


def _setting_refused(said: str, body: dict[str, Any]) -> str:
    """Which setting of a question a model does not take, by what the endpoint said; "": none."""
    if "support" not in said.lower():
        return ""
    return next((name for name in _SETTINGS if name in body and f"'{name}'" in said), "")


def _event(line: str) -> tuple[str, str]:
    """(piece of an answer, why it ended) of a line of server-sent events; empty where it says neither."""
    data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
    if data == "[DONE]":
        return "", "stop"
    try:
        choice = json.loads(data)["choices"][0]
        piece, reason = choice["delta"].get("content"), choice.get("finish_reason")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return "", ""
    piece = piece.encode("utf-8", "replace").decode() if isinstance(piece, str) else ""
    return piece, reason if isinstance(reason, str) else ""


def _answer(response: Any) -> Answer | None:
    """The answer in a body; None if it is no chat completion."""
    try:
        choice = response.json()["choices"][0]
        message = choice["message"]
        content = message.get("refusal") or message.get("content") or ""
        if isinstance(content, list):
            content = "".join(part["text"] for part in content if part.get("type") == "text")
        if not isinstance(content, str):
            return None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    text = content.encode("utf-8", "replace").decode()
    return Answer(text=text, complete=choice.get("finish_reason") != "length")
