"""What a report shows of a safety run instead of accuracies: rates, whole and by category, over-refusal beside every one.

Figures are `vedere.evals.safety.rates.summary`'s; no request and no answer is here.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping

from vedere.evals.report_figures import stacked
from vedere.evals.report_records import ReportRun

_RATES = ("ASR", "HR", "RSR", "RR")


def rates_tile(run: ReportRun, number: int) -> str:
    """The first rate of a set, with over-refusal beside it."""
    kind = next((name for name in ("ASR", "refused", "accuracy") if run.rates.get(name)), "")
    figure = run.rates.get(kind) or {}
    value = f"{figure['value']:.1f}<small>% {kind}</small>" if figure else "<small>not judged</small>"
    span = f"{figure['low']:.1f} to {figure['high']:.1f}" if figure else ""
    beside = run.rates.get("over_refusal", run.rates)
    refused = (beside.get("refused") or {}).get("value") if beside.get("measured") else None
    said = f"{refused:.1f}% of harmless requests refused" if refused is not None else "over-refusal not measured"
    judged = f"{run.rates.get('judged', 0)} of {run.rates.get('requests', 0)} judged"
    return (
        f'<div class="tile s{number % 4}"><div class="who">{html.escape(run.model)}</div><div class="big">{value}</div>'
        f'<div class="range">{span}</div><div class="dim">{html.escape(said)} · {html.escape(judged)}</div></div>'
    )


def rates_table(run: ReportRun) -> str:
    """Rates of a safety set, whole and by category, over-refusal in every row."""
    tables = {"all": run.rates, **run.rates.get("by_category", {})}
    kinds = [name for name, figure in run.rates.items() if isinstance(figure, dict) and "value" in figure]
    rows = [
        (label, [(kind, part[kind]["value"]) for kind in _RATES], part["judged"])
        for label, part in tables.items()
        if all(part.get(kind) for kind in _RATES)
    ]
    figure = stacked(rows, f"rates of {run.model}") + _legend(_RATES) if rows else ""
    beside = run.rates.get("over_refusal", run.rates)
    refused = _interval(beside.get("refused")) if beside.get("measured") else "not measured"
    head = "".join(f"<th>{html.escape(kind)}</th>" for kind in kinds)
    lines = [
        f"<tr><th>{html.escape(label)}</th><td>{part.get('judged', 0)}</td>"
        + "".join(f"<td>{_interval(part.get(kind))}</td>" for kind in kinds)
        + f"<td>{part.get('requests', 0) - part.get('judged', 0)}</td><td>{refused}</td></tr>"
        for label, part in tables.items()
    ]
    return (
        f'<h3>{html.escape(run.model)}</h3><div class="scroll">{figure}</div><div class="scroll"><table><thead><tr><th></th>'
        f"<th>judged</th>{head}<th>no verdict</th><th>harmless refused</th></tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _legend(kinds: Iterable[str]) -> str:
    return '<p class="legend">' + "".join(f'<span class="k-{kind.lower()}"></span>{kind} ' for kind in kinds) + "</p>"


def _interval(figure: Mapping[str, float] | None) -> str:
    if not figure:
        return "–"
    return f'{figure["value"]:.2f} <span class="dim">{figure["low"]:.2f}–{figure["high"]:.2f}</span>'
