"""Figures of a report as SVG text: bars with intervals, stacked rates, differences around zero.

Colours are the page's (CSS variables), so that they follow light and dark; every mark has a title that says its number; texts
are escaped. No figure needs a script or another file.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

_LABEL, _PLOT, _VALUE, _ROW, _TOP = 210, 430, 150, 24, 26
WIDTH = _LABEL + _PLOT + _VALUE


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A value with its interval.

    Attributes:
        label: Of what, in the mark's title.
        value: In the figure's unit.
        low: Lower end.
        high: Upper end.
        n: Items behind it.
        series: 0, 1, ...: which colour.
        shown: What stands before the row; None: the label.
    """

    label: str
    value: float
    low: float
    high: float
    n: int
    series: int = 0
    shown: str | None = None


def _short(text: str, most: int = 30) -> str:
    return html.escape(text if len(text) <= most else text[: most - 1] + "…")


def _open(height: int, title: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{html.escape(title)}" class="figure">'
        f"<title>{html.escape(title)}</title>"
    )


def _axis(low: float, high: float, height: int, unit: str) -> list[str]:
    """Vertical lines at five places with their numbers on top."""
    lines = []
    for step in range(5):
        value = low + (high - low) * step / 4
        x = _LABEL + _PLOT * step / 4
        lines.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 6}" y2="{height - 6}"/>')
        number = f"{value:+.3g}" if low < 0 and value else f"{value:.3g}"
        lines.append(f'<text class="tick" x="{x:.1f}" y="{_TOP - 12}">{number}{unit}</text>')
    return lines


def bars(rows: Sequence[Bar], title: str, *, unit: str = "%") -> str:
    """Horizontal bars from 0 to 100 with whiskers."""
    height = _TOP + _ROW * len(rows) + 8
    parts = [_open(height, title), *_axis(0, 100, height, unit)]
    for place, row in enumerate(rows):
        y = _TOP + _ROW * place
        width = _PLOT * min(100.0, max(0.0, row.value)) / 100
        said = f"{row.label}: {row.value:.1f}{unit}, 95 % interval {row.low:.1f} to {row.high:.1f}, n = {row.n}"
        parts.append(f"<g><title>{html.escape(said)}</title>")
        parts.append(
            f'<text class="name" x="{_LABEL - 10}" y="{y + 15}">{_short(row.label if row.shown is None else row.shown)}</text>'
        )
        parts.append(
            f'<rect class="bar s{row.series % 4}" x="{_LABEL}" y="{y + 4}" width="{width:.1f}" height="14" rx="2"/>'
        )
        parts += _whisker(_LABEL + _PLOT * row.low / 100, _LABEL + _PLOT * row.high / 100, y + 11)
        parts.append(
            f'<text class="value" x="{_LABEL + _PLOT + 12}" y="{y + 15}">{row.value:.1f}{unit}'
            f'<tspan class="dim"> n {row.n}</tspan></text></g>'
        )
    return "".join([*parts, "</svg>"])


def differences(rows: Sequence[Bar], title: str) -> str:
    """Points with whiskers around zero, in percentage points; the axis holds every interval."""
    reach = max([5.0, *(abs(end) for row in rows for end in (row.low, row.high))])
    reach = min(100.0, 5.0 * -(-reach // 5.0))
    height = _TOP + _ROW * len(rows) + 8
    parts = [_open(height, title), *_axis(-reach, reach, height, "")]
    scale, middle = _PLOT / (2 * reach), _LABEL + _PLOT / 2
    parts.append(f'<line class="zero" x1="{middle}" x2="{middle}" y1="{_TOP - 6}" y2="{height - 6}"/>')
    for place, row in enumerate(rows):
        y = _TOP + _ROW * place
        sure = "better" if row.low > 0 else "worse" if row.high < 0 else "open"
        ends = [middle + scale * min(reach, max(-reach, end)) for end in (row.low, row.high)]
        said = f"{row.label}: {row.value:+.1f} points, 95 % interval {row.low:+.1f} to {row.high:+.1f}, n = {row.n}"
        parts.append(f"<g><title>{html.escape(said)}</title>")
        parts.append(
            f'<text class="name" x="{_LABEL - 10}" y="{y + 15}">{_short(row.label if row.shown is None else row.shown)}</text>'
        )
        parts += _whisker(ends[0], ends[1], y + 11)
        parts.append(f'<circle class="{sure}" cx="{middle + scale * row.value:.1f}" cy="{y + 11}" r="5"/>')
        parts.append(
            f'<text class="value" x="{_LABEL + _PLOT + 12}" y="{y + 15}">{row.value:+.1f}'
            f'<tspan class="dim"> n {row.n}</tspan></text></g>'
        )
    return "".join([*parts, "</svg>"])


def stacked(rows: Sequence[tuple[str, Sequence[tuple[str, float]], int]], title: str) -> str:
    """Shares that add up to 100: (label, [(kind, percent)], n); kinds keep their colours."""
    height = _TOP + _ROW * len(rows) + 8
    parts = [_open(height, title), *_axis(0, 100, height, "%")]
    for place, (label, shares, n) in enumerate(rows):
        y, x = _TOP + _ROW * place, float(_LABEL)
        parts.append(f'<text class="name" x="{_LABEL - 10}" y="{y + 15}">{_short(label)}</text>')
        for kind, percent in shares:
            width = _PLOT * percent / 100
            said = html.escape(f"{label}: {kind} {percent:.1f}%, n = {n}")
            parts.append(
                f'<rect class="share k-{html.escape(kind.lower().replace(" ", "-"))}" x="{x:.1f}" y="{y + 4}" '
                f'width="{width:.1f}" height="14"><title>{said}</title></rect>'
            )
            x += width
        parts.append(
            f'<text class="value" x="{_LABEL + _PLOT + 12}" y="{y + 15}"><tspan class="dim">n {n}</tspan></text>'
        )
    return "".join([*parts, "</svg>"])


def _whisker(low: float, high: float, y: float) -> list[str]:
    return [
        f'<line class="whisker" x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/>',
        *(f'<line class="whisker" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 4}" y2="{y + 4}"/>' for x in (low, high)),
    ]
