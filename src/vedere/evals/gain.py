"""What the pictures are worth: multi-modal gain and leakage (MMStar, arXiv 2403.20330).

A vision-language model is asked twice, with and without the pictures. Gain is the score with them minus the score without them.
What it knows without them beyond its bare language model, asked as well, has leaked in its multi-modal training: leakage is the
difference, or 0 where it is negative. MMStar defines both over all its questions; here they are taken of any benchmark that
gives each row a credit, over the same questions in all files, with a standard error of the gain that is clustered as the run's.

Cost: that of scoring the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vedere.errors import RecordError
from vedere.evals.benchmarks import BENCHMARKS, benchmark, score_rows
from vedere.evals.intervals import standard_error
from vedere.evals.records import mean, name_of, without_repeats

LOGS = (".eval",)
"""Endings of files that are logs of runs."""


@dataclass(frozen=True, kw_only=True)
class Credits:
    """Credit of every question of a run.

    Attributes:
        benchmark: Whose rules gave it.
        source: The file, for messages.
        values: Question -> credit from 0 to 1; one that is not judged has 0.
        groups: Question -> its cluster.
    """

    benchmark: str
    source: str
    values: Mapping[str, float]
    groups: Mapping[str, str]


def credits_of(path: Path, name: str = "") -> Credits:
    """Return the credits of recorded answers, or of a log of an evaluation.

    Args:
        path: JSONL of answers, or a log.
        name: The benchmark of recorded answers; a log names its own.

    Raises:
        ConfigError: an unknown benchmark.
        RecordError: the file cannot be scored, or its benchmark gives no credit for each row.
    """
    if path.suffix in LOGS or name in ("", "log"):
        return _of_log(path)
    benchmark(name)
    rows, _ = without_repeats(BENCHMARKS[name].read(path))
    verdicts = score_rows(name, rows).verdicts
    if len(verdicts) != len(rows):
        raise _no_credit(name)
    names = {row.line: name_of(row) for row in rows}
    values = {names[one.line]: one.credit or 0.0 for one in verdicts}
    return Credits(benchmark=name, source=path.name, values=values, groups={one: one for one in values})


def _of_log(path: Path) -> Credits:
    from vedere.evals.run import read_log, read_samples
    from vedere.evals.suites import suite

    log = read_log(path)
    asked, _, _ = read_samples(log)
    name = str(log.eval.metadata["vedere"]["benchmark"])
    verdicts = suite(name).score([one.record for one in asked]).verdicts
    if len(verdicts) != len(asked):
        raise _no_credit(name)
    values = {one.id: verdict.credit or 0.0 for one, verdict in zip(asked, verdicts, strict=True)}
    return Credits(
        benchmark=name, source=path.name, values=values, groups={one.id: one.group or one.id for one in asked}
    )


def _no_credit(name: str) -> RecordError:
    return RecordError(
        f"{name} gives no credit for each row, so that rows cannot be compared with and without pictures; expected a benchmark "
        "such as mmstar"
    )


def gain(seen: Credits, blind: Credits, base: Credits | None = None) -> dict[str, float | int]:
    """Return scores with and without pictures, multi-modal gain with its standard error, and leakage; ratios.

    Args:
        seen: With pictures.
        blind: The same model without pictures.
        base: Its language model before multi-modal training, without pictures; without it leakage is not known.

    Raises:
        RecordError: the files are of two benchmarks, or not about the same questions.
    """
    for other in (blind, *(() if base is None else (base,))):
        if other.benchmark != seen.benchmark:
            raise RecordError(
                f"{other.source} is of {other.benchmark}, {seen.source} of {seen.benchmark}; expected runs of one benchmark"
            )
        if odd := sorted(seen.values.keys() ^ other.values.keys()):
            raise RecordError(
                f"{seen.source} and {other.source} are not about the same questions ({len(odd)} are in one of them alone, such "
                f"as '{odd[0][:60]}'); expected the same questions in all files"
            )
    names = list(seen.values)
    differences = [seen.values[name] - blind.values[name] for name in names]
    without = mean(blind.values.values())
    figures: dict[str, float | int] = {
        "n": len(names),
        "with_pictures": mean(seen.values.values()),
        "without_pictures": without,
        "multimodal_gain": mean(differences),
        "gain_standard_error": standard_error(differences, [seen.groups[name] for name in names]),
    }
    if base is not None:
        bare = mean(base.values.values())
        figures |= {"text_only_base": bare, "leakage": max(0.0, without - bare)}
    return figures
