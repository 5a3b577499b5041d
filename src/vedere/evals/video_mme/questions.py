"""Video-MME's questions: the official parquet, row by row, and how it differs from what was published.

The file (config ``videomme``, split ``test``) has 2,700 rows of eleven text columns; ``options`` is a list of four
texts that already carry their letters. Earlier revisions had 900 grouped rows, or a column ``language``: scores on
them are not comparable, so another set of columns is refused. ``video_id`` is a text with leading zeros, ``videoID``
the eleven characters that name the media; the two are not the same. vedere ships nothing of the data set: its licence
allows academic research only and no redistribution.

A row that cannot be asked is left out and told, the others stay. A team's own set in the same columns is read the
same way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vedere.errors import ConfigError, RecordError
from vedere.evals.video_mme import taxonomy

COLUMNS = (
    *("video_id", "duration", "domain", "sub_category", "url", "videoID", "question_id", "task_type", "question"),
    *("options", "answer"),
)
_OLD = {"language": "a revision of 2024 before the current one", "questions": "the first revision, a video a row"}


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question.

    Attributes:
        question_id: Such as ``001-2``: video, then number.
        video_id: Such as ``001``.
        media_id: Names the files of the video, ``videoID`` in the data.
        duration: short, medium or long.
        domain: One of six in the official set.
        sub_category: One of thirty.
        task_type: One of twelve.
        question: Its text, without options.
        options: Four texts, each beginning with its letter.
        answer: The right letter.
        url: Where the video came from.
    """

    question_id: str
    video_id: str
    media_id: str
    duration: str
    domain: str
    sub_category: str
    task_type: str
    question: str
    options: tuple[str, ...]
    answer: str
    url: str = ""

    @property
    def place(self) -> dict[str, str]:
        """What tables group by, as the scorer's fields."""
        return {
            "video_id": self.video_id,
            "duration": self.duration,
            "domain": self.domain,
            "sub_category": self.sub_category,
            "task_type": self.task_type,
        }


@dataclass(frozen=True)
class QuestionFile:
    """Questions in the file's order, and one sentence for each thing that is wrong or not as published.

    Attributes:
        questions: Rows that can be asked, ids once.
        problems: What is wrong with rows; those rows are left out.
        deviations: How the set differs from the published one; nothing is left out for it.
    """

    questions: tuple[Question, ...]
    problems: tuple[str, ...] = ()
    deviations: tuple[str, ...] = ()

    @property
    def is_official(self) -> bool:
        """Whether all published counts are met."""
        return not self.problems and not self.deviations

    @property
    def videos(self) -> dict[str, tuple[Question, ...]]:
        """``video_id`` -> its questions, in the file's order."""
        found: dict[str, list[Question]] = {}
        for one in self.questions:
            found.setdefault(one.video_id, []).append(one)
        return {name: tuple(ones) for name, ones in found.items()}


def question_file(place: Path) -> Path:
    """The parquet file at a place: the file itself, or the only one in or below a folder.

    Raises:
        RecordError: nothing there, or several.
    """
    if place.is_file():
        return place
    found = sorted(place.rglob("*.parquet")) if place.is_dir() else []
    named = [path for path in found if "videomme" in path.relative_to(place).as_posix().lower()]
    found = named if len(named) == 1 else found
    if len(found) != 1:
        there = ", ".join(path.relative_to(place).as_posix() for path in found[:5]) or "none"
        raise RecordError(
            f"{place} holds {len(found)} parquet files ({there}); expected the one of Video-MME's questions "
            "(videomme/test-00000-of-00001.parquet of the data set lmms-lab/Video-MME): name the file"
        )
    return found[0]


def read_questions(place: Path) -> QuestionFile:
    """Reads the questions of Video-MME, or of a set in its form.

    Args:
        place: The parquet file, or a folder with it.

    Raises:
        RecordError: no such file, no parquet, or other columns.
        ConfigError: pyarrow is not installed.
    """
    path = question_file(place)
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise ConfigError("reading parquet needs pyarrow; install vedere[eval]") from None
    try:
        table = pyarrow.parquet.read_table(path)
        _check_columns(table.column_names, table.num_rows, path.name)
        rows = table.to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:  # a text of a damaged page is no UTF-8
        raise RecordError(f"{path} is no parquet file that can be read ({error}); fetch it again") from None
    questions, problems = _questions(rows)
    if not questions:
        raise RecordError(f"{path.name} holds no question that can be asked; {problems[0] if problems else 'no rows'}")
    return QuestionFile(tuple(questions), tuple(problems), tuple(deviations(questions, table.num_rows)))


def _check_columns(names: Sequence[str], rows: int, name: str) -> None:
    surplus, missing = sorted(set(names) - set(COLUMNS)), sorted(set(COLUMNS) - set(names))
    if not surplus and not missing:
        return
    known = next((f"; this is {what}" for column, what in _OLD.items() if column in names), "")
    said = [f"without {', '.join(missing)}"] if missing else []
    said += [f"with {', '.join(surplus)}"] if surplus else []
    raise RecordError(
        f"{name} has {rows} rows {' and '.join(said)}{known}; expected the current form, "
        f"{len(COLUMNS)} columns ({', '.join(COLUMNS)}): fetch the data set again"
    )


