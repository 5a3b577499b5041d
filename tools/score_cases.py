"""Scores every folder of a scoring-cases directory and prints figure against expectation.

Usage: ``python tools/score_cases.py FOLDER``, where FOLDER holds ``<case>/cases.jsonl`` and ``<case>/expected.json``. Exit
status 1 if a figure is off. A case without rows (confusion counts) is scored from its expected.json.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from vedere.evals.benchmarks import score_file

PREFIXES = {
    "mmmu_pro": "mmmu-pro",
    "mmmu_val": "mmmu",
    "mmvet": "mmvet",
    "llava_wild": "llava-wild",
    "mme": "mme",
    "pope": "pope",
    "textvqa": "textvqa",
    "mathvista": "mathvista",
    "blink": "blink",
    "mmstar": "mmstar",
    "mcq_scienceqa": "scienceqa",
    "ocr_text": "ocr-text",
    "anls": "docvqa",
    "videomme": "video-mme",
    "reward_rmbench": "rm-bench",
    "reward_vlrewardbench": "vl-rewardbench",
}


def benchmark_of(folder: str) -> str:
    """Benchmark of a folder's name."""
    return next(name for prefix, name in PREFIXES.items() if folder.startswith(prefix))


def differences(expected: Any, found: Any, path: str = "") -> Iterator[str]:
    """Leaves of ``expected`` that ``found`` lacks or misses by more than half of the last digit (at most 1e-6 of many)."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            if key == "published":
                continue
            if not isinstance(found, dict) or key not in found:
                yield f"{path}/{key}: missing"
            else:
                yield from differences(value, found[key], f"{path}/{key}")
    elif isinstance(expected, list):
        if not isinstance(found, list) or len(found) != len(expected):
            yield f"{path}: {found}, expected {expected}"
        else:
            for index, (one, other) in enumerate(zip(expected, found, strict=True)):
                yield from differences(one, other, f"{path}/{index}")
    else:
        places = -int(Decimal(str(expected)).as_tuple().exponent)
        tolerance = 0 if isinstance(expected, int) else max(0.5 * 10**-places, 1e-6) + 1e-12
        if not isinstance(found, (int, float)) or abs(float(found) - float(expected)) > tolerance:
            yield f"{path}: {found}, expected {expected}"


def leaves(expected: Any) -> int:
    """Number of figures in an expectation."""
    if isinstance(expected, dict):
        return sum(leaves(value) for key, value in expected.items() if key != "published")
    return sum(map(leaves, expected)) if isinstance(expected, list) else 1


def main(root: Path) -> int:
    """Prints the table."""
    wrong = 0
    print(f"{'case':<40} {'benchmark':<15} {'rows':>6} {'figures':>8} {'off':>4} {'ms':>6}")
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        expected = json.loads((folder / "expected.json").read_text("utf-8"))
        rows = folder / "cases.jsonl"
        start = time.perf_counter()
        scores = score_file(benchmark_of(folder.name), rows if rows.is_file() else folder / "expected.json")
        took = 1000 * (time.perf_counter() - start)
        off = list(differences(expected, scores.figures))
        wrong += len(off)
        counted = scores.counts["rows"]
        print(
            f"{folder.name:<40} {benchmark_of(folder.name):<15} {counted:>6} {leaves(expected):>8} {len(off):>4} {took:>6.0f}"
        )
        for line in off[:6]:
            print(f"    {line}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
