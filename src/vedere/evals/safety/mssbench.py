"""MSSBench: the same request in a safe and in an unsafe situation, which only the picture tells apart.

One file, ``combined.json``, with two lists. **Chat**: a row has questions and two pictures; each question is asked before both.
**Embodied**: a row has two pictures of a household scene and, for each, its own wordings of a task, place by place; a robot's
model is asked to carry it out. A good answer helps in the safe situation and warns or declines in the unsafe one; both are
reported (arXiv 2501.18533, sec. 5), and the requests of a row are one cluster.

The embodied tasks stand behind a text that tells a model what robot it is and what it can do. This package does not know
that text: who reads the set brings it in a file ``embodied_prompt.txt`` in the root, and a task follows it directly. Without
the file the part is not read: a model asked without that text would answer another question.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from vedere.errors import RecordError
from vedere.evals.safety.records import Request, file_of, image_of, text_of, wording_of

WORDING = "embodied_prompt.txt"
Situation = Literal["safe", "unsafe"]
SITUATIONS: tuple[Situation, ...] = ("safe", "unsafe")


def _part(root: Path, name: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """(number, what messages call it, row) of one of the two lists."""
    path = file_of(root, "combined.json")
    try:
        whole = json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise RecordError(f"{path} cannot be read ({error.strerror}); expected a file of the set") from None
    except (ValueError, RecursionError):
        raise RecordError(f"{path} is no JSON; expected the file as the set publishes it") from None
    rows = whole.get(name) if isinstance(whole, dict) else None
    if not isinstance(rows, list) or not rows:
        raise RecordError(f"{path} has no list '{name}', or an empty one; expected MSSBench's combined.json")
    for number, row in enumerate(rows):
        where = f"{path.name} {name} {number}"
        if not isinstance(row, dict):
            raise RecordError(f"{where} is a {type(row).__name__}; expected an object")
        yield number, where, row


def _texts(row: dict[str, Any], name: str, where: str) -> list[str]:
    found = row.get(name)
    if not isinstance(found, list) or not found or not all(isinstance(one, str) and one.strip() for one in found):
        raise RecordError(f"{where} has no list of texts '{name}'; is it MSSBench's file?")
    return found


def _picture(root: Path, folder: str, name: str, where: str) -> Path:
    return image_of(root, name if os.path.isfile(root / name) else f"{folder}/{name}", where)


def _request(set_name: str, part: str, number: int, place: int, situation: Situation, **fields: Any) -> Request:
    return Request(
        set=set_name,
        id=f"{number}-{place}-{situation}",
        category=str(fields.pop("category") or part),
        sub_category=situation,
        expected="help" if situation == "safe" else "decline",
        cluster=str(number),
        rubric="behaviour",
        **fields,
    )


def chat(root: Path) -> Iterator[Request]:
    """The chat part.

    Raises:
        RecordError: no such file, a row or a picture that is not as published.
    """
    for number, where, row in _part(root, "chat"):
        for place, query in enumerate(_texts(row, "queries", where)):
            for situation in SITUATIONS:
                name = text_of(row, (f"{situation}_image_path",), where)
                picture = _picture(root, "chat", name, where)
                yield _request(
                    *("mssbench", "chat", number, place, situation),
                    category=row.get("Type"),
                    question=query,
                    images=(picture,),
                )


def embodied(root: Path) -> Iterator[Request]:
    """The embodied part.

    Raises:
        RecordError: as `chat`; lists of tasks that are not as long as each other; no text that stands before the tasks.
    """
    rows = list(_part(root, "embodied"))
    before = wording_of(
        root,
        WORDING,
        "the text that MSSBench puts before every embodied task (vedere does not hold it); the task follows it directly",
    )
    for number, where, row in rows:
        tasks = {one: _texts(row, f"{one}_instructions", where) for one in SITUATIONS}
        if len(tasks["safe"]) != len(tasks["unsafe"]):
            raise RecordError(
                f"{where} has {len(tasks['safe'])} safe and {len(tasks['unsafe'])} unsafe instructions; expected pairs"
            )
        for place in range(len(tasks["safe"])):
            for situation in SITUATIONS:
                picture = _picture(root, "embodied", text_of(row, (situation,), where), where)
                yield _request(
                    *("mssbench-embodied", "embodied", number, place, situation),
                    category=row.get("category"),
                    question=before + tasks[situation][place],
                    images=(picture,),
                )
