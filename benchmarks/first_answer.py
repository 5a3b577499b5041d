"""Seconds from the start of a process to the first token of an answer about one small picture.

    python benchmarks/first_answer.py [--runs 7] [--threads 2]

Each run is a fresh `vedere chat` process; the language model and the joined weights are in the cache, so this is "from the
second start on". The process reports the time itself, from its own start as the system knows it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from harness import store

EXAMPLE = Path(__file__).parents[1] / "examples" / "hat.jpg"


def main() -> None:
    """Starts processes, prints and stores their times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    command = [sys.executable, "-m", "vedere", "chat", str(EXAMPLE), "What garment is this?", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    subprocess.run(command, env=environment, check=True, capture_output=True)  # the first start may join weights
    replies = [
        json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)
        for _ in range(options.runs)
    ]
    assert len({reply["text"] for reply in replies}) == 1, "the same question got different answers"
    seconds = [reply["seconds"]["process_to_first_token"] for reply in replies]
    print(f"first token after {statistics.median(seconds):.2f} s (median of {options.runs}: {sorted(seconds)})")
    store("first_answer", {"threads_of_the_process": options.threads, "seconds": seconds})


if __name__ == "__main__":
    main()
