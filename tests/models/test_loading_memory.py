"""A checkpoint is never in memory twice: the benchmark's measurement on a smaller model, every layout and conversion."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "loading.py"


def test_peak_memory_is_the_weights_and_a_tenth():
    command = [sys.executable, str(BENCHMARK), "--megabytes", "200", "--shards", "3", "--json"]
    cases = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert len(cases) == 6
    for name, case in cases.items():
        assert case["shards"] >= 3, name
        assert case["bytes"] > 1.5e8, name
        assert 0.9 < case["peak_share"] <= 1.1, f"{name}: {case}"
