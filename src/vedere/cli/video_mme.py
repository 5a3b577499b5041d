"""``vedere video-mme ...``: the files of Video-MME, tables and comparisons of results, and tools to build such a set.

Asking a model is ``vedere eval``'s work; everything here reads files that are there and needs no model but ``transcribe``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vedere.cli.group import Commands, run_group
from vedere.cli.output import columns, note, print_json
from vedere.cli.video_mme_making import (
    AnswerableOptions,
    BalanceOptions,
    CertificateOptions,
    answerable,
    balance,
    certificate,
    told,
)
from vedere.errors import ConfigError
from vedere.evals.video_mme.results import read_result
from vedere.evals.video_mme.tables import Table


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Check questions, videos and subtitles on the disk; list what is missing or damaged (status 1 then)."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder with everything, or the parquet file."""
    videos: Path | None = None
    """Folder with the videos; by default the folder."""
    subtitles: Path | None = None
    """Folder with the SRT files; by default the folder."""
    depth: str = "probed"
    """How far videos are opened: listed, probed or decoded."""
    json: bool = False
    """Print one JSON object instead of text."""


@dataclass(frozen=True, kw_only=True)
class TranscribeOptions:
    """Write transcripts of videos' sound as SRT files, to use in place of subtitles."""

    videos: Annotated[Path, tyro.conf.Positional]
    """Folder with the videos."""
    out: Path
    """Folder to write; transcripts that are there stay."""
    weights: str = ""
    """Folder of faster-whisper's weights, or a name on the hub; by default the folder that VEDERE_WHISPER names."""
    language: str = ""
    """Code of the language, such as en; by default the model finds it."""
    device: str = "auto"
    """cpu, cuda or auto."""
    json: bool = False
    """Print one JSON object instead of text."""


@dataclass(frozen=True, kw_only=True)
class CollectOptions:
    """Turn rows of answers into the official output file; videos without answers are marked as missing."""

    questions: Annotated[Path, tyro.conf.Positional]
    """The parquet file, or a folder with it."""
    answers: Annotated[Path, tyro.conf.Positional]
    """JSONL with question_id and response a line."""
    out: Path
    """File to write."""
    json: bool = False
    """Print one JSON object instead of text."""


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """All tables of one model, with standard errors clustered by video."""

    results: Annotated[tuple[str, ...], tyro.conf.Positional]
    """SETTING=FILE ..., such as frames=a.json frames+subtitles=b.json; a run folder is a FILE too."""
    by: tuple[str, ...] = ()
    """Instead of the usual tables one by every combination of these: duration, domain, sub_category, task_type."""
    json: bool = False
    """Print one JSON object instead of text."""


@dataclass(frozen=True, kw_only=True)
class TableV2Options:
    """All tables of one model on Video-MME-v2: group scores and accuracy by setting, type, level and heads."""

    results: Annotated[tuple[str, ...], tyro.conf.Positional]
    """SETTING=FILE ..., rows in the order of the data, such as without=a.jsonl with=b.jsonl."""
    json: bool = False
    """Print one JSON object instead of text."""


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Compare models as one HTML page with tables, differences, radars and bars."""

    results: Annotated[tuple[str, ...], tyro.conf.Positional]
    """MODEL:SETTING=FILE ..., a model's first setting being the one that its others are compared with."""
    out: Path
    """Page to write."""
    title: str = "Video-MME"
    """Title of the page."""
    json: bool = False
    """Print one JSON object instead of text."""


@dataclass(frozen=True, kw_only=True)
class CanvasOptions:
    """Write the one picture that a video becomes with --frame-layout canvas (or --prompts xcomposer)."""

    video: Annotated[Path, tyro.conf.Positional]
    """The video."""
    out: Path
    """PNG file to write."""
    frames: int = 64
    """Frames of the video; of more than 64, 64 are shown."""
    frame_rule: str = "middle"
    """Which frames."""
    frame_rate: float = 1.0
    """Frames a second of the rule fps, of which --frames are the most."""
    json: bool = False
    """Print one JSON object instead of text."""


def main(argv: list[str]) -> int:
    """Runs ``vedere video-mme``."""
    commands: Commands = {
        "check": (CheckOptions, check),
        "transcribe": (TranscribeOptions, transcribe),
        "canvas": (CanvasOptions, canvas),
        "collect": (CollectOptions, collect),
        "table": (TableOptions, table),
        "table-v2": (TableV2Options, table_v2),
        "compare": (CompareOptions, compare),
        "certificate": (CertificateOptions, certificate),
        "balance": (BalanceOptions, balance),
        "answerable": (AnswerableOptions, answerable),
    }
    return run_group("video-mme", commands, argv)


def check(options: CheckOptions) -> int:
    """Checks files."""
    from vedere.evals.video_mme.media import check_media, find_media, report
    from vedere.evals.video_mme.questions import read_questions

    root = options.folder if options.folder.is_dir() else options.folder.parent
    videos = options.videos or root
    questions = read_questions(options.folder)
    media = find_media(videos, options.subtitles or root)
    found = check_media(questions, media, options.depth)  # type: ignore[arg-type]
    if options.json:
        print_json({**dataclasses.asdict(found), "usable": found.usable, "comparable": found.comparable})
    else:
        print(report(found))
    return 0 if found.comparable else 1


