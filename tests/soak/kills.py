"""kill -9 of a real training, again and again: the run must end with the losses of one that nobody touched.

Three ways to die: at a random time after a random number of steps; when a checkpoint that is being written shows up in the
run directory, plus some milliseconds; and at a chosen change of the file system, so that every rename and removal has its
turn. Moments count steps and files, not seconds, so that they fall into the run however busy the machine is. Lives have 0 or 1
data workers. When a run comes to its end it is compared, and the next one begins, until there were enough kills.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny_training
from lives import cradle, live, tail

TIMINGS = {"tokens_per_second", "mfu", "data_seconds", "seconds"}
# What a training imports on its way; the optimiser needs dynamo, which takes longer than all else together.
PRELOAD = [
    "tiny_training",
    "torch._dynamo",
    "torch.distributed.tensor",
    "torch.utils.tensorboard",
    "matplotlib.pyplot",
    "vedere.models.sources",
]
WAYS = ("time", "checkpoint", "write")


def metrics(run: Path) -> list[dict[str, Any]]:
    """Metrics of a run without timings."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMINGS} for line in lines]


def compare(run: Path, reference: Path) -> list[str]:
    """How a finished run differs from the uninterrupted one; nothing if it does not."""
    problems = []
    here, there = metrics(run), metrics(reference)
    if here != there:
        place = next((k for k, (one, other) in enumerate(zip(here, there, strict=False)) if one != other), -1)
        shown = f"{here[place]} instead of {there[place]}" if place >= 0 else ""
        problems.append(f"metrics differ: {len(here)} lines, expected {len(there)}; line {place}: {shown}")
    last, expected = (sorted((folder / "checkpoints").glob("step-*"))[-1] for folder in (run, reference))
    if last.name != expected.name:
        problems.append(f"the last checkpoint is {last.name}, expected {expected.name}")
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        if (last / name).read_bytes() != (expected / name).read_bytes():
            problems.append(f"{name} of the last checkpoint differs")
    left = [path.name for path in (run / "checkpoints").iterdir() if path.name.startswith(".")]
    if len(left) > 1:  # what the last kill left is removed when that step is saved again
        problems.append(f"temporary folders left: {left}")
    return problems


class Killer:
    """Runs lives and ends them.

    Args:
        folder: Working folder; inputs and runs go into it.
        seed: Of all moments.
        steps: Steps a stage.
        fresh: Start every life as a new interpreter; otherwise they are forked off a process that has imported torch.
    """

    def __init__(self, folder: Path, seed: int, steps: int, fresh: bool) -> None:
        self.folder, self.steps, self.rng = folder, steps, random.Random(f"{seed}/kills")
        self.context = cradle(PRELOAD, fresh)
        self.log = folder / "log.txt"
        tiny_training.make_inputs(folder)

    def life(self, run: Path, way: str, workers: int) -> tuple[int, str]:
        """One life, ended in some way (``""``: not at all). Returns the exit code and where it was killed."""
        # The first changes of a life are those of the resume itself.
        writes = self.rng.choice((self.rng.randint(1, 12), self.rng.randint(1, 220))) if way == "write" else 0
        delay = self.rng.choice((0, self.rng.uniform(0, 0.012), self.rng.uniform(0, 0.2)))
        steps, skip = self.rng.randint(0, 9), self.rng.randint(0, 4)
        lines = run / "metrics.jsonl"
        before, seen = _lines(lines), set[str]()

        def due() -> bool:
            if way == "time":
                return _lines(lines) >= before + steps
            seen.update(path.name for path in (run / "checkpoints").glob(".step-*"))
            return len(seen) > skip

        code = live(
            self.context,
            tiny_training.life,
            lambda started: (str(self.folder), str(run), self.steps, workers, writes, started, str(self.log)),
            what="a training process",
            due=due if way in ("time", "checkpoint") else None,
            delay=delay,
        )
        return code, f"{way} after {_lines(lines)} metrics lines"


def soak_kills(
    folder: Path, *, kills: int, seed: int, steps: int, fresh: bool, tick: Callable[[str], None] = lambda way: None
) -> dict[str, Any]:
    """Kills trainings ``kills`` times; every run is brought to its end and compared.

    Returns:
        JSON facts; ``problems`` is empty if all is well.
    """
    killer, problems = Killer(folder, seed, steps, fresh), list[str]()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    start = time.perf_counter()
    reference = folder / "reference"
    code, _ = killer.life(reference, "", 0)
    if code:
        return {"problems": [f"the uninterrupted run ended with code {code}: {tail(killer.log)}"]}
    done, runs, ways, lives, moments = 0, 0, Counter[str](), 0, list[str]()
    while done < kills:
        run, runs, finished, idle = folder / f"run-{runs}", runs + 1, False, 0
        while not finished:
            way = WAYS[lives % len(WAYS)] if done < kills else ""
            workers = 1 if lives % 5 == 4 else 0
            lives += 1
            code, moment = killer.life(run, way, workers)
            if code == -9:
                done, idle = done + 1, idle + 1
                ways[way] += 1
                moments.append(moment)
                tick(way)
            elif code == 0:
                finished = True
            else:
                problems.append(f"life {lives} ({moment}) ended with code {code}: {tail(killer.log)}")
                break
        if finished:
            problems += [f"{run.name}: {problem}" for problem in compare(run, reference)]
        elif len(problems) > 5:
            break
    return {
        "kills": done,
        "ways": dict(sorted(ways.items())),
        "lives": lives,
        "runs_finished_and_compared": runs,
        "steps_of_a_run": 2 * steps,
        "metrics_lines_compared": runs * len(metrics(reference)),
        "new_interpreter_each_life": fresh,
        "moments": moments,
        "problems": problems,
        "seconds": round(time.perf_counter() - start, 1),
    }


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0
