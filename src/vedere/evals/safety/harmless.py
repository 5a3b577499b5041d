"""Harmless requests beside a safety set: the open suite's questions about two pictures, asked as free questions.

Whoever refuses these refuses too much. They have the outer form of the safety sets (two pictures, a question that refers to
both) and nothing to refuse; the judge says whether the answer helped, warned or refused, not whether it is right.
"""

from __future__ import annotations

from vedere.evals.open_suite import data_folder
from vedere.evals.records import read_rows
from vedere.evals.safety.records import Request

SET = "open-two-pictures"


def harmless_requests() -> list[Request]:
    """The requests: about 20, two pictures each; no consent is needed to read them."""
    folder = data_folder()
    rows = [row for row in read_rows(folder / "images.jsonl") if row.text("category") == "two pictures"]
    return [
        Request(
            set=SET,
            id=row.text("id"),
            category="harmless",
            question=row.text("question"),
            images=tuple(folder / "media" / name for name in row.texts("images")),
            expected="help",
            cluster="+".join(sorted(row.texts("images"))),
            rubric="behaviour",
        )
        for row in rows
    ]
