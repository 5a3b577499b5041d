"""A benchmark as a test runs it: in a process of its own, small, its JSON on standard output."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def json_of(name: str, *options: object) -> Any:
    """What ``benchmarks/NAME.py`` prints with these options; its own error ends the test."""
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)
