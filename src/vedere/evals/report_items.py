"""The item browser of a report: its frame, and the items as data that the page's script puts on the page as text.

Each picture is stored once, whichever items and runs show it. Texts cannot end the element that they stand in.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from vedere.evals.report_records import ReportRun


def item_browser(runs: Sequence[ReportRun]) -> str:
    """The frame of the item browser; the script fills it."""
    total = len({(run.benchmark, item.id) for run in runs for item in run.items})
    return (
        f'<section id="items"><h2>Items <span class="dim" id="count">{total}</span></h2><form id="filters">'
        '<input id="search" type="search" placeholder="search ids, questions, answers" aria-label="search">'
        '<select id="verdict" aria-label="verdict"><option value="all">all verdicts</option>'
        '<option value="wrong">wrong</option>'
        '<option value="right">right</option><option value="none">no verdict</option>'
        '<option value="differ">models differ</option></select>'
        '<span id="tags"></span></form><div id="list"></div><div id="more"></div>'
        "<noscript><p>The item browser needs the page's own script.</p></noscript></section>"
    )


def item_data(runs: Sequence[ReportRun], most: int) -> tuple[str, int]:
    """The script's data as JSON that cannot end its element, and the number of pictures left out."""
    pictures: dict[bytes, int] = {}
    used = left_out = 0
    items: dict[tuple[str, str], dict[str, Any]] = {}
    benchmarks = list(dict.fromkeys(run.benchmark for run in runs))
    models = list(dict.fromkeys(run.model for run in runs))
    for run in runs:
        for item in run.items:
            entry = items.setdefault(
                (run.benchmark, item.id), {"i": item.id, "b": benchmarks.index(run.benchmark), "a": {}}
            )
            for name, value in (("q", item.question), ("t", item.target)):
                if value and name not in entry:
                    entry[name] = value
            if item.options and "o" not in entry:
                entry["o"] = dict(item.options)
            if item.tags and "k" not in entry:
                entry["k"] = dict(item.tags)
            if item.media and "m" not in entry:
                entry["m"] = []
                for picture in item.media:
                    if picture not in pictures:
                        if used + len(picture) > most:
                            left_out += 1
                            continue
                        used += len(picture)
                        pictures[picture] = len(pictures)
                    entry["m"].append(pictures[picture])
            said = {"x": item.answer, "r": item.read, "l": item.label, "n": item.note}
            entry["a"][models.index(run.model)] = {
                "c": item.credit,
                **{name: value for name, value in said.items() if value},
            }
    data = {
        "benchmarks": benchmarks,
        "models": models,
        "items": list(items.values()),
        "pictures": [_data_url(picture) for picture in pictures],
    }
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for mark, safe in (
        ("<", "\\u003c"),
        (">", "\\u003e"),
        ("&", "\\u0026"),
        ("\u2028", "\\u2028"),
        ("\u2029", "\\u2029"),
    ):
        text = text.replace(mark, safe)
    return text, left_out


def _data_url(picture: bytes) -> str:
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
