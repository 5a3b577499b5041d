"""How every benchmark here measures: equality first, contenders interleaved, medians of ratios, raw numbers kept.

Machines are noisy, so a figure is a ratio between contenders of the same run; absolute speeds come with the machine's own limit
(the speed of a plain matmul, measured in the same run).
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def interleave(
    contenders: dict[str, Callable[[], Any]],
    rounds: int,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of every call: one call of each contender a round, in turn. ``time.process_time`` counts the processor's."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(warmup + rounds):
        for name, call in contenders.items():
            start = clock()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number >= warmup:
                seconds[name].append(clock() - start)
    return seconds


def ratios(seconds: dict[str, list[float]], base: str) -> dict[str, float]:
    """Median over the rounds of (time of ``base``) / (time of the contender): above 1 is faster than ``base``."""
    return {
        name: statistics.median(b / t for b, t in zip(seconds[base], times, strict=True))
        for name, times in seconds.items()
    }


def machine() -> dict[str, Any]:
    """Versions and threads, without names of hosts."""
    return {
        "python": platform.python_version(),
        "torch": importlib.metadata.version("torch"),
        "threads": torch.get_num_threads(),
        "cpu": {
            "machine": platform.machine(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "amx": torch.cpu._is_amx_tile_supported(),
        },
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def store(name: str, result: dict[str, Any]) -> Path:
    """Writes ``results/NAME.json`` with the machine beside the numbers."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **result}, indent=2) + "\n", encoding="utf-8")
    return path
