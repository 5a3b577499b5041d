"""Lives of processes that are killed: starting one, ending it at its moment, and what it left in its log."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

LIFE_SECONDS = 240.0
_LOOK = 0.0005  # seconds between two looks whether the moment has come


def cradle(preload: Sequence[str], fresh: bool = False) -> Any:
    """Where lives come from: a new interpreter each, or a fork of a process that has imported ``preload``."""
    context: Any = multiprocessing.get_context("spawn" if fresh else "forkserver")
    if not fresh:
        context.set_forkserver_preload(list(preload))
    return context


def live(
    context: Any,
    target: Callable[..., None],
    arguments: Callable[[Any], tuple[object, ...]],
    *,
    what: str,
    due: Callable[[], bool] | None = None,
    delay: float = 0.0,
) -> int:
    """One life.

    Args:
        context: A `cradle`.
        target: What the process runs.
        arguments: Its arguments, given the event that it sets when it has started.
        what: What messages call it.
        due: The process is killed once this holds; None: never from outside.
        delay: Seconds between that and the kill.

    Returns:
        The exit code; -9 for a kill.

    Raises:
        TimeoutError: it did not start, or not end.
    """
    started = context.Event()
    process = context.Process(target=target, args=arguments(started))
    process.start()
    if not started.wait(LIFE_SECONDS):
        process.kill()
        raise TimeoutError(f"{what} did not start")
    begun = time.monotonic()
    while due is not None and process.is_alive() and time.monotonic() - begun < LIFE_SECONDS:
        if due():
            process.join(delay)
            process.kill()
            break
        time.sleep(_LOOK)
    process.join(LIFE_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
        raise TimeoutError(f"{what} was still there after {LIFE_SECONDS:.0f} seconds")
    code = int(process.exitcode)
    process.close()
    return code


def tail(log: Path) -> str:
    """The last lines of a log."""
    return (
        "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:])[-1500:] if log.exists() else ""
    )
