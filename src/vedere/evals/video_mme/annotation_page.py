"""The page on which people mark certificates: one HTML file with the questions inside, opened from the disk.

It loads nothing and sends nothing (its content security policy forbids both); videos are picked from the disk by the
person, and marks come out as the JSONL that `vedere.evals.video_mme.certificate` reads. The page holds the questions,
so a page made of the official set must not be passed on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources

from vedere.errors import RecordError
from vedere.evals.video_mme.questions import Question


def annotation_page(questions: Sequence[Question]) -> str:
    """The page for these questions.

    Raises:
        RecordError: no questions.
    """
    if not questions:
        raise RecordError("0 questions to annotate; expected at least one")
    rows = [
        {
            "question_id": one.question_id,
            "media_id": one.media_id,
            "question": one.question,
            "options": list(one.options),
            "answer": one.answer,
        }
        for one in questions
    ]
    # Inside a script element only "<" could end it; as an escape it is the same JSON.
    data = json.dumps(rows, ensure_ascii=False).replace("<", "\\u003c")
    template = resources.files("vedere.evals.video_mme").joinpath("annotation.html").read_text("utf-8")
    return template.replace("__DATA__", data)
