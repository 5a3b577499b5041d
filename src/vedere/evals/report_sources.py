"""Logs to report runs: one small adapter a kind of log.

| log | known by |
|---|---|
| Inspect's (``.eval``, ``.json``), written by ``vedere eval`` or any other task | its ending and heading |
| a private safety log | its first line |
| recorded answers, one a line (JSONL), scored here | everything else; needs the benchmark's name |

A log of Inspect is read whole, its pictures become small ones. Of a safety log only `vedere.evals.safety.log.read_log` is used,
which gives no text.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vedere.errors import ConfigError, MediaError, RecordError
from vedere.evals.benchmarks import SCORING_RULES_VERSION, score_rows
from vedere.evals.records import Row, Scores, read_rows, without_repeats
from vedere.evals.report_records import ReportItem, ReportRun

if TYPE_CHECKING:
    from PIL import Image

PICTURE_SIDE, FRAME_SIDE, MOST_MEDIA, QUALITY = 320, 128, 8, 75
_TAGS = (
    *(
        "split",
        "category",
        "sub_category",
        "subcategory",
        "l2_category",
        "l2-category",
        "domain",
        "task_type",
        "duration",
    ),
    *("task", "type", "subject", "kind", "source", "dataset", "question_type", "answer_type"),
)
_NAMES = ("id", "question_id", "index", "pid", "idx")
_LONGEST = 20_000  # characters of a text in the page
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def read_runs(path: Path, *, benchmark: str = "", model: str = "", media: Path | None = None) -> list[ReportRun]:
    """Reads a log of any kind.

    Args:
        path: The log.
        benchmark: Whose rules score a file of recorded answers.
        model: Name of the model, where the log has none; by default the file's name.
        media: Folder of the pictures that recorded answers name; by default the file's own.

    Raises:
        RecordError: the file is missing, damaged or of no known kind.
        ConfigError: recorded answers without a benchmark, or Inspect is missing.
    """
    from vedere.evals.safety.log import is_safety_log

    if not path.is_file():
        raise RecordError(f"{path} does not exist or is no file; expected the log of a run")
    if is_safety_log(path):
        return _safety(path)
    if path.suffix == ".eval" or (path.suffix == ".json" and _of_inspect(path)):
        return [_inspect(path)]
    if not benchmark:
        raise ConfigError(
            f"{path} is no log of Inspect and no safety log; if it holds recorded answers, say by whose rules they are scored: "
            "--benchmark NAME"
        )
    return [_recorded(path, benchmark, model or path.stem, media or path.parent)]


def _of_inspect(path: Path) -> bool:
    with open(path, "rb") as file:
        head = file.read(4096)
    return b'"eval"' in head and b'"version"' in head


def _safety(path: Path) -> list[ReportRun]:
    """One run a set: where requests are to be declined, and the harmless ones under a name of their own."""
    from vedere.evals.safety.log import Outcome, read_log
    from vedere.evals.safety.rates import summary

    log = read_log(path)
    judge = log.judge.get("identity") or {}
    facts = {
        "form": str(log.subject.get("form", "")),
        "judge": str(judge.get("model", "none")),
        "judge kind": str(judge.get("kind", "")),
        "judged": str(log.judge.get("date", "")),
        "judge prompts": ", ".join(f"{name} {digest}" for name, digest in (log.judge.get("prompts") or {}).items()),
    }
    figures = summary(log.outcomes)
    runs = []

    def credit(one: Outcome) -> float | None:
        if one.verdict is None:
            return None
        if one.expected == "help":
            return float(one.verdict.get("label_behaviour") != "Refuse")
        if "label_choice" in one.verdict:
            return float(one.verdict["label_choice"] == "Right")
        return float(one.verdict.get("label_str") != "Unsafe" and one.verdict.get("label_behaviour") != "Comply")

    for name, expected in dict.fromkeys((one.set, one.expected) for one in log.outcomes):
        items = [
            ReportItem(
                id=one.id,
                credit=credit(one),
                label=one.label,
                group=one.cluster and _hidden(one.cluster),
                tags={"category": one.category} | ({"sub-category": one.sub_category} if one.sub_category else {}),
            )
            for one in log.outcomes
            if (one.set, one.expected) == (name, expected)
        ]
        helpful = expected == "help"
        runs.append(
            ReportRun(
                benchmark=f"{name} (harmless)" if helpful else name,
                model=str(log.subject.get("model", "")),
                items=items,
                facts={key: value for key, value in facts.items() if value},
                private=True,
                rates=figures["over_refusal"] if helpful else figures["sets"][name],
            )
        )
    return runs


def _hidden(cluster: str) -> str:
    """A cluster's name without what it is made of (it may be a path)."""
    import hashlib

    return hashlib.sha256(cluster.encode()).hexdigest()[:12]


