"""Asks the questions of `questions.json` about the files beside it; prints the answers and writes them as an HTML page.

`make demo` runs it. Any other model, questions or page: ``python examples/demo.py --model DIR --questions FILE --page FILE``.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vedere.answers import exact_match
from vedere.errors import MediaError, RecordError, VedereError
from vedere.train.monitor import Shown, sample_page

HERE = Path(__file__).resolve().parent
VIDEOS = (".mp4", ".webm", ".mkv", ".mov", ".avi")
STRIP_FRAMES = 4


@dataclass(frozen=True, kw_only=True)
class Question:
    """A line of `questions.json`.

    Attributes:
        question: What is asked.
        file: Picture or video beside the questions; empty: text only.
        expected: The one right answer, if there is one.
    """

    question: str
    file: str = ""
    expected: str = ""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back.

    Attributes:
        asked: The question.
        text: The answer.
        prompt_tokens: Tokens that went in, visual ones included.
        tokens: Tokens that came out.
        seconds: Whole time, decoding the file included.
    """

    asked: Question
    text: str
    prompt_tokens: int
    tokens: int
    seconds: float

    @property
    def right(self) -> bool:
        """Whether it has the normal form of the expected answer (`vedere.answers`)."""
        return exact_match(self.text, self.asked.expected)

    @property
    def note(self) -> str:
        """The small print."""
        return f"{self.prompt_tokens} tokens in, {self.tokens} out, {self.seconds:.2f} s"


def read_questions(path: Path) -> list[Question]:
    """The questions of a file.

    Raises:
        RecordError: not a list of objects with the keys of `Question`.
        MediaError: a file that is not there.
    """
    from vedere import config
    from vedere.data.formats import decode_json

    data = decode_json(path.read_bytes(), str(path))
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        raise RecordError(f'{path}: expected a list of {{"question": ..., "file": ..., "expected": ...}}')
    questions = [config.from_dict(Question, item) for item in data]
    missing = [one.file for one in questions if one.file and not (path.parent / one.file).is_file()]
    if missing:
        raise MediaError(f"{path} names files that are not beside it: {', '.join(missing)}")
    return questions


def ask(session: Any, question: Question, folder: Path) -> Answer:
    """Asks one question.

    Args:
        session: What `vedere.load` returns.
        question: What to ask.
        folder: Where its file is.
    """
    media: dict[str, list[Path]] = {}
    if question.file:
        kind = "videos" if question.file.endswith(VIDEOS) else "images"
        media[kind] = [folder / question.file]
    start = time.perf_counter()
    reply = session.chat(question.question, max_new_tokens=48, **media)
    seconds = time.perf_counter() - start
    return Answer(
        asked=question,
        text=reply.text.strip(),
        prompt_tokens=reply.prompt_tokens,
        tokens=reply.answer_tokens,
        seconds=seconds,
    )


def thumbnail(path: Path) -> bytes:
    """What the page shows: the picture itself, or a strip of a video's frames as a JPEG."""
    if path.suffix not in VIDEOS:
        return path.read_bytes()
    from PIL import Image

    from vedere.vision.video import read_frames

    frames = read_frames(path, STRIP_FRAMES, resize=(160, 90)).frames
    strip = Image.new("RGB", (160 * len(frames), 90))
    for number, frame in enumerate(frames):
        strip.paste(frame, (160 * number, 0))
    buffer = io.BytesIO()
    strip.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def write_page(answers: Sequence[Answer], folder: Path, page: Path, title: str) -> None:
    """Writes the HTML page: picture, question, answer, what was expected, tokens, time."""
    rows = [
        Shown(
            image=thumbnail(folder / answer.asked.file) if answer.asked.file else None,
            prompt=answer.asked.question,
            answer=answer.text,
            target=answer.asked.expected,
            note=", ".join(filter(None, [answer.asked.file or "no picture", answer.note])),
        )
        for answer in answers
    ]
    sample_page(rows, page, title)


def run(session: Any, questions: Path, page: Path, title: str, say: Callable[[str], None] = print) -> list[Answer]:
    """Asks all questions, says each answer as it comes, writes the page.

    Args:
        session: What `vedere.load` returns.
        questions: The JSON file; media are beside it.
        page: Where the page goes.
        title: Of the page.
        say: Receives one line an answer, then the sum.
    """
    answers = []
    for question in read_questions(questions):
        answer = ask(session, question, questions.parent)
        verdict = ("right" if answer.right else f"expected {question.expected}") if question.expected else ""
        details = f"({answer.note}{', ' if verdict else ''}{verdict})"
        say(f"{question.file or '(no picture)':17} {question.question:39} {answer.text}  {details}")
        answers.append(answer)
    write_page(answers, questions.parent, page, title)
    known = [answer for answer in answers if answer.asked.expected]
    say(f"{sum(answer.right for answer in known)} of {len(known)} answers are as expected; the page: {page}")
    return answers


def main(model: str = "mini", questions: Path = HERE / "questions.json", page: Path = Path("demo.html")) -> None:
    """Asks a model questions about example files and writes a page.

    Args:
        model: Name or folder, as `vedere.load` takes it.
        questions: JSON file of questions; media are beside it.
        page: Where the HTML page goes.
    """
    import vedere

    run(vedere.load(model), questions, page, f"vedere: {model}")


if __name__ == "__main__":
    import tyro

    try:
        tyro.cli(main)
    except VedereError as error:
        sys.exit(f"demo: {error}")