def transcribe(options: TranscribeOptions) -> int:
    """Writes transcripts."""
    from vedere.evals.video_mme.media import find_media
    from vedere.evals.video_mme.transcripts import FasterWhisper, transcribe_videos

    recogniser = FasterWhisper(weights=options.weights, language=options.language, device=options.device)
    done = transcribe_videos(find_media(options.videos).videos, recogniser, options.out, note)
    if options.json:
        print_json({"written": done.written, "kept": done.kept, "failed": dict(done.failed)})
    else:
        print(f"{len(done.written)} transcripts written, {len(done.kept)} were there, {len(done.failed)} videos failed")
    return 1 if done.failed else 0


def canvas(options: CanvasOptions) -> int:
    """Writes the canvas of a video."""
    from vedere.atomic import write_atomically
    from vedere.evals.items import Settings
    from vedere.evals.video_mme.dataset import StoredCanvas, input_config
    from vedere.evals.video_mme.inputs import choose
    from vedere.vision.canvas import TILE, thinned
    from vedere.vision.pixels import open_image

    settings = Settings(
        frames=options.frames,
        frame_rule=options.frame_rule,
        frame_rate=options.frame_rate,
        frame_layout="canvas",
    )
    chosen = choose(options.video, None, input_config(settings)).indices
    shown = tuple(chosen[place] for place in thinned(len(chosen)))
    picture = open_image(StoredCanvas(options.video, shown).read())

    def write(path: Path) -> None:
        picture.save(path, "PNG")

    write_atomically(options.out, write)
    width, height = picture.size
    tiles = width * height // TILE**2
    if options.json:
        print_json({"picture": str(options.out), "size": [width, height], "tiles": tiles, "frames": list(shown)})
    else:
        print(f"{options.out}: {len(shown)} frames, {width} x {height} px, {tiles} tiles of XComposer-2.5")
    return 0


def collect(options: CollectOptions) -> int:
    """Writes the official output file."""
    from vedere.evals.records import read_rows, without_repeats
    from vedere.evals.video_mme.questions import read_questions
    from vedere.evals.video_mme.results import official_form, write_official

    questions = read_questions(options.questions)
    rows, repeats = without_repeats(read_rows(options.answers))
    responses = {row.text("question_id"): row.answer() for row in rows}
    result = official_form(questions.questions, responses)
    write_official(options.out, result)
    missing = [video["video_id"] for video in result if video.get("missing")]
    empty = len(questions.questions) - len(responses) - sum(len(v["questions"]) for v in result if v.get("missing"))
    for problem in questions.problems:
        note(f"vedere video-mme collect: {problem}")
    if options.json:
        print_json({"videos": len(result), "missing": missing, "unanswered": empty, "repeated": repeats})
    else:
        print(
            f"{options.out}: {len(result)} videos, {len(missing)} of them missing, {empty} questions without an answer"
        )
    return 0


def _named(text: str) -> tuple[str, Path]:
    """``NAME=FILE``, split at the last "=" that a file follows; a file alone has the name ""."""
    if Path(text).exists():
        return "", Path(text)
    name, _, path = text.partition("=")
    if not path:
        raise ConfigError(f"'{text}' is no file and names none; expected SETTING=FILE, such as frames=result.json")
    return name, Path(path)


def _settings(texts: Sequence[str]) -> dict[str, Path]:
    """Files by setting, each of which is named once; a file without a name is that of frames alone."""
    found: dict[str, Path] = {}
    for text in texts:
        name, path = _named(text)
        name = name or "frames"
        if name in found:
            raise ConfigError(
                f"setting '{name}' stands twice; name each file's setting, such as frames+subtitles=b.json"
            )
        found[name] = path
    if not found:
        raise ConfigError("no result named; expected SETTING=FILE, such as frames=result.json")
    return found


def table(options: TableOptions) -> int:
    """Prints tables."""
    from vedere.evals.video_mme.tables import as_json, crossed, tables

    results = {name: told(name, read_result(path)).outcomes for name, path in _settings(options.results).items()}
    if options.by:
        one = crossed(results, options.by)
        if options.json:
            print_json({"head": one.head, "lines": one.lines})
        else:
            print(_text(one))
    elif options.json:
        print_json(as_json(results))
    else:
        print("\n\n".join(_text(one) for one in tables(results)))
    return 0


def table_v2(options: TableV2Options) -> int:
    """Prints the tables of version 2."""
    from vedere.evals.benchmarks import score_file
    from vedere.evals.video_mme.v2_tables import v2_tables

    results = {name: score_file("video-mme-v2", path) for name, path in _settings(options.results).items()}
    if options.json:
        print_json({name: {**scores.figures, "counts": dict(scores.counts)} for name, scores in results.items()})
    else:
        print("\n\n".join(_text(one) for one in v2_tables(results)))
    return 0


def _text(one: Table) -> str:
    return "\n".join([one.title, *columns([one.head, *one.lines])])


def compare(options: CompareOptions) -> int:
    """Writes the page."""
    from vedere.atomic import write_atomically
    from vedere.evals.video_mme.compare import Run, page

    runs = []
    for text in options.results:
        name, path = _named(text)
        model, _, setting = (name or path.stem).partition(":")
        result = told(name or path.name, read_result(path))
        runs.append(Run(model=model, setting=setting or "frames", result=result, source=path.name))
    made = page(runs, options.title)

    def write(path: Path) -> None:
        path.write_text(made, encoding="utf-8")

    write_atomically(options.out, write)
    if options.json:
        print_json({"page": str(options.out), "bytes": len(made.encode()), "runs": [run.name for run in runs]})
    else:
        print(f"{options.out}: {len(runs)} results, {len(made.encode()) / 1000:.0f} kB")
    return 0