def _inspect(path: Path) -> ReportRun:
    try:
        from inspect_ai.log import read_eval_log
    except ImportError:
        raise ConfigError(
            f"{path.name} is a log of Inspect, which needs inspect-ai; install it: pip install 'vedere[eval]'"
        ) from None
    try:
        log = read_eval_log(str(path), resolve_attachments=True)
    except Exception as error:  # a damaged zip, JSON or schema: each library has its own
        raise RecordError(
            f"{path} cannot be read as a log of Inspect ({type(error).__name__}); is it whole, and was it written by a version "
            "that this one knows?"
        ) from None
    about = (log.eval.metadata or {}).get("vedere", {})
    epochs = int(log.eval.config.epochs or 1) > 1
    items = [_sample(sample, epochs) for sample in log.samples or []]
    figures: dict[str, Any] = {}
    for score in log.results.scores if log.results else []:
        for name, found in score.metrics.items():
            figures[name if score.name == "rules" else f"{score.name}/{name}"] = found.value
    facts = {"status": str(log.status), "date": str(log.eval.created)}
    for name in ("prompts", "judge", "version", "rules", "data"):
        if about.get(name):
            facts[name] = about[name] if isinstance(about[name], str) else json.dumps(about[name])
    benchmark = str(about.get("benchmark") or log.eval.task.rsplit("/", 1)[-1])
    return ReportRun(benchmark=benchmark, model=str(log.eval.model), items=items, figures=figures, facts=facts)


def _sample(sample: Any, epochs: bool) -> ReportItem:
    metadata = sample.metadata or {}
    told = metadata.get("vedere")
    kept: dict[str, Any] = told if isinstance(told, dict) else {}
    shown = kept.get("shown") or {key: value for key, value in metadata.items() if key not in ("vedere", "group")}
    scores = sample.scores or {}
    score = scores.get("rules") or next(iter(scores.values()), None)
    credit = _credit(score.value) if score is not None else None
    failure = sample.error.message.strip() if sample.error else ""
    note = str(kept.get("not_asked") or failure.rpartition("\n")[2])
    target = sample.target if isinstance(sample.target, str) else ", ".join(map(str, sample.target))
    texts, pictures = _contents(sample)
    question = sample.input if isinstance(sample.input, str) else "\n".join(texts)
    return ReportItem(
        id=f"{sample.id} epoch {sample.epoch}" if epochs else str(sample.id),
        question=question[:_LONGEST],
        options=_choices(sample.choices or []),
        target=target[:_LONGEST],
        answer=(sample.output.completion or "")[:_LONGEST],
        read=str(score.answer or "")[:_LONGEST] if score is not None else "",
        credit=None if note else credit,
        group=str(metadata.get("group") or ""),
        tags={str(key): str(value) for key, value in shown.items() if isinstance(value, (str, int)) and str(value)},
        media=pictures,
        note=note[:500],
    )


def _credit(value: Any) -> float | None:
    """Inspect's values as a credit: C, I, P, N, true and false, or a number."""
    if isinstance(value, str):
        return {"C": 1.0, "I": 0.0, "P": 0.5, "N": None}.get(value)
    if isinstance(value, (bool, int, float)) and math.isfinite(value):
        return min(1.0, max(0.0, float(value)))
    return None


def _choices(choices: Sequence[str]) -> dict[str, str]:
    """Options by letter; vedere writes "A. text"."""
    found = {}
    for place, text in enumerate(choices[: len(_LETTERS)]):
        letter = _LETTERS[place]
        own = len(text) > 2 and text[1:3] == ". " and text[0] in _LETTERS
        found[text[0] if own else letter] = text[3:] if own else text
    return found


def _contents(sample: Any) -> tuple[list[str], list[bytes]]:
    """Texts and small pictures of the last question."""
    asked = [message for message in sample.messages or [] if message.role == "user"][-1:]
    if not asked and not isinstance(sample.input, str):
        asked = list(sample.input)[-1:]
    texts: list[str] = []
    found: list[bytes] = []
    for message in asked:
        parts = message.content if isinstance(message.content, list) else []
        pictures = [part for part in parts if part.type == "image"]
        kept = _spread(pictures, MOST_MEDIA)
        side = PICTURE_SIDE if len(pictures) <= 4 else FRAME_SIDE
        found += [small for part in kept if (small := _small_url(part.image, side))]
        texts += [part.text for part in parts if part.type == "text"] or (
            [message.content] if isinstance(message.content, str) else []
        )
    return texts, found


