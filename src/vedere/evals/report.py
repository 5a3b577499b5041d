"""One self-contained HTML page of one or several runs: figures, tables, comparisons, every item with its pictures.

The page loads nothing: style, script, pictures and data stand in it, and its content security policy forbids everything else.
Texts of data sets and models are data for the script, which puts them on the page as text and never as markup; what is written
here as HTML is escaped. Items are drawn when they are scrolled to, so 5,000 of them open at once; each picture is stored once.

Cost: about 1 kB an item and 5 to 15 kB a picture; ``media_megabytes`` bounds the latter, and what does not fit is counted.
"""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import resources
from typing import Any

from vedere import __version__
from vedere.errors import RecordError
from vedere.evals.intervals import Estimate, mean_interval, share
from vedere.evals.report_compare import pair
from vedere.evals.report_figures import Bar, bars, differences
from vedere.evals.report_items import item_browser, item_data
from vedere.evals.report_rates import rates_table, rates_tile
from vedere.evals.report_records import ReportRun, tables_of

MOST_PAIRS = 10


def report_page(runs: Sequence[ReportRun], *, media_megabytes: float = 60.0, title: str = "") -> str:
    """Returns the page.

    Args:
        runs: Runs of any benchmarks; those of one benchmark are compared.
        media_megabytes: Most megabytes of pictures.
        title: Of the page; by default the benchmarks' names.

    Raises:
        RecordError: no runs, or two runs of one model on one benchmark under one name.
    """
    if not runs:
        raise RecordError("no runs to report; expected at least one log")
    names = [(run.benchmark, run.model) for run in runs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise RecordError(
            f"two runs of {twice[1]} on {twice[0]}; give each a name of its own: LOG=NAME, or leave one of them out"
        )
    benchmarks = list(dict.fromkeys(run.benchmark for run in runs))
    heading = title or ", ".join(benchmarks)
    body = "".join(_section(name, [run for run in runs if run.benchmark == name]) for name in benchmarks)
    data, left_out = item_data(runs, int(media_megabytes * 1e6))
    note = f" {left_out} pictures were left out: they are beyond {media_megabytes:g} MB." if left_out else ""
    style, script = (
        resources.files("vedere.evals").joinpath("report_assets", name).read_text("utf-8")
        for name in ("page.css", "page.js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'"
    )
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(heading)}</title><style>{style}</style></head><body>"
        f'<header><h1>{html.escape(heading)}</h1><button id="theme" type="button">light / dark</button></header>'
        f"<main>{body}{item_browser(runs)}</main>"
        f"<footer>vedere {html.escape(__version__)}.{html.escape(note)} Intervals are 95 %, clustered by picture, film or "
        "situation.</footer>"
        f'<script type="application/json" id="data">{data}</script><script>{script}</script></body></html>\n'
    )
    return page.encode("utf-8", "replace").decode()  # half a surrogate pair is no text


def accuracy(run: ReportRun, places: Sequence[int] | None = None) -> Estimate:
    """Mean credit in 0 to 1; a share (Wilson) where every credit is 0 or 1."""
    chosen = range(len(run.items)) if places is None else places
    credits, clusters = run.credits, run.clusters
    values, names = [credits[place] for place in chosen], [clusters[place] for place in chosen]
    if all(value in (0.0, 1.0) for value in values):
        return share([value == 1.0 for value in values], names)
    found = mean_interval(values, names)
    return Estimate(
        value=found.value, low=max(0.0, found.low), high=min(1.0, found.high), n=found.n, clusters=found.clusters
    )


def _bar(label: str, found: Estimate, series: int = 0) -> Bar:
    return Bar(
        label=label, value=100 * found.value, low=100 * found.low, high=100 * found.high, n=found.n, series=series
    )


def _section(benchmark: str, runs: Sequence[ReportRun]) -> str:
    private = any(run.private for run in runs)
    parts = [f'<section><h2>{html.escape(benchmark)}</h2><div class="tiles">']
    parts += [_tile(run, number) for number, run in enumerate(runs)]
    parts.append("</div>")
    if private:
        parts += [rates_table(run) for run in runs]
        parts.append(
            '<p class="hint">Requests and answers of this set are not in this page. They stand in the run\'s own log.</p>'
        )
    else:
        parts += _tag_figures(runs)
    for first, second in itertools.islice(itertools.combinations(runs, 2), MOST_PAIRS):
        parts.append(_pair(first, second))
    parts += [_details(run) for run in runs]
    return "".join([*parts, "</section>"])


