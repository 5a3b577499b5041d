"""Long fuzzing and kill tests: ``python tests/soak/run.py --inputs 40000 --kills 40 --out benchmarks/results/soak.json``.

``--case FAMILY NUMBER`` repeats one case of a seed in this process, with its traceback, which is how a finding is looked at.
``--inputs 0``, ``--kills 0`` or ``--evaluation-kills 0`` leaves that part of the result file as it is. Exit code 1 if there was
any finding; inputs of findings are kept in ``build/soak``.
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
SHARES = {"pictures": 0.1, "videos": 0.05, "records": 0.075, "prompts": 0.05, "checkpoints": 0.375}
SHARES |= {"subtitles": 0.1, "tables": 0.125, "answers": 0.125}
PACKAGES = (
    "torch",
    "pillow",
    "av",
    "numpy",
    "safetensors",
    "tokenizers",
    "sentencepiece",
    "gguf",
    "tarfile",
    "pyarrow",
)


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


def bars() -> Any:
    """Progress on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=Console(stderr=True))


def soak_inputs(total: int, seed: int, only: list[str] | None) -> dict[str, Any]:
    """Damaged inputs of all families, or of some."""
    from overseer import Soak

    start = time.perf_counter()
    plan = dict.fromkeys(only, total) if only else counts(total)
    with bars() as progress:
        tasks = {family: progress.add_task(family, total=count) for family, count in plan.items()}

        def tick(family: str, verdict: str) -> None:
            progress.advance(tasks[family])
            if verdict == "finding":
                progress.update(tasks[family], description=f"[red]{family}")

        soak = Soak(seed=seed, keep=ROOT / "build" / "soak", tick=tick)
        soak.run(plan)
    return {
        "seed": seed,
        "inputs": sum(plan.values()),
        "findings": [{key: value for key, value in found.items() if key != "mark"} for found in soak.findings],
        "families": {family: tally.as_json() for family, tally in soak.tallies.items()},
        "versions": versions(),
        "seconds": round(time.perf_counter() - start, 1),
    }


def soak_training(total: int, seed: int, steps: int, fresh: bool) -> dict[str, Any]:
    """Trainings that are killed."""
    from kills import soak_kills

    with bars() as progress, tempfile.TemporaryDirectory(prefix="vedere-kills-") as folder:
        task = progress.add_task("kill -9", total=total)
        facts = soak_kills(
            Path(folder), kills=total, seed=seed, steps=steps, fresh=fresh, tick=lambda way: progress.advance(task)
        )
    return {"seed": seed, **facts, "versions": versions()}


def soak_evaluating(total: int, seed: int) -> dict[str, Any]:
    """Evaluations that are killed."""
    from evaluation_kills import soak_evaluations

    with bars() as progress, tempfile.TemporaryDirectory(prefix="vedere-kills-") as folder:
        task = progress.add_task("kill -9 of evaluations", total=total)
        facts = soak_evaluations(Path(folder), kills=total, seed=seed, tick=lambda kind: progress.advance(task))
    return {"seed": seed, **facts, "versions": versions()}


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=20_000, help="damaged inputs, spread over the families")
    parser.add_argument("--kills", type=int, default=40, help="kill -9 of a training")
    parser.add_argument("--evaluation-kills", type=int, default=40, help="kill -9 of evaluations")
    parser.add_argument("--steps", type=int, default=40, help="steps of each of the two stages of that training")
    parser.add_argument("--forked", action="store_true", help="lives of that training share one start of torch: faster")
    parser.add_argument("--seed", type=int, default=0, help="of everything")
    parser.add_argument("--family", action="append", choices=list(SHARES), help="only this one (may be repeated)")
    parser.add_argument("--case", nargs=2, metavar=("FAMILY", "NUMBER"), help="repeat one case and show its traceback")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "soak.json", help="result file")
    arguments = parser.parse_args()
    if arguments.case:
        return one_case(arguments.seed, arguments.case[0], int(arguments.case[1]))
    result: dict[str, Any] = {}
    if arguments.out.is_file():  # a half that is not run again stays, with its own seed and versions
        result = json.loads(arguments.out.read_text(encoding="utf-8"))
    found, problems = [], []
    if arguments.inputs:
        result["inputs"] = soak_inputs(arguments.inputs, arguments.seed, arguments.family)
        found = result["inputs"]["findings"]
    if arguments.kills:
        result["kills"] = soak_training(arguments.kills, arguments.seed, arguments.steps, not arguments.forked)
        problems = result["kills"]["problems"]
    if arguments.evaluation_kills:
        result["evaluation_kills"] = soak_evaluating(arguments.evaluation_kills, arguments.seed)
        problems = [*problems, *result["evaluation_kills"]["problems"]]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for one in found:
        print(
            f"{one['family']} {one['number']} ({one['what']}, {one['count']} times): {one['kind']}: "
            f"{one['class']} at {one['place']}: {one['message'][:300]}",
            file=sys.stderr,
        )
    for problem in problems:
        print(f"kill -9: {problem}", file=sys.stderr)
    ok = not found and not problems
    print(
        f"{arguments.inputs} inputs, {arguments.kills} and {arguments.evaluation_kills} kills: {'ok' if ok else 'NOT ok'}"
    )
    return int(not ok)


if __name__ == "__main__":
    sys.path[:0] = [str(HERE), str(ROOT / "src")]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(ROOT / "src")])
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
