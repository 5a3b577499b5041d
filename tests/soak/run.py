"""Long fuzzing and kill tests: ``python tests/soak/run.py --inputs 20000 --kills 40 --out benchmarks/results/soak.json``.

``--case FAMILY NUMBER`` repeats one case of a seed in this process, with its traceback, which is how a finding is looked at.
Exit code 1 if there was any finding. Inputs of findings are kept in ``build/soak``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SHARES = {"pictures": 0.3, "videos": 0.2, "records": 0.2, "prompts": 0.15, "checkpoints": 0.15}
PACKAGES = ("torch", "pillow", "av", "numpy", "safetensors", "tokenizers", "sentencepiece", "gguf", "tarfile")


def versions() -> dict[str, str]:
    """Of Python and of the libraries that read untrusted bytes."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def counts(total: int) -> dict[str, int]:
    """Inputs of each family; they sum to ``total``."""
    shares = {family: int(total * share) for family, share in SHARES.items()}
    shares["pictures"] += total - sum(shares.values())
    return {family: count for family, count in shares.items() if count}


def one_case(seed: int, family: str, number: int) -> int:
    """Runs one case and prints its result."""
    import cases

    with tempfile.TemporaryDirectory() as folder:
        made = cases.make_family(family, Path(folder) / "good")
        result = cases.run_case(made, family, seed, number, Path(folder) / "case")
    print(json.dumps(result | {"trace": ""}, indent=2))
    print(result.get("trace", ""), file=sys.stderr)
    return int(result["verdict"] == "finding")


def soak(arguments: argparse.Namespace) -> dict[str, Any]:
    """All inputs, then all kills."""
    from kills import soak_kills
    from overseer import Soak
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    start = time.perf_counter()
    plan = counts(arguments.inputs)
    if arguments.family:
        plan = dict.fromkeys(arguments.family, arguments.inputs)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bars = {family: progress.add_task(family, total=count) for family, count in plan.items()}

        def tick(family: str, verdict: str) -> None:
            progress.advance(bars[family])
            if verdict == "finding":
                progress.update(bars[family], description=f"[red]{family}")

        inputs = Soak(seed=arguments.seed, keep=ROOT / "build" / "soak", tick=tick)
        inputs.run(plan)
        kills: dict[str, Any] = {"kills": 0, "problems": []}
        if arguments.kills:
            bar = progress.add_task("kill -9", total=arguments.kills)
            with tempfile.TemporaryDirectory(prefix="vedere-kills-") as folder:
                kills = soak_kills(
                    Path(folder),
                    kills=arguments.kills,
                    seed=arguments.seed,
                    steps=arguments.steps,
                    fresh=True,
                    tick=lambda way: progress.advance(bar),
                )
    findings = [{key: value for key, value in found.items() if key != "mark"} for found in inputs.findings]
    return {
        "seed": arguments.seed,
        "inputs": sum(plan.values()),
        "ok": not findings and not kills["problems"],
        "families": {family: tally.as_json() for family, tally in inputs.tallies.items()},
        "findings": findings,
        "kills": kills,
        "versions": versions(),
        "seconds": round(time.perf_counter() - start, 1),
    }


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=20_000, help="damaged inputs, spread over the families")
    parser.add_argument("--kills", type=int, default=40, help="kill -9 of a training")
    parser.add_argument("--steps", type=int, default=40, help="steps of each of the two stages of that training")
    parser.add_argument("--seed", type=int, default=0, help="of everything")
    parser.add_argument("--family", action="append", choices=list(SHARES), help="only this one (may be repeated)")
    parser.add_argument("--case", nargs=2, metavar=("FAMILY", "NUMBER"), help="repeat one case and show its traceback")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "soak.json", help="result file")
    arguments = parser.parse_args()
    if arguments.case:
        return one_case(arguments.seed, arguments.case[0], int(arguments.case[1]))
    result = soak(arguments)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for found in result["findings"]:
        print(
            f"{found['family']} {found['number']} ({found['what']}, {found['count']} times): {found['kind']}: "
            f"{found['class']} at {found['place']}: {found['message'][:300]}",
            file=sys.stderr,
        )
    for problem in result["kills"]["problems"]:
        print(f"kill -9: {problem}", file=sys.stderr)
    print(f"{result['inputs']} inputs, {result['kills']['kills']} kills: {'ok' if result['ok'] else 'NOT ok'}")
    return int(not result["ok"])


if __name__ == "__main__":
    sys.path[:0] = [str(HERE), str(ROOT / "src")]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(ROOT / "src")])
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
