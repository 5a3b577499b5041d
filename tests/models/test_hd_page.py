"""The benchmark of a 4K page on a narrow model: as much memory as the plan says, and no mask of prompt x prompt."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "hd_page.py"


def test_a_page_takes_the_memory_that_the_plan_says():
    command = [
        sys.executable,
        str(BENCHMARK),
        "--tiny",
        "--layers",
        "2",
        "--tower-layers",
        "2",
        "--dtype",
        "fp32",
        "--json",
    ]
    run = subprocess.run([*command, "--device", "cpu"], check=True, capture_output=True, text=True)
    pages = json.loads(run.stdout)["pages"]
    assert [page["grid"] for page in pages] == [[1, 55], [11, 5]]
    for page in pages:
        assert page["views"] == 56
        assert page["squares"] == 0
        assert 0.9 < page["ratio"] < 1.1
