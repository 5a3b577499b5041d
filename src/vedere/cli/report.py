"""``vedere report LOG...``: one HTML page of one or several runs, with figures, comparisons and every item.

A log is one of Inspect's (``vedere eval`` writes them), a private safety log (ids, categories and labels are shown, nothing
else), or recorded answers with ``--benchmark``. ``LOG=NAME`` gives a run's model a name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from vedere.cli.output import note, print_json
from vedere.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Write one self-contained HTML page about runs."""

    logs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Logs; LOG=NAME names the model. Runs of one benchmark are compared."""
    out: Path = Path("report.html")
    """The page."""
    benchmark: str = ""
    """For recorded answers: by whose rules they are scored."""
    media: Path | None = None
    """For recorded answers: folder of the pictures and films that they name; by default the file's own."""
    media_megabytes: float = 60.0
    """Most megabytes of small pictures in the page."""
    title: str = ""
    """Heading of the page; by default the benchmarks' names."""
    json: bool = False
    """Print one JSON object."""


def main(argv: list[str]) -> int:
    """Runs ``vedere report``."""
    options = tyro.cli(
        ReportOptions, args=argv, prog="vedere report", description=__doc__, config=(tyro.conf.FlagCreatePairsOff,)
    )
    if not options.logs:
        raise ConfigError("no logs; give at least one: vedere report LOG...")
    from vedere.atomic import write_atomically
    from vedere.evals.report import report_page
    from vedere.evals.report_sources import read_runs

    runs = []
    for given in options.logs:
        path, name = _named(given)
        for run in read_runs(path, benchmark=options.benchmark, model=name, media=options.media):
            runs.append(replace(run, model=name) if name else run)
        note(f"vedere report: {path.name}: {len(runs)} runs so far")
    page = report_page(runs, media_megabytes=options.media_megabytes, title=options.title)

    def write(path: Path) -> None:
        path.write_text(page, encoding="utf-8")

    write_atomically(options.out, write)
    size, items = len(page.encode()), sum(len(run.items) for run in runs)
    if options.json:
        print_json({"out": str(options.out), "bytes": size, "runs": len(runs), "items": items})
    else:
        print(f"{options.out}: {len(runs)} runs, {items} items, {size / 1e6:.1f} MB")
    return 0


def _named(given: str) -> tuple[Path, str]:
    """``LOG`` or ``LOG=NAME``; a file whose own name has the sign is taken as it is."""
    if "=" not in given or Path(given).exists():
        return Path(given), ""
    path, _, name = given.rpartition("=")
    return Path(path), name
