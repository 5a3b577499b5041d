"""What goes where: results to standard output, everything else to standard error; with ``--json`` one object, always."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

_IMPORTED = time.time()


def open_to_any_bytes() -> None:
    """Lets bytes that are no text, as in names of files, pass the streams of the process instead of ending it.

    Read, they become halves of surrogate pairs, which every question is checked for; written, they are escaped.
    """
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors=errors)


def print_json(data: Mapping[str, Any]) -> None:
    """Prints the one JSON object of a run. Strict JSON: a NaN is an error of the program, not a value.

    What standard output cannot encode, a name of a file that is no text for one, is escaped as JSON escapes.
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(data, allow_nan=False)
    print(text)


def print_error(error: Exception, as_json: bool) -> None:
    """One message on standard error; with ``--json`` also as the object ``{"error": ...}``."""
    print(f"vedere: {error}", file=sys.stderr)
    if as_json:
        print_json({"error": {"kind": type(error).__name__, "message": str(error)}})


def note(text: str) -> None:
    """A line of progress or a warning, on standard error."""
    print(text, file=sys.stderr, flush=True)


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Plain columns, the first one to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def process_seconds() -> float:
    """Seconds since the process began (on Linux; elsewhere since this module was imported, which is close)."""
    try:
        with open("/proc/self/stat", encoding="ascii") as file:
            ticks = int(file.read().rsplit(")", 1)[1].split()[19])
        with open("/proc/uptime", encoding="ascii") as file:
            return float(file.read().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return time.time() - _IMPORTED
