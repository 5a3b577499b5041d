"""Several models on Video-MME beside each other, as one page that needs no other file and no network.

Tables of accuracies with standard errors; differences between models and between settings on the questions that both
answered, paired, with standard errors clustered by video: two models on the same 2,700 questions differ less by
chance than their own errors suggest. The figures are the paper's: radars over task types and sub-categories, bars
over durations, gains by domain.
"""

from __future__ import annotations

import html
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vedere.errors import ConfigError
from vedere.evals.clusters import paired_difference
from vedere.evals.video_mme import taxonomy
from vedere.evals.video_mme.figures import bars, radar
from vedere.evals.video_mme.outcomes import WHOLE, Cell, Key, Outcome, cells, names_of
from vedere.evals.video_mme.results import Result
from vedere.evals.video_mme.tables import SCOPES, Table, figure, tables

_MOST = 8  # series of a figure


@dataclass(frozen=True, kw_only=True)
class Run:
    """One model in one setting.

    Attributes:
        model: Its name.
        setting: Such as ``frames`` or ``frames+subtitles``.
        result: What it answered.
        source: Name of the file.
    """

    model: str
    setting: str
    result: Result
    source: str = ""

    @property
    def name(self) -> str:
        """Model and setting."""
        return f"{self.model} · {self.setting}"


def difference(one: Iterable[Outcome], other: Iterable[Outcome]) -> tuple[int, float, float | None]:
    """Accuracy of ``one`` minus that of ``other`` on the questions that both were asked: number, points, standard error.

    Questions without a letter count as wrong, so that both sides have the same denominator.
    """
    left, right = ({entry.question_id: entry for entry in side if entry.response is not None} for side in (one, other))
    names = [name for name in left if name in right]
    first, second = ([float(table[name].official == table[name].answer) for name in names] for table in (left, right))
    mean, error = paired_difference(first, second, [left[name].video_id for name in names])
    return len(names), 100 * mean, None if error is None else 100 * error


def page(runs: Sequence[Run], title: str = "Video-MME") -> str:
    """The comparison as HTML.

    Raises:
        ConfigError: no runs, a model twice in a setting, or more runs than a figure can show.
    """
    if not runs:
        raise ConfigError("0 results to compare; expected at least one")
    if len({run.name for run in runs}) < len(runs):
        raise ConfigError("a model stands twice in one setting; give each result a model and setting of its own")
    if len(runs) > _MOST:
        raise ConfigError(f"{len(runs)} results to compare; a figure can show {_MOST}: compare fewer at once")
    counted = {run.name: cells(run.result.outcomes) for run in runs}
    parts = [
        _table(_leaderboard(runs, counted)),
        _paragraph(
            "Accuracy in percent of the answered questions (the official rule), ± its standard error clustered by video."
        ),
        _notes(runs),
        _figure(_durations(counted)),
        _figure(_task_radar(counted)),
        _figure(_sub_radar(counted)),
    ]
    settings = _setting_differences(runs)
    if settings.lines:
        parts += [_table(settings), _figure(_gains(runs))]
    models = _model_differences(runs)
    if models.lines:
        parts.append(_table(models))
    results = {run.name: run.result.outcomes for run in runs}
    parts += [_table(one) for one in tables(results)[1:]]
    return _PAGE.format(title=html.escape(title), body="\n".join(parts))


def _leaderboard(runs: Sequence[Run], counted: Mapping[str, Mapping[Key, Cell]]) -> Table:
    settings = list(dict.fromkeys(run.setting for run in runs))
    by_model: dict[str, dict[str, Mapping[Key, Cell]]] = {}
    for run in runs:
        by_model.setdefault(run.model, {})[run.setting] = counted[run.name]
    head = ("model", *(f"{scope if scope != WHOLE else 'overall'}, {name}" for scope in SCOPES for name in settings))
    lines = [
        (model, *(figure(found.get(name, {}).get((scope, "overall", ""))) for scope in SCOPES for name in settings))
        for model, found in by_model.items()
    ]
    return Table("Overall and by duration", head, tuple(lines))


def _signed(found: tuple[int, float, float | None]) -> tuple[str, str]:
    count, points, error = found
    spread = "" if error is None else f" ±{error:.1f}"
    clear = "" if error is None or abs(points) < 1.96 * error else " *"
    return str(count), f"{points:+.1f}{spread}{clear}"


def _model_differences(runs: Sequence[Run]) -> Table:
    lines = []
    for one, other in itertools.combinations(runs, 2):
        if one.setting == other.setting:
            count, points = _signed(difference(one.result.outcomes, other.result.outcomes))
            lines.append((f"{one.model} - {other.model}", one.setting, count, points))
    title = "Differences between models (* more than 1.96 standard errors)"
    return Table(title, ("models", "setting", "questions", "points"), tuple(lines))


