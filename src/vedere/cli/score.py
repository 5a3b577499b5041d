"""``vedere score BENCHMARK FILE``: figures of recorded answers by the official rules; no model, no network.

``vedere score log FILE`` scores a finished log of an evaluation again, with nothing but the log.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from vedere.cli.output import columns, note, print_json
from vedere.errors import ConfigError
from vedere.evals.benchmarks import BENCHMARKS, SCORING_RULES_VERSION, score_file
from vedere.evals.records import Verdict


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """Score recorded answers by the official rules of a benchmark."""

    benchmark: Annotated[str, tyro.conf.Positional]
    """Name of the benchmark, a wrong one lists them all; or log, for a log of an evaluation."""
    file: Annotated[Path, tyro.conf.Positional]
    """JSONL, one answer a line (or a JSON array); a log's .eval or .json file."""
    blind: Path | None = None
    """Answers, or the log, of the same model without pictures: gives the multi-modal gain (MMStar)."""
    base: Path | None = None
    """Answers, or the log, of its language model alone, beside --blind: gives the leakage."""
    verdicts: Path | None = None
    """Also write the verdict of every row to this JSONL file."""
    json: bool = False
    """Print one JSON object instead of a table."""


def main(argv: list[str]) -> int:
    """Runs ``vedere score``."""
    about = f"{__doc__}\n\nBenchmarks: {', '.join(BENCHMARKS)}."
    options = tyro.cli(
        ScoreOptions, args=argv, prog="vedere score", description=about, config=(tyro.conf.FlagCreatePairsOff,)
    )
    if options.base is not None and options.blind is None:
        raise ConfigError("--base is compared with --blind; give both")
    if options.benchmark == "log":
        return _log(options)
    scores = score_file(options.benchmark, options.file)
    if options.verdicts is not None:
        from vedere.atomic import write_atomically

        def write(path: Path) -> None:
            path.write_text("".join(_verdict_lines(scores.verdicts)), encoding="utf-8")

        write_atomically(options.verdicts, write)
    if scores.counts["repeated_rows_left_out"]:
        note(
            f"vedere score: {scores.counts['repeated_rows_left_out']} rows repeat an earlier question and are left out"
        )
    if missing := scores.counts.get("rows_without_a_right_answer"):
        note(f"vedere score: {missing} rows have an empty 'answer' and count as wrong; test splits keep answers back")
    figures = {**scores.figures, **_gain(options)}
    about_run = {"benchmark": options.benchmark, "rules": SCORING_RULES_VERSION, "counts": dict(scores.counts)}
    if options.json:
        print_json({**figures, "scoring": about_run})
        return 0
    print_figures(options.benchmark, figures, scores.counts)
    print(f"rules version {SCORING_RULES_VERSION}")
    return 0


def _log(options: ScoreOptions) -> int:
    """A finished log again."""
    from vedere.evals.run import rescore

    if options.verdicts is not None:
        raise ConfigError(
            "--verdicts is for files of answers; the log itself has a verdict for each sample: leave it out"
        )
    result = rescore(options.file)
    result["figures"] = {**result["figures"], **_gain(options)}
    if options.json:
        print_json(result)
    else:
        print_figures(str(result["benchmark"]), result["figures"], result["counts"])
        print(f"rules version {result['rules']['scoring']}")
    return 0


def _gain(options: ScoreOptions) -> dict[str, Any]:
    """What the pictures are worth, where files without them are given."""
    if options.blind is None:
        return {}
    from vedere.evals.gain import credits_of, gain

    seen, blind = (credits_of(path, options.benchmark) for path in (options.file, options.blind))
    base = None if options.base is None else credits_of(options.base, options.benchmark)
    return {"gain": gain(seen, blind, base)}


def print_figures(benchmark: str, figures: Mapping[str, Any], counts: Mapping[str, int]) -> None:
    """Figures and counts as two tables."""
    rows = [(name, _shown(value)) for name, value in _flat(figures)]
    numbers = [(name.replace("_", " "), str(count)) for name, count in counts.items()]
    print("\n".join(columns([("figure", benchmark), *rows])))
    print("\n".join(["", *columns([("counted", ""), *numbers])]))


def _flat(figures: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Nested figures as (name, figure), names joined by a point."""
    for name, value in figures.items():
        if isinstance(value, Mapping) and not {"acc", "accuracy"} & set(value):
            yield from _flat(value, f"{before}{name} · ")
        else:
            yield before + name, value


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "  ".join(f"{name} {_shown(one)}" for name, one in value.items())
    if isinstance(value, list):
        return "  ".join(map(_shown, value))
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _verdict_lines(verdicts: Sequence[Verdict]) -> Iterator[str]:
    import json
    from dataclasses import asdict

    for verdict in verdicts:
        yield json.dumps(asdict(verdict), ensure_ascii=False) + "\n"
