"""The run's own log: the one file that holds requests and answers, readable by its owner alone (mode 0600).

A journal (`vedere.journal`), one JSON object a line: what the run is, each answer, each judge, each verdict. It is what a run
goes on from after a kill, and what another judge can be put to without asking the model again. `read_log` gives outcomes
without any text, and everything outside this package sees only those.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vedere.errors import RecordError
from vedere.evals.safety.judges import Judged
from vedere.evals.safety.records import Request
from vedere.evals.safety.rubrics import RUBRICS, Verdict, label, prompt_hashes
from vedere.journal import Journal

VERSION = 1
KIND = "vedere safety run"
_NAMES = ("set", "id", "category", "sub_category", "expected", "cluster", "rubric")
_REASONS = ("unreadable", "refused", "failed")
Key = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a request; no text of it.

    Attributes:
        set: As of `Request`, like the next six.
        id: ...
        category: ...
        sub_category: ...
        expected: ...
        cluster: ...
        rubric: ...
        answered: The model gave an answer.
        verdict: The judge's; None if there is none.
        why: Why there is none.
    """

    set: str
    id: str
    category: str
    sub_category: str
    expected: str
    cluster: str
    rubric: str
    answered: bool
    verdict: Verdict | None = None
    why: str = ""

    @property
    def label(self) -> str:
        """The verdict in a word; or why there is none."""
        if self.verdict is not None:
            return label(self.verdict)
        return f"no verdict ({self.why or 'not judged yet'})" if self.answered else "no answer"


@dataclass(frozen=True, kw_only=True)
class SafetyLog:
    """A log without its texts.

    Attributes:
        subject: The model that answered, and how it was asked.
        judge: The last judge, with its date and the hashes of its prompts; empty before there is one.
        outcomes: In the order of the requests.
    """

    subject: Mapping[str, Any]
    judge: Mapping[str, Any]
    outcomes: Sequence[Outcome] = field(default=())


def judge_key(identity: Mapping[str, Any]) -> str:
    """Names a judge together with its prompts."""
    return hashlib.sha256(json.dumps([identity, prompt_hashes()], sort_keys=True).encode()).hexdigest()[:16]