def _pairs(runs: Sequence[Run]) -> list[tuple[Run, Run]]:
    """(a setting with more, the model's first setting)."""
    first: dict[str, Run] = {}
    pairs = []
    for run in runs:
        base = first.setdefault(run.model, run)
        if base is not run:
            pairs.append((run, base))
    return pairs


def _in_scope(outcomes: Iterable[Outcome], scope: str) -> list[Outcome]:
    return [one for one in outcomes if scope in (WHOLE, one.duration)]


def _setting_differences(runs: Sequence[Run]) -> Table:
    lines = []
    for run, base in _pairs(runs):
        sides = [(_in_scope(run.result.outcomes, scope), _in_scope(base.result.outcomes, scope)) for scope in SCOPES]
        points = [_signed(difference(*pair))[1] for pair in sides]
        lines.append((run.model, f"{run.setting} - {base.setting}", *points))
    head = ("model", "settings", "overall", *taxonomy.DURATIONS)
    return Table("Gains between settings, points (* more than 1.96 standard errors)", head, tuple(lines))


def _values(found: Mapping[Key, Cell], grouping: str, names: Sequence[str]) -> list[float | None]:
    there = [found.get((WHOLE, grouping, name)) for name in names]
    return [None if cell is None or not cell.official.answered else cell.official.accuracy for cell in there]


def _radar(counted: Mapping[str, Mapping[Key, Cell]], grouping: str, title: str) -> str:
    names = names_of((key for found in counted.values() for key in found), grouping)
    return radar(title, names, {name: _values(found, grouping, names) for name, found in counted.items()})


def _task_radar(counted: Mapping[str, Mapping[Key, Cell]]) -> str:
    return _radar(counted, "task_type", "Accuracy by task type")


def _sub_radar(counted: Mapping[str, Mapping[Key, Cell]]) -> str:
    return _radar(counted, "sub_category", "Accuracy by sub-category")


def _durations(counted: Mapping[str, Mapping[Key, Cell]]) -> str:
    there: dict[str, list[Cell | None]] = {
        name: [found.get((scope, "overall", "")) for scope in (*taxonomy.DURATIONS, WHOLE)]
        for name, found in counted.items()
    }
    values = {
        name: [None if cell is None else cell.official.accuracy for cell in found] for name, found in there.items()
    }
    errors = {name: [None if cell is None else cell.official.error for cell in found] for name, found in there.items()}
    return bars("Accuracy by duration", (*taxonomy.DURATIONS, "overall"), values, errors)


def _gains(runs: Sequence[Run]) -> str:
    pairs = _pairs(runs)
    names = names_of((key for run, _ in pairs for key in cells(run.result.outcomes)), "domain")
    series: dict[str, list[float | None]] = {}
    errors: dict[str, list[float | None]] = {}
    for run, base in pairs:
        found = [
            difference(*([one for one in side.result.outcomes if one.domain == name] for side in (run, base)))
            for name in names
        ]
        series[run.name] = [points if count else None for count, points, _ in found]
        errors[run.name] = [error for *_, error in found]
    return bars("Gain over the first setting by domain", names, series, errors, unit="points")


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in table.head)
    lines = "\n".join(
        f'<tr><th scope="row">{html.escape(line[0])}</th>{"".join(f"<td>{html.escape(entry)}</td>" for entry in line[1:])}</tr>'
        for line in table.lines
    )
    title = html.escape(table.title[:1].upper() + table.title[1:])
    return (
        f"<h2>{title}</h2>\n"
        f'<div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead>\n<tbody>{lines}</tbody></table></div>'
    )


def _figure(svg: str) -> str:
    return f"<figure>{svg}</figure>"


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def _notes(runs: Sequence[Run]) -> str:
    lines = [f"{run.name}: {run.source}" for run in runs if run.source]
    lines += [f"{run.name}: {note}" for run in runs for note in run.result.notes]
    return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>" if lines else ""


_PAGE = """<!doctype html>
<html lang="en"> <head> <meta charset="utf-8"> <meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title> <style> :root {{ color-scheme: light; }} body {{ font: 15px/1.5 system-ui, sans-serif; color:
#1a1a1a; background: #fff; margin: 0 auto; max-width: 72rem; padding: 1rem; }} h1 {{ font-size: 1.6rem; }} h2 {{
font-size: 1.1rem; margin-top: 2rem; }} .wide {{ overflow-x: auto; }} table {{ border-collapse: collapse;
font-variant-numeric: tabular-nums; }} th, td {{ padding: .2rem .7rem; text-align: right; white-space: nowrap;
border-bottom: 1px solid #ddd; }} th:first-child {{ text-align: left; }} thead th {{ border-bottom: 2px solid #888; }}
figure {{ margin: 1.5rem 0; overflow-x: auto; }} figure svg {{ max-width: 100%; height: auto; }} </style> </head>
<body> <h1>{title}</h1> {body} </body> </html>
"""
