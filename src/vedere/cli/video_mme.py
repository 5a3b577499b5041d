"""``vedere video-mme ...``: the files of Video-MME, tables and comparisons of results, and tools to build such a set.

Asking a model is ``vedere eval``'s work; everything here reads files that are there and needs no model but ``transcribe``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from vedere.cli.data import columns
from vedere.cli.output import note, print_json
from vedere.config import nearest
from vedere.errors import ConfigError
from vedere.evals.video_mme.results import Result, read_result
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
class CertificateOptions:
    """Certificate lengths of annotated questions; with --page, the page to annotate on."""

    annotations: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """JSONL files of annotations."""
    questions: Path | None = None
    """The parquet file, or a folder with it: durations, and the questions of the page."""
    page: Path | None = None
    """Write the page to annotate on, with these questions."""
    sample: int = 0
    """Questions on the page: so many, drawn evenly over durations; 0 takes all."""
    seed: int = 0
    """Draws them."""
    json: bool = False
    """Print one JSON object instead of text."""


@dataclass(frozen=True, kw_only=True)
class BalanceOptions:
    """Check the balance of a set: letters, option lengths, durations, repeated texts (status 1 with findings)."""

    questions: Annotated[Path, tyro.conf.Positional]
    """The parquet file, or a folder with it."""
    json: bool = False
    """Print one JSON object instead of text."""


@dataclass(frozen=True, kw_only=True)
class AnswerableOptions:
    """Which questions are answered without their video, from runs with the prompt set text-only."""

    results: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Result files of such runs."""
    needed: int = 0
    """Runs that have to be right before a question is sent back; 0 means more than half."""
    json: bool = False
    """Print one JSON object instead of text."""


def main(argv: list[str]) -> int:
    """Runs ``vedere video-mme``."""
    commands: dict[str, tuple[type, Callable[[Any], int]]] = {
        "check": (CheckOptions, check),
        "transcribe": (TranscribeOptions, transcribe),
        "collect": (CollectOptions, collect),
        "table": (TableOptions, table),
        "compare": (CompareOptions, compare),
        "certificate": (CertificateOptions, certificate),
        "balance": (BalanceOptions, balance),
        "answerable": (AnswerableOptions, answerable),
    }
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: vedere video-mme {'|'.join(commands)} ...     (vedere video-mme COMMAND --help says more)\n")
        print(
            "\n".join(
                f"  {name:<12} {(options.__doc__ or '').splitlines()[0]}" for name, (options, _) in commands.items()
            )
        )
        return 0 if argv else 2
    if argv[0] not in commands:
        raise ConfigError(
            f"unknown command 'video-mme {argv[0]}'{nearest(argv[0], commands)} (commands: {', '.join(commands)})"
        )
    options, function = commands[argv[0]]
    parsed: Any = tyro.cli(
        options, args=argv[1:], prog=f"vedere video-mme {argv[0]}", config=(tyro.conf.FlagCreatePairsOff,)
    )
    return function(parsed)


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


def _tell(name: str, result: Result) -> Result:
    for line in result.notes:
        note(f"{name}: {line}")
    return result


def table(options: TableOptions) -> int:
    """Prints tables."""
    from vedere.evals.video_mme.tables import as_json, crossed, tables

    results = {}
    for text in options.results:
        name, path = _named(text)
        name = name or "frames"
        if name in results:
            raise ConfigError(
                f"setting '{name}' stands twice; name each result's setting, such as frames+subtitles=b.json"
            )
        results[name] = _tell(name, read_result(path)).outcomes
    if not results:
        raise ConfigError("no result named; expected SETTING=FILE, such as frames=result.json")
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
        result = _tell(name or path.name, read_result(path))
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


