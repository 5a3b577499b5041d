"""The official output file of Video-MME, written and read: one object a video, its questions with the raw responses inside.

The published template has trailing commas and is no strict JSON; such files are read, strict JSON is written. Files
of rows (JSONL with the fields of ``vedere score video-mme``) are read too. A video marked ``"missing": true`` is not
asked about; the official script reads the mark only when missing videos are allowed, and otherwise wants exactly 300
videos of each duration.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vedere.atomic import write_atomically
from vedere.errors import RecordError
from vedere.evals.records import Row, read_rows, without_repeats
from vedere.evals.video_mme import taxonomy
from vedere.evals.video_mme.outcomes import Outcome, missing_videos
from vedere.evals.video_mme.questions import Question
from vedere.evals.video_mme.scorer import outcome

_VIDEO = ("video_id", "duration", "domain", "sub_category")
_QUESTION = ("question_id", "task_type", "question", "options", "answer", "response")


@dataclass(frozen=True)
class Result:
    """Outcomes of a result file, and what is to be said about it, one sentence each."""

    outcomes: tuple[Outcome, ...]
    notes: tuple[str, ...] = ()


def official_form(questions: Iterable[Question], responses: Mapping[str, str]) -> list[dict[str, Any]]:
    """Result of a run in the official form.

    Args:
        questions: All questions, in the order of the data.
        responses: ``question_id`` -> raw text of the model. A video without any is marked as missing; a single question
            without one gets an empty response, which the official script counts as not answered.

    Raises:
        RecordError: responses to questions that are not there.
    """
    videos: dict[str, dict[str, Any]] = {}
    known = set[str]()
    for one in questions:
        known.add(one.question_id)
        place = {
            "video_id": one.video_id,
            "duration": one.duration,
            "domain": one.domain,
            "sub_category": one.sub_category,
        }
        video = videos.setdefault(one.video_id, {**place, "questions": []})
        video["questions"].append(
            {
                "question_id": one.question_id,
                "task_type": one.task_type,
                "question": one.question,
                "options": list(one.options),
                "answer": one.answer,
                "response": responses.get(one.question_id, ""),
            }
        )
    if strange := [name for name in responses if name not in known]:
        raise RecordError(
            f"{len(strange)} responses are to questions that the data do not have, such as '{strange[0]}'; expected "
            "question_ids of the same file"
        )
    for video in videos.values():
        if not any(entry["question_id"] in responses for entry in video["questions"]):
            video["missing"] = True
    return list(videos.values())


def write_official(path: Path, result: Sequence[Mapping[str, Any]]) -> None:
    """Writes a result as strict JSON; the file is complete or what it was before."""
    text = json.dumps(result, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    write_atomically(path, lambda target: _write(target, text))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def read_result(path: Path) -> Result:
    """Reads a result: the official form, rows, or a run of ``vedere eval`` (its folder, or its log).

    Raises:
        RecordError: no such file, not UTF-8, neither form, or a question with a missing or wrong field, with its place.
    """
    notes: list[str] = []
    videos = None if _is_run(path) else _videos(path)
    if _is_run(path):
        rows, repeats = _logged(path), 0
    else:
        rows, repeats = without_repeats(read_rows(path) if videos is None else _rows(videos, path))
    if videos is not None:
        counts = Counter(str(video.get("duration")) for video in videos if not video.get("missing"))
        uneven = [f"{counts[name]} {name}" for name in taxonomy.DURATIONS if counts[name] != taxonomy.VIDEOS_PER_CLASS]
        if uneven:
            notes.append(
                f"{', '.join(uneven)} videos with answers; the official script wants {taxonomy.VIDEOS_PER_CLASS} of "
                "each duration unless missing videos are allowed"
            )
    if repeats:
        notes.append(f"{repeats} repeated questions are left out")
    try:
        outcomes = tuple(outcome(row) for row in rows)
    except RecordError as error:
        raise RecordError(f"{path.name} {error}") from None
    if lost := missing_videos(outcomes):
        notes.append(
            f"{len(lost)} videos are missing and not counted: {', '.join(lost[:12])}{' ...' * (len(lost) > 12)}"
        )
    return Result(outcomes, tuple(notes))


def result_rows(path: Path) -> list[Row]:
    """Reads the rows of a result file, of the official form or a row a line; what they say is not checked here.

    Raises:
        RecordError: as `read_result`.
    """
    videos = _videos(path)
    return read_rows(path) if videos is None else list(_rows(videos, path))


def _is_run(path: Path) -> bool:
    return path.suffix == ".eval" or (path / "logs").is_dir()


def _logged(path: Path) -> list[Row]:
    """Records of the newest log of a run."""
    logs = sorted((path / "logs").glob("*.eval")) if path.is_dir() else [path]
    if not logs:
        raise RecordError(f"{path} has no log yet; expected a run of vedere eval that has begun")
    from vedere.evals.run import read_log, read_samples

    log = read_log(logs[-1])
    asked, _, _ = read_samples(log)
    if not asked:
        raise RecordError(
            f"{logs[-1].name} has no answers; run the benchmark again with the same --out to go on with it"
        )
    return [Row(line, one.record) for line, one in enumerate(asked, 1)]


def _videos(path: Path) -> list[dict[str, Any]] | None:
    """Objects of the official form; None for another form."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise RecordError(f"{path} cannot be read ({error.strerror}); expected a result file of Video-MME") from None
    except UnicodeDecodeError as error:
        raise RecordError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    if not text.lstrip().startswith("["):
        return None
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        try:
            data = json.loads(without_trailing_commas(text))
        except (ValueError, RecursionError) as error:
            raise RecordError(f"{path.name} is no JSON ({error}); expected the official output form") from None
    if not data or not all(isinstance(one, dict) and "questions" in one for one in data):
        return None
    return list(data)


_STRING_OR_COMMA = re.compile(r'"(?:[^"\\]|\\.)*"|,(?=\s*[\]}])', re.DOTALL)


def without_trailing_commas(text: str) -> str:
    """JSON text without commas before closing brackets; those inside texts stay."""
    return _STRING_OR_COMMA.sub(lambda match: match[0] if match[0] != "," else "", text)


def _rows(videos: Sequence[Mapping[str, Any]], path: Path) -> Iterator[Row]:
    number = 0
    for place, video in enumerate(videos, 1):
        questions = video["questions"]
        if not isinstance(questions, list) or not all(isinstance(one, dict) for one in questions):
            raise RecordError(f"{path.name} video {place}: 'questions' is no list of objects; expected 3 questions")
        for one in questions:
            number += 1
            there = {name: video[name] for name in _VIDEO if name in video}
            there |= {name: one[name] for name in _QUESTION if name in one}
            if video.get("missing") is True:
                there |= {"missing": True}
            yield Row(number, there)
