"""How far a long run is, on standard error: a bar with the time left on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from vedere.cli.output import note

QUIET_SECONDS = 10.0
"""Between lines where there is no terminal."""


@contextlib.contextmanager
def progress_of(unit: str) -> Iterator[Callable[[int, int], None]]:
    """Yields a function that is told (through, total).

    Args:
        unit: What is counted, in the plural.
    """
    if not sys.stderr.isatty():
        begun = shown = time.monotonic()

        def line(through: int, total: int) -> None:
            nonlocal shown
            now = time.monotonic()
            if now - shown >= QUIET_SECONDS or through == total:
                shown = now
                rate = through / max(now - begun, 1e-9)
                left = (total - through) / rate if rate else 0.0
                note(f"{through} of {total} {unit}, {rate:.1f} a second{_left(left) if through < total else ''}")

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=4) as bar:
        task = bar.add_task("", total=None)
        yield lambda through, total: bar.update(task, completed=through, total=total)


def _left(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f", {hours}:{minutes:02}:{rest:02} left" if hours else f", {minutes}:{rest:02} left"