def _questions(rows: Sequence[Mapping[str, Any]]) -> tuple[list[Question], list[str]]:
    found: dict[str, Question] = {}
    problems = []
    for number, row in enumerate(rows, 1):
        wrong = next(_wrong(row), None)
        if wrong is None and row["question_id"] in found:
            wrong = f"question_id '{row['question_id']}' comes a second time; the first one stays"
        if wrong is not None:
            problems.append(f"row {number}: {wrong}")
            continue
        fields = {name: row[name] for name in COLUMNS if name not in ("options", "videoID")}
        found[row["question_id"]] = Question(**fields, media_id=row["videoID"], options=tuple(row["options"]))
    return list(found.values()), problems


def _wrong(row: Mapping[str, Any]) -> Iterator[str]:
    """What makes a row unusable."""
    for name in COLUMNS:
        if name != "options" and not isinstance(row[name], str):
            hint = ": leading zeros are lost" if name == "video_id" and isinstance(row[name], int) else ""
            yield f"'{name}' is {row[name]!r}, expected a text{hint}"
        if name not in ("options", "url") and not str(row[name]).strip():
            yield f"'{name}' is empty"
    options = row["options"]
    if not isinstance(options, list) or not all(isinstance(one, str) for one in options):
        yield f"'options' is {str(options)[:60]!r}, expected a list of texts"
    elif len(options) != len(taxonomy.LETTERS):
        yield f"{len(options)} options, expected {len(taxonomy.LETTERS)}"
    elif wrong := [
        one for letter, one in zip(taxonomy.LETTERS, options, strict=True) if not one.startswith(f"{letter}.")
    ]:
        yield f"option '{wrong[0][:40]}' does not begin with its letter, such as '{taxonomy.LETTERS[0]}. Apples.'"
    if row["answer"] not in set(taxonomy.LETTERS):
        yield f"'answer' is {row['answer']!r}, expected one of {', '.join(taxonomy.LETTERS)}"
    if not str(row["question_id"]).startswith(f"{row['video_id']}-"):
        yield f"question_id '{row['question_id']}' does not belong to video_id '{row['video_id']}'"


def deviations(questions: Sequence[Question], rows: int | None = None) -> Iterator[str]:
    """How a set of questions differs from the published one: counts, names, groups; one sentence each."""
    rows = len(questions) if rows is None else rows
    if rows != taxonomy.QUESTIONS:
        yield f"{rows} rows; the published set has {taxonomy.QUESTIONS}"
    by_video = Counter(one.video_id for one in questions)
    if len(by_video) != taxonomy.VIDEOS:
        yield f"{len(by_video)} videos; the published set has {taxonomy.VIDEOS}"
    uneven = sorted(name for name, count in by_video.items() if count != 3)
    if uneven:
        yield f"{len(uneven)} videos do not have 3 questions: {_some(uneven)}"
    yield from _names(questions)
    place = {one.video_id: (one.duration, one.domain, one.sub_category, one.media_id) for one in questions}
    mixed = {
        one.video_id for one in questions if place[one.video_id] != (*tuple(one.place.values())[1:4], one.media_id)
    }
    if mixed:
        yield f"questions of one video differ in duration, domain, sub-category or videoID: {_some(sorted(mixed))}"
    media = Counter(entry[3] for entry in place.values())
    if shared := sorted(name for name, count in media.items() if count > 1):
        yield f"{len(shared)} videoIDs belong to several video_ids: {_some(shared)}"
    if len(by_video) == taxonomy.VIDEOS:
        yield from _counts(questions, place)


def _names(questions: Sequence[Question]) -> Iterator[str]:
    known = {
        "duration": set(taxonomy.DURATIONS),
        "domain": set(taxonomy.DOMAINS),
        "sub_category": set(taxonomy.SUB_CATEGORIES),
        "task_type": set(taxonomy.TASK_TYPES),
    }
    for name, names in known.items():
        strange = sorted({getattr(one, name) for one in questions} - names)
        if strange:
            yield f"unknown {name}: {_some(strange)}"
    wrong = sorted(
        {
            f"{one.sub_category} in {one.domain}"
            for one in questions
            if one.domain in taxonomy.DOMAINS
            and one.sub_category in known["sub_category"]
            and one.sub_category not in taxonomy.DOMAINS[one.domain]
        }
    )
    if wrong:
        yield f"sub-categories in another domain: {_some(wrong)}"


def _counts(questions: Sequence[Question], place: Mapping[str, tuple[str, str, str, str]]) -> Iterator[str]:
    for duration in taxonomy.DURATIONS:
        count = sum(entry[0] == duration for entry in place.values())
        if count != taxonomy.VIDEOS_PER_CLASS:
            yield f"{count} {duration} videos; published: {taxonomy.VIDEOS_PER_CLASS}"
    cells = Counter((entry[2], entry[0]) for entry in place.values())
    uneven = [
        f"{sub}/{d} {cells[sub, d]}"
        for sub in taxonomy.SUB_CATEGORIES
        for d in taxonomy.DURATIONS
        if cells[sub, d] != 10
    ]
    if uneven:
        yield f"sub-categories without 10 videos of a duration: {_some(uneven)}"
    tasks = Counter((one.task_type, one.duration) for one in questions)
    for name, counts in taxonomy.TASK_COUNTS.items():
        found = tuple(tasks[name, duration] for duration in taxonomy.DURATIONS)
        if found != counts:
            yield f"{name}: {found} questions about short, medium, long videos; published: {counts}"
    letters = Counter(one.answer for one in questions)
    if dict(letters) != taxonomy.ANSWER_COUNTS:
        yield f"answers {dict(sorted(letters.items()))}; published: {taxonomy.ANSWER_COUNTS}"


def _some(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