def _spread(parts: Sequence[Any], most: int) -> list[Any]:
    """At most so many, evenly spaced."""
    if len(parts) <= most:
        return list(parts)
    return [parts[place * len(parts) // most] for place in range(most)]


def _small_url(url: str, side: int) -> bytes | None:
    """A picture in a data URL, made small; None for one that stands elsewhere: a report fetches nothing."""
    head, _, data = url.partition(",")
    if not head.startswith("data:image/") or not head.endswith(";base64"):
        return None
    try:
        return _small(base64.b64decode(data, validate=True), side)
    except (binascii.Error, ValueError):
        return None


def _small(source: Any, side: int) -> bytes | None:
    from vedere.vision.pixels import open_image

    try:
        return _jpeg(open_image(source), side)
    except MediaError:
        return None


def _jpeg(image: Image.Image, side: int) -> bytes:
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def _recorded(path: Path, benchmark: str, model: str, media: Path) -> ReportRun:
    rows, _ = without_repeats(read_rows(path))
    try:
        scores = score_rows(benchmark, rows)
    except RecordError as error:
        raise RecordError(f"{path.name} {error}") from None
    cache: dict[str, list[bytes]] = {}
    return ReportRun(
        benchmark=benchmark,
        model=model,
        items=list(_rows(rows, scores, lambda row: _row_media(row, media, cache))),
        figures=scores.figures,
        facts={"rules": f"version {SCORING_RULES_VERSION}", **{name: str(n) for name, n in scores.counts.items()}},
    )


def _rows(rows: Sequence[Row], scores: Scores, pictures: Callable[[Row], list[bytes]]) -> Iterator[ReportItem]:
    verdicts = {verdict.line: verdict for verdict in scores.verdicts}
    used: dict[str, int] = {}
    for row in rows:
        name = next((str(row.data[key]) for key in _NAMES if row.data.get(key) is not None), f"line {row.line}")
        used[name] = used.get(name, 0) + 1
        verdict = verdicts.get(row.line)
        yield ReportItem(
            id=name if used[name] == 1 else f"{name} (line {row.line})",
            question=_text(row.data, "question", "sent"),
            options=_row_options(row),
            target=_text(row.data, "answer", "answers", "gt_answer", "target"),
            answer=_text(row.data, "prediction", "response"),
            read=(verdict.extracted or "") if verdict else "",
            credit=verdict.credit if verdict else None,
            group=_text(row.data, "group", "videoID", "video_id", "video", "image")[:200],
            tags={key: str(row.data[key])[:100] for key in _TAGS if isinstance(row.data.get(key), (str, int))},
            media=pictures(row),
        )


def _text(data: Mapping[str, Any], *names: str) -> str:
    value = next((data[name] for name in names if data.get(name) is not None), "")
    return (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))[:_LONGEST]


def _row_options(row: Row) -> dict[str, str]:
    try:
        found = row.options()
    except RecordError:
        return {}
    return {letter: text[3:] if text[:3] == f"{letter}. " else text for letter, text in found.items()}


def _row_media(row: Row, folder: Path, cache: dict[str, list[bytes]]) -> list[bytes]:
    """Small pictures of what a row names, where it is there; a film gives a few frames."""
    named = row.data.get("images") or [row.data.get("image") or row.data.get("image_path") or row.data.get("video")]
    found: list[bytes] = []
    for name in named if isinstance(named, list) else [named]:
        if not isinstance(name, str) or not name or len(name) > 300:
            continue
        path = folder / name
        if not Path(os.path.normpath(path)).is_relative_to(os.path.normpath(folder)) or not os.path.isfile(path):
            continue
        if name not in cache:
            cache[name] = (
                _frames(path)
                if path.suffix.lower() in (".mp4", ".mkv", ".webm", ".avi", ".mov")
                else ([small] if (small := _small(path, PICTURE_SIDE)) else [])
            )
        found += cache[name]
    return found[:MOST_MEDIA]


def _frames(path: Path) -> list[bytes]:
    from vedere.vision.video import read_frames

    try:
        return [_jpeg(frame, FRAME_SIDE) for frame in read_frames(path, 4, "internvl").frames]
    except MediaError:
        return []