def certificate(options: CertificateOptions) -> int:
    """Prints certificate lengths, or writes the page to mark them on."""
    from vedere.evals.video_mme.questions import read_questions

    questions = read_questions(options.questions).questions if options.questions else ()
    if options.page is not None:
        return _page(options, questions)
    from vedere.evals.video_mme.certificate import PUBLISHED, agreement, lengths, read_annotations

    if not options.annotations:
        raise ConfigError("no annotations named; give JSONL files, or --page PAGE --questions FILE to make them")
    annotations = [one for path in options.annotations for one in read_annotations(path)]
    found, agreed = lengths(annotations, questions), agreement(annotations)
    if options.json:
        entries = {name: dataclasses.asdict(one) for name, one in found.items()}
        pairs = None if agreed is None else {"pairs": agreed[0], "overlap": agreed[1]}
        print_json({"lengths": entries, "agreement": pairs})
        return 0
    head = (
        "duration",
        "questions",
        "video, mean s",
        "median s",
        "mean s",
        "share",
        "clips",
        "published median, mean s",
    )
    rows = [head]
    for name, one in found.items():
        published = "{1:.1f}, {2:.1f}".format(*PUBLISHED[name]) if name in PUBLISHED else ""
        figures = (f"{one.video_mean:.1f}", f"{one.median:.1f}", f"{one.mean:.1f}", f"{100 * one.share:.1f} %")
        rows.append((name, str(one.questions), *figures, f"{one.clips:.1f}", published))
    print("\n".join(columns(rows)))
    if agreed is not None:
        print(f"\n{agreed[0]} pairs of annotators, mean overlap {agreed[1]:.2f}")
    return 0


def _page(options: CertificateOptions, questions: Sequence[Any]) -> int:
    from vedere.atomic import write_atomically
    from vedere.evals.video_mme.annotation_page import annotation_page
    from vedere.evals.video_mme.certificate import sample

    assert options.page is not None
    if not questions:
        raise ConfigError("--page needs --questions, the parquet file whose questions are to be marked")
    chosen = sample(questions, options.sample, options.seed) if options.sample else questions
    made = annotation_page(chosen)

    def write(path: Path) -> None:
        path.write_text(made, encoding="utf-8")

    write_atomically(options.page, write)
    note("the page holds the questions: do not pass it on where their licence forbids it")
    if options.json:
        print_json({"page": str(options.page), "questions": len(chosen)})
    else:
        print(f"{options.page}: {len(chosen)} questions; open it in a browser")
    return 0


def balance(options: BalanceOptions) -> int:
    """Prints the balance of a set."""
    from vedere.evals.video_mme.construction import balance as measure
    from vedere.evals.video_mme.questions import read_questions

    read = read_questions(options.questions)
    found = measure(read.questions)
    findings = [*read.problems, *found.findings]
    if options.json:
        print_json({**dataclasses.asdict(found), "findings": findings})
        return 1 if findings else 0
    print(f"{found.questions} questions about {sum(found.videos.values())} videos")
    letters = ", ".join(f"{letter} {count}" for letter, count in found.letters.items())
    print(
        f"right letters: {letters} (as uneven by chance: {found.even:.3f}); always {found.always[0]}: {found.always[1]:.1%}"
    )
    print(
        f"the right option is the longest in {found.longest[0]:.1%}, the shortest in {found.shortest[0]:.1%} (chance 25 %)"
    )
    for title, table in (("videos by sub-category", found.cells), ("questions by task type", found.tasks)):
        durations = list(found.videos)
        rows = [(title, *durations, "all")]
        for name, counts in table.items():
            rows.append((name, *(str(counts.get(one, 0)) for one in durations), str(sum(counts.values()))))
        print("\n" + "\n".join(columns(rows)))
    print("\n" + ("\n".join(["to look at:", *(f"  {one}" for one in findings)]) if findings else "nothing to look at"))
    return 1 if findings else 0


def answerable(options: AnswerableOptions) -> int:
    """Prints which questions need no video."""
    from vedere.evals.video_mme.construction import CHANCE
    from vedere.evals.video_mme.construction import answerable as measure

    runs = [_tell(path.name, read_result(path)).outcomes for path in options.results]
    found = measure(runs, options.needed or None)
    if options.json:
        print_json(dataclasses.asdict(found))
        return 0
    error = "" if found.error is None else f" ±{100 * found.error:.1f}"
    print(
        f"{found.runs} runs, {found.questions} questions: {100 * found.accuracy:.1f}{error} % right without the video"
    )
    print(f"chance {100 * CHANCE:.0f} %; the published set stayed below 15 % once such questions were removed")
    rows = [("by task type", "right"), *((name, f"{share:.1%}") for name, share in found.by_task.items())]
    print("\n" + "\n".join(columns(rows)))
    print(f"\n{len(found.revise)} questions answered by at least {found.needed} runs, to be revised:")
    print("\n".join(f"  {name}" for name in found.revise))
    return 0