class PrivateLog:
    """A log being written. Use as a context manager.

    Args:
        path: The file; made if absent, with mode 0600.
        subject: What answers depend on; going on with another is refused.
        requests: The requests, in order.

    Raises:
        RecordError: the log is of another run, is no safety log, is in use, or cannot be written.
    """

    def __init__(self, path: Path, subject: Mapping[str, Any], requests: Iterable[Request]) -> None:
        self.path = path
        self.journal = Journal(path, private=True)
        try:
            digest = hashlib.sha256()
            sets: dict[str, int] = {}
            for request in requests:
                digest.update(json.dumps([request.set, request.id, request.question]).encode())
                sets[request.set] = sets.get(request.set, 0) + 1
            run = {
                "kind": KIND,
                "version": VERSION,
                "sets": sets,
                "requests": digest.hexdigest(),
                "subject": dict(subject),
            }
            if not self.journal.lines:
                self.journal.append(run)
            check_run(path, self.journal.lines[0], run)
            self.answers: dict[Key, dict[str, Any]] = {}
            self.verdicts: dict[tuple[str, Key], dict[str, Any]] = {}
            for line in self.journal.lines[1:]:
                self._take(line)
        except BaseException:
            self.journal.close()
            raise

    def _take(self, line: Mapping[str, Any]) -> None:
        key = str(line.get("set")), str(line.get("id"))
        if line.get("kind") == "answer":
            self.answers[key] = dict(line)
        elif line.get("kind") == "verdict":
            self.verdicts[str(line.get("judge")), key] = dict(line)

    @property
    def last_judge(self) -> str:
        """Key of the judge whose verdicts count; "" before there is one."""
        return next((str(line.get("key")) for line in reversed(self.journal.lines) if line.get("kind") == "judge"), "")

    def start_judge(self, identity: Mapping[str, Any]) -> str:
        """Writes who judges from here on; returns its key."""
        key = judge_key(identity)
        if self.last_judge != key:
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            self.journal.append(
                {"kind": "judge", "key": key, "identity": dict(identity), "date": now, "prompts": prompt_hashes()}
            )
        return key

    def add_answer(self, request: Request, response: str, error: str = "") -> None:
        """Writes an answer, or that there is none."""
        names = {name: getattr(request, name) for name in _NAMES}
        line = {
            "kind": "answer",
            **names,
            "question": request.question,
            "images": [str(path) for path in request.images],
            "response": response,
            "error": error,
        }
        self.journal.append(line)
        self._take(line)

    def add_verdict(self, request: Request, judge: str, judged: Judged) -> None:
        """Writes a verdict, or why there is none."""
        line = {
            "kind": "verdict",
            "set": request.set,
            "id": request.id,
            "judge": judge,
            "verdict": None if judged.verdict is None else dict(judged.verdict),
            "why": judged.why,
            "tries": judged.tries,
            "raw": list(judged.raw),
        }
        self.journal.append(line)
        self._take(line)

    def __enter__(self) -> PrivateLog:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes."""
        self.journal.close()


def check_run(path: Path, found: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    """Refuses to go on with another run.

    Raises:
        RecordError: names what differs, no request.
    """
    if found.get("kind") != KIND:
        raise RecordError(f"{path} is no safety log; expected one, or a path where nothing is")
    for name in ("version", "sets", "requests", "subject"):
        if found.get(name) != run[name]:
            what = {"requests": "the requests' texts", "sets": f"the sets {run['sets']}"}.get(name, f"the {name}")
            raise RecordError(
                f"{path} is the log of another run: {what} differ; go on with the same model, form "
                "and sets, or choose another file"
            )


def is_safety_log(path: Path) -> bool:
    """Say whether a file begins as one; reads its first line only."""
    try:
        with open(path, "rb") as file:
            return KIND.encode() in file.readline(65536)[:200]
    except OSError:
        return False


def read_log(path: Path | str) -> SafetyLog:
    """Reads a log without its texts: verdicts of the last judge.

    Raises:
        RecordError: the file cannot be read, is no safety log, or a line of it is damaged; messages name the line only.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecordError(f"{path} cannot be read ({error.strerror}); expected a safety log") from None
    lines = []
    whole = data.split(b"\n")[:-1]  # what has no end was being written
    for number, raw in enumerate(whole, 1):
        try:
            line = json.loads(raw)
            if not isinstance(line, dict):
                raise ValueError
        except (ValueError, RecursionError):
            raise RecordError(
                f"{path}:{number} is no JSON object; the file was changed or the disk is damaged"
            ) from None
        lines.append((number, line))
    if not lines or lines[0][1].get("kind") != KIND:
        raise RecordError(f"{path} is no safety log; expected a file that vedere safety has written")
    judge: dict[str, Any] = {}
    answers: dict[Key, dict[str, Any]] = {}
    verdicts: dict[tuple[str, Key], dict[str, Any]] = {}
    for number, line in lines[1:]:
        kind, key = line.get("kind"), (str(line.get("set")), str(line.get("id")))
        if kind == "answer":
            if not all(isinstance(line.get(name), str) for name in _NAMES) or line["rubric"] not in RUBRICS:
                raise RecordError(f"{path}:{number} is no answer as vedere safety writes it; the file was changed")
            answers[key] = line
        elif kind == "judge":
            judge = {name: line.get(name) for name in ("key", "identity", "date", "prompts")}
        elif kind == "verdict":
            verdicts[str(line.get("judge")), key] = line
    outcomes = [_outcome(path, line, verdicts.get((str(judge.get("key")), key))) for key, line in answers.items()]
    subject = lines[0][1].get("subject")
    return SafetyLog(subject=subject if isinstance(subject, dict) else {}, judge=judge, outcomes=outcomes)


def _outcome(path: Path, line: Mapping[str, Any], found: Mapping[str, Any] | None) -> Outcome:
    names = {name: line[name] for name in _NAMES}
    verdict = found.get("verdict") if found else None
    if verdict is not None:  # only values of the rubric leave this file
        verdict = RUBRICS[line["rubric"]].read(json.dumps(verdict))
        if verdict is None:
            raise RecordError(
                f"{path}: the verdict of {line['set'][:40]} {line['id'][:40]} has a value that its rubric does not have; "
                "the file was changed: remove that line to judge again"
            )
    why = str(found.get("why") or "") if found else ""
    return Outcome(**names, answered=not line.get("error"), verdict=verdict, why=why if why in _REASONS else "")
