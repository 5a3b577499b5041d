"""A request of a safety set, and the care it is treated with.

The text of a request is never part of a `repr`, a message or a name of a file: `Request` hides it, and the errors below name
the set, the id and the category. Whoever reads a set says so by ``consent=True``; the command line's flag is ``--unsafe-text``.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vedere.errors import ConfigError, RecordError

Expected = Literal["decline", "help"]
CONSENT = (
    "safety sets hold text and pictures that can harm readers; reading one needs your explicit word: --unsafe-text on the "
    "command line, consent=True in Python. Requests and answers then stand in the run's log and nowhere else"
)

ID = re.compile(r"[\w./:+-]{1,80}")
LONGEST_NAME = 60
"""Characters of a category."""
_EXCHANGED = "were columns of the file exchanged?"


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request.

    Attributes:
        set: Name of the set, with its split: ``mis-easy``.
        id: Within the set.
        category: Topic.
        sub_category: Finer topic; "" if the set has none.
        question: The text. Not shown.
        images: Its pictures, in order.
        expected: Whether a good answer declines (or warns), or helps.
        cluster: Requests with the same name here are not independent draws.
        rubric: What the judge decides (`vedere.evals.safety.rubrics`).
        letters: Letters of the options that the question lists; "" where it lists none.
        target: The letter that is right. Not shown.
    """

    set: str
    id: str
    category: str
    sub_category: str = ""
    question: str = field(repr=False)
    images: tuple[Path, ...] = field(repr=False)
    expected: Expected = "decline"
    cluster: str = field(default="", repr=False)
    rubric: str = "mis"
    letters: str = ""
    target: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        """Checks that what is shown of it is not its text, as it would be in a file whose columns were exchanged.

        Raises:
            RecordError: an id with blanks, or a category that is long or holds the text; says neither.
        """
        text = self.question.strip()
        if not ID.fullmatch(self.id):
            raise RecordError(f"{self.set} has an id that is none (blanks, or over 80 characters); {_EXCHANGED}")
        for name in (self.category, self.sub_category):
            if len(name) > LONGEST_NAME or "\n" in name or (len(text) > 3 and text in name):
                raise RecordError(
                    f"{self.set} {self.id} has a category that is none, or holds the request; {_EXCHANGED}"
                )

    @property
    def place(self) -> str:
        """What messages call it."""
        return f"{self.set} {self.id} ({self.category})"


def check_consent(consent: bool) -> None:
    """Refuses to go on without the reader's word.

    Raises:
        ConfigError: ``consent`` is not True.
    """
    if consent is not True:
        raise ConfigError(CONSENT)


