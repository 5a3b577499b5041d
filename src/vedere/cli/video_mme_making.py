"""The commands of ``vedere video-mme`` for who makes such a set: certificate lengths, balance, answers without the video."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from vedere.cli.output import columns, note, print_json
from vedere.errors import ConfigError
from vedere.evals.video_mme.results import Result, read_result


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


def told(name: str, result: Result) -> Result:
    """The result, once its notes stand on standard error."""
    for line in result.notes:
        note(f"{name}: {line}")
    return result


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

    runs = [told(path.name, read_result(path)).outcomes for path in options.results]
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
