"""The figures of the Video-MME paper (arXiv 2405.21075) as SVG: radars over task types and sub-categories, bars over durations.

Colours are those of Okabe and Ito, which people with any colour vision tell apart; lines differ by their marks as
well. Texts stay texts, so the figures can be searched and read aloud.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vedere.errors import ConfigError

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
_MARKS = "os^Dv<>p"
_SERIES = len(COLOURS)


def _pyplot() -> Any:
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise ConfigError("figures need matplotlib; install vedere[eval] or vedere[train]") from None
    matplotlib.use("svg")
    from matplotlib import pyplot

    return pyplot


def _svg(figure: Any, pyplot: Any, title: str) -> str:
    """The figure as an SVG element that can stand inside a page, with a title for screen readers."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    prefix = re.sub(r"\W+", "-", title.lower())
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{prefix}-", text)  # ids of several figures in a page must differ
    return re.sub(r"(<svg[^>]*>)", rf"\1<title>{title.replace('&', '&amp;')}</title>", text, count=1)


_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "vedere", "font.size": 9, "font.family": "sans-serif"}


def _check(series: Mapping[str, Sequence[float | None]], names: Sequence[str]) -> None:
    if not series or not names:
        raise ConfigError("a figure of nothing; expected at least one series and one name")
    if len(series) > _SERIES:
        raise ConfigError(
            f"{len(series)} series in one figure; at most {_SERIES} can be told apart: compare fewer at once"
        )


def radar(title: str, names: Sequence[str], series: Mapping[str, Sequence[float | None]]) -> str:
    """A radar: one axis a name, one closed line a series, percent from the middle.

    Args:
        title: Stands above, and is read aloud.
        names: Names of the axes, clockwise from the top.
        series: Name -> a value for each axis; None leaves the axis out.

    Raises:
        ConfigError: nothing to draw, more than eight series, or matplotlib is missing.
    """
    _check(series, names)
    pyplot = _pyplot()
    angles = [2 * math.pi * place / len(names) for place in range(len(names))]
    with pyplot.rc_context(_STYLE):
        figure, axes = pyplot.subplots(figsize=(6.4, 6.4), subplot_kw={"projection": "polar"})
        axes.set_theta_zero_location("N")
        axes.set_theta_direction(-1)
        axes.set_ylim(0, 100)
        axes.set_yticks([25, 50, 75, 100], ["25", "50", "75", ""], color="#666666")
        axes.set_xticks(angles, names)
        for label, angle in zip(axes.get_xticklabels(), angles, strict=True):
            side = math.sin(angle)
            label.set_horizontalalignment("center" if abs(side) < 0.05 else "left" if side > 0 else "right")
        axes.tick_params(axis="x", pad=2)
        for place, (name, values) in enumerate(series.items()):
            there = [(angle, value) for angle, value in zip(angles, values, strict=True) if value is not None]
            if there:
                closed = [*there, there[0]]
                colour = COLOURS[place]
                axes.plot(*zip(*closed, strict=True), color=colour, marker=_MARKS[place], ms=3, lw=1.4, label=name)
                axes.fill(*zip(*closed, strict=True), color=colour, alpha=0.07)
        axes.set_title(title, pad=24)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.09), ncols=2, frameon=False)
        return _svg(figure, pyplot, title)


def bars(
    title: str,
    names: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    errors: Mapping[str, Sequence[float | None]] | None = None,
    unit: str = "accuracy, %",
) -> str:
    """Groups of bars: one group a name, one bar a series, whiskers of 1.96 standard errors.

    Args:
        title: Stands above, and is read aloud.
        names: Names of the groups.
        series: Name -> a value for each group; None leaves the bar out.
        errors: Standard errors of the same shape.
        unit: What the height means.

    Raises:
        ConfigError: as `radar`.
    """
    _check(series, names)
    pyplot = _pyplot()
    width = 0.8 / len(series)
    with pyplot.rc_context(_STYLE):
        figure, axes = pyplot.subplots(figsize=(max(5.0, 0.5 * len(names) * max(2, len(series)) ** 0.6 + 2), 3.4))
        for place, (name, values) in enumerate(series.items()):
            spread = (errors or {}).get(name) or [None] * len(names)
            shown = [k for k, value in enumerate(values) if value is not None]
            axes.bar(
                [k + (place - (len(series) - 1) / 2) * width for k in shown],
                [values[k] for k in shown],
                width * 0.95,
                yerr=[1.96 * (spread[k] or 0.0) for k in shown],
                error_kw={"lw": 0.8, "ecolor": "#333333"},
                color=COLOURS[place],
                label=name,
            )
        few = len(names) <= 6
        axes.set_xticks(range(len(names)), names, rotation=0 if few else 40, ha="center" if few else "right")
        axes.set_ylabel(unit)
        axes.axhline(0, color="#333333", lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(title)
        axes.legend(frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.12 if few else -0.34))
        return _svg(figure, pyplot, title)