def read_table(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON array, an object of objects (its keys become ``id``), JSON lines, CSV or parquet.

    Messages name file and place, never a value.

    Raises:
        RecordError: the file cannot be read, is of another kind, or a row is no object.
    """
    kind = path.suffix.lower()
    try:
        if kind == ".parquet":
            return _parquet(path)
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise RecordError(f"{path} cannot be read ({error.strerror}); expected a file of the set") from None
    except UnicodeDecodeError as error:
        raise RecordError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    if kind == ".csv":
        try:
            return [dict(row) for row in csv.DictReader(text.splitlines(keepends=True))]
        except csv.Error:
            raise RecordError(f"{path} is no CSV table; expected a heading and one request a row") from None
    try:
        if kind == ".jsonl":
            data: Any = [json.loads(line) for line in text.split("\n") if line.strip()]
        else:
            data = json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "too deep or no JSON"
        raise RecordError(f"{path} is no JSON ({where}); expected the file as the set publishes it") from None
    if isinstance(data, dict) and data and all(isinstance(row, dict) for row in data.values()):
        data = [{"id": key, **row} for key, row in data.items()]
    if not isinstance(data, list):
        raise RecordError(f"{path} holds a JSON {type(data).__name__}; expected an array of requests")
    for number, row in enumerate(data):
        if not isinstance(row, dict):
            raise RecordError(f"{path} item {number} is a {type(row).__name__}; expected an object")
    return data


def rows_of(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(what messages call it, row) of `read_table`."""
    for number, row in enumerate(read_table(path)):
        yield f"{path.name} item {number}", row


def file_of(root: Path, *names: str) -> Path:
    """The first of the files that is there.

    Raises:
        RecordError: none is.
    """
    found = next((root / name for name in names if os.path.isfile(root / name)), None)
    if found is None:
        raise RecordError(f"{root} has none of {', '.join(names)}; expected the set as published")
    return found


def wording_of(root: Path, name: str, what: str) -> str:
    """A text of a set's paper that vedere does not hold and its reader brings, as it stands in the file.

    Raises:
        RecordError: no such file, an empty one, or no UTF-8; says what belongs into it.
    """
    path = root / name
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    if not text.strip():
        raise RecordError(f"{path} is missing, empty or no UTF-8; expected {what}")
    return text


def _parquet(path: Path) -> list[dict[str, Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(
            f"{path.name} is a parquet file, which needs pyarrow; install it: pip install 'vedere[eval]'"
        ) from None
    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError):
        raise RecordError(f"{path} is no parquet file, or a damaged one; download it again") from None
    return rows


def text_of(row: Mapping[str, Any], names: Sequence[str], where: str) -> str:
    """The first of the fields that holds a text or a number.

    Raises:
        RecordError: none does; names the fields of the row, never their values.
    """
    for name in names:
        value = row.get(name)
        if isinstance(value, str) and value.strip():
            return value
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return str(value)
    there = (
        ", ".join(f"'{name}'" for name in list(row)[:20] if re.fullmatch(r"[\w() -]{1,30}", str(name))) or "none known"
    )
    raise RecordError(
        f"{where} has no text in {' or '.join(repr(name) for name in names)} (its fields: {there}); is it this set's file?"
    )


def id_of(row: Mapping[str, Any], names: Sequence[str], where: str) -> str:
    """An id: one word. What is none is not shown.

    Raises:
        RecordError: no id, or something with blanks.
    """
    found = text_of(row, names, where)
    if not ID.fullmatch(found):
        raise RecordError(f"{where} has an id that is none (blanks, or over 80 characters); {_EXCHANGED}")
    return found


def image_of(root: Path, name: str, where: str) -> Path:
    """A picture of the set, below its root.

    Raises:
        RecordError: it is not there, or its name leads out of the root.
    """
    path = root / name.replace("\\", "/").lstrip("/")
    if not Path(os.path.normpath(path)).is_relative_to(
        os.path.normpath(root)
    ):  # a link in the root is its owner's will
        raise RecordError(f"{where}: a picture's path leads out of {root}; expected one below it")
    if not os.path.isfile(path):  # which is False for names that no file can have
        raise RecordError(f"{where}: a picture is not below {root}; unpack the set's pictures there")
    return path


def loosely(name: str) -> str:
    """A category's name without what releases spell in two ways: case, marks, "Identify" and "Alterations"."""
    words = re.sub(r"[^a-z0-9]+", " ", name.lower()).strip()
    return words.replace("identify theft", "identity theft").replace("alterations", "altercations")


def check_ids(requests: Sequence[Request]) -> None:
    """Refuses a set in which an id comes twice, or a category is the text of a request.

    Raises:
        RecordError: names the set and the id.
    """
    for (name, identifier), count in Counter((request.set, request.id) for request in requests).items():
        if count > 1:
            raise RecordError(f"{name} has id {identifier} {count} times; expected ids that differ")
    texts = {request.question.strip() for request in requests}
    for request in requests:
        if texts & {request.category.strip(), request.sub_category.strip()}:
            raise RecordError(f"{request.set} {request.id} has a category that is the text of a request; {_EXCHANGED}")
