"""The evaluation: every request to the model, every answer to the judge, both into the private log, figures out.

A kill loses at most the answers on their way: the log is what the next run goes on from. Answers that failed are tried again by
the next run, verdicts too. What is said on the way (``say``) and what is raised names set, id, category and label alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Protocol, TypeVar

from vedere.answers import ANSWER_RULES_VERSION
from vedere.errors import VedereError
from vedere.evals.safety.forms import NEW_TOKENS, Form, media, parts
from vedere.evals.safety.judges import Failed, Judge, Judged, LocalSpeaker, Speaker, by_rules
from vedere.evals.safety.log import PrivateLog, SafetyLog, read_log
from vedere.evals.safety.records import Request, read_table, text_of
from vedere.evals.safety.rubrics import label, rubric_of

Say = Callable[[str], None]
T = TypeVar("T")


class Subject(Protocol):
    """What is evaluated."""

    @property
    def identity(self) -> dict[str, Any]:
        """What answers depend on; plain JSON without secrets."""
        ...

    def answer(self, request: Request) -> str:
        """Answers a request.

        Raises:
            Failed: no answer to this one.
            ConfigError: what would fail for every request.
        """
        ...


class ModelSubject:
    """A model, local or behind an endpoint.

    Args:
        speaker: The model.
        form: How two pictures and a question are put to it.
        limit: Most new tokens; fewer than MIS's 1,024 is another protocol, and the log says so.
    """

    def __init__(self, speaker: Speaker, form: Form, *, limit: int = NEW_TOKENS) -> None:
        self.speaker, self.form, self.limit = speaker, form, limit

    @property
    def identity(self) -> dict[str, Any]:
        """The speaker's, form and limit."""
        return {**self.speaker.identity, "form": self.form.name, "max_new_tokens": self.limit}

    def answer(self, request: Request) -> str:
        """As `Subject.answer`."""
        try:
            if isinstance(self.speaker, LocalSpeaker):
                pictures = media(self.form, self.speaker.session, request)
                placed = "<image>" in self.form.mark
                text = self.form.text(request.question, len(pictures)) if placed else request.question
                return self.speaker.chat(text, pictures, "", self.limit).text
            message = parts(self.form, request)
        except Failed:
            raise
        except VedereError as error:
            raise Failed(type(error).__name__) from None
        return self.speaker.say(message, system="", limit=self.limit).text


class RecordedSubject:
    """Recorded answers: rows with ``id`` (and ``set``, if it has several) and ``response``, as MIS's scripts write them."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.rows: dict[tuple[str, str], str] = {}
        for number, row in enumerate(read_table(self.path)):
            where = f"{self.path.name} item {number}"
            response = row.get("response")
            key = str(row.get("set") or ""), text_of(row, ("id",), where)
            self.rows[key] = response if isinstance(response, str) else ""

    @property
    def identity(self) -> dict[str, Any]:
        """Name of the file."""
        return {"kind": "recorded", "model": self.path.name}

    def answer(self, request: Request) -> str:
        """As `Subject.answer`."""
        for key in ((request.set, request.id), ("", request.id)):
            if key in self.rows:
                return self.rows[key]
        raise Failed("not in the recording")


def evaluate(
    requests: Sequence[Request],
    subject: Subject,
    judge: Judge | None,
    log: Path | str,
    *,
    concurrency: int = 1,
    say: Say | None = None,
) -> SafetyLog:
    """Asks, judges and logs; goes on with a log that is there.

    Args:
        requests: Of any sets, harmless ones among them.
        subject: The model.
        judge: None: answers only, to be judged later; what rules decide is decided all the same.
        log: The private log.
        concurrency: Requests on their way at once; 1 for a model in this process.
        say: Receives a line for each outcome: set, id, category, label.

    Raises:
        RecordError: the log is of another run or cannot be written.
        ConfigError: what would fail for every request; what has come is in the log.
    """
    path = Path(log)
    say = say or _silent
    with PrivateLog(path, subject.identity, requests) as private:
        open_questions = [
            request for request in requests if private.answers.get((request.set, request.id), {"error": "x"})["error"]
        ]
        for request, answer in _each(open_questions, lambda request: _answered(subject, request), concurrency):
            text, error = answer
            private.add_answer(request, text, error)
            say(f"{request.place}: {'no answer (' + error + ')' if error else 'answered'}")
        decided = [request for request in requests if judge is not None or not rubric_of(request.rubric).asked]
        if not decided:
            return read_log(path)
        key = private.last_judge if judge is None else ""
        key = key or private.start_judge(_deciding(judge, decided))
        open_verdicts = [request for request in decided if _to_judge(private, key, request)]

        def judged(request: Request) -> Judged:
            response = str(private.answers[request.set, request.id]["response"])
            found = by_rules(request, response)
            if found is None:
                assert judge is not None
                found = judge.judge(request, response)
            return found

        for request, found in _each(open_verdicts, judged, concurrency):
            private.add_verdict(request, key, found)
            shown = label(found.verdict) if found.verdict is not None else f"no verdict ({found.why})"
            say(f"{request.place}: {shown}")
    return read_log(path)


def _deciding(judge: Judge | None, requests: Sequence[Request]) -> dict[str, Any]:
    """Who decides: the judge, and the version of the rules where they decide too."""
    rules = any(not rubric_of(request.rubric).asked for request in requests)
    identity = {"kind": "rules", "model": "none"} if judge is None else judge.identity
    return {**identity, "answer_rules": ANSWER_RULES_VERSION} if rules else identity


def _silent(_: str) -> None:
    """Says nothing."""


def _to_judge(private: PrivateLog, key: str, request: Request) -> bool:
    place = request.set, request.id
    if private.answers[place]["error"]:
        return False
    return private.verdicts.get((key, place), {"verdict": None})["verdict"] is None


def _answered(subject: Subject, request: Request) -> tuple[str, str]:
    try:
        return subject.answer(request), ""
    except Failed as error:
        return "", str(error)


def _each(requests: Sequence[Request], work: Callable[[Request], T], concurrency: int) -> Iterator[tuple[Request, T]]:
    """Requests with what came of them, as they come."""
    if concurrency <= 1:
        for request in requests:
            yield request, work(request)
        return
    waiting = iter(requests)
    going: dict[Future[T], Request] = {}
    with ThreadPoolExecutor(concurrency) as pool:
        try:
            while True:
                while len(going) < concurrency and (fresh := next(waiting, None)) is not None:
                    going[pool.submit(work, fresh)] = fresh
                if not going:
                    return
                for future in wait(going, return_when=FIRST_COMPLETED).done:
                    yield going.pop(future), future.result()
        finally:
            for future in going:
                future.cancel()