def _tile(run: ReportRun, number: int) -> str:
    if run.private:
        return rates_tile(run, number)
    found = accuracy(run)
    missing = sum(item.credit is None for item in run.items)
    lines = [f"{found.n} items"]
    if found.clusters != found.n:
        lines.append(f"{found.clusters} groups")
    if missing:
        lines.append(f"{missing} without a verdict, counted as wrong")
    return (
        f'<div class="tile s{number % 4}"><div class="who">{html.escape(run.model)}</div>'
        f'<div class="big">{100 * found.value:.1f}<small>%</small></div>'
        f'<div class="range">{100 * found.low:.1f} to {100 * found.high:.1f}</div>'
        f'<div class="dim">{html.escape(" · ".join(lines))}</div></div>'
    )


def _tag_figures(runs: Sequence[ReportRun]) -> Iterator[str]:
    """For each tag the accuracy of its values, all models beside each other."""
    tables = [tables_of(run) for run in runs]
    for name in dict.fromkeys(name for table in tables for name in table):
        rows: list[Bar] = []
        last = ""
        for value in dict.fromkeys(value for table in tables for value in table.get(name, {})):
            for number, (run, table) in enumerate(zip(runs, tables, strict=True)):
                places = table.get(name, {}).get(value)
                if places:
                    bar = _bar(f"{value}, {run.model}", accuracy(run, places), number)
                    rows.append(replace(bar, shown=value if value != last else ""))
                    last = value
        yield f'<h3>by {html.escape(name.replace("_", " "))}</h3><div class="scroll">{bars(rows, f"accuracy by {name}")}</div>'


def _pair(first: ReportRun, second: ReportRun) -> str:
    try:
        found = pair(first, second)
    except RecordError as error:  # other runs of the page can still be compared
        return f'<p class="hint">{html.escape(str(error))}</p>'
    whole = found.whole
    gap, low, high = (100 * end for end in (whole.difference.value, whole.difference.low, whole.difference.high))
    sure = "better" if low > 0 else "worse" if high < 0 else "open"
    rows = [_difference("all items", whole)]
    for parts in found.by.values():
        rows += [_difference(value, one) for value, one in parts.items()]
    good = "answers well" if first.private else "has right"
    lines = [
        f"{found.items} common items" + (f" ({found.only_one} stand in one run only)" if found.only_one else ""),
        *([f"{found.unjudged} without a verdict of both left out"] if found.unjudged else []),
        f"{whole.only_second} only the second {good}, {whole.only_first} only the first",
        f"bootstrap over {whole.difference.clusters} groups {100 * whole.bootstrap[0]:+.1f} to {100 * whole.bootstrap[1]:+.1f}",
        f"McNemar p = {whole.p:.3g}",
    ]
    return (
        f'<div class="pair"><h3>{html.escape(found.second)} <span class="dim">against</span> {html.escape(found.first)}</h3>'
        f'<p class="big {sure}">{gap:+.1f}<small> points, {low:+.1f} to {high:+.1f}</small></p>'
        f'<p class="dim">{html.escape(" · ".join(lines))}</p>'
        f'<div class="scroll">{differences(rows, "differences")}</div></div>'
    )


def _difference(label: str, found: Any) -> Bar:
    one = found.difference
    return Bar(label=label, value=100 * one.value, low=100 * one.low, high=100 * one.high, n=one.n)


def _details(run: ReportRun) -> str:
    """Facts and official figures, folded."""
    facts = [(name, value) for name, value in run.facts.items() if value]
    figures = [(name, f"{value:.4g}") for name, value in flat_figures(run.figures)]
    if not facts and not figures:
        return ""
    rows = "".join(
        f"<tr><th>{html.escape(str(name))}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in [*facts, *figures]
    )
    return (
        f"<details><summary>{html.escape(run.model)}: settings and {len(figures)} official figures</summary>"
        f'<div class="scroll"><table class="facts"><tbody>{rows}</tbody></table></div></details>'
    )


def flat_figures(figures: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, float]]:
    """Nested figures as (name, number), names joined by a slash; what is no finite number is left out."""
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from flat_figures(value, f"{before}{name}/")
        elif isinstance(value, (list, tuple)):
            yield from flat_figures({str(place): one for place, one in enumerate(value)}, f"{before}{name}/")
        elif isinstance(value, (int, float)) and math.isfinite(value):
            yield before + str(name), float(value)
