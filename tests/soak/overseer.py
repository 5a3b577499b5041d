"""Watches worker processes: starts them, times them, notices how they end, keeps the input that ended them."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cases

HERE = Path(__file__).resolve().parent
WORKER = HERE / "cases.py"
WALL_SECONDS = 150.0  # of one case; the processor time is limited more tightly by the worker itself
MOST_STORED = 40  # findings whose inputs are kept


@dataclass
class Tally:
    """What happened to the inputs of one family."""

    worked: int = 0
    refused: int = 0
    findings: int = 0
    seconds: float = 0.0
    refusals: Counter[str] = field(default_factory=Counter)
    kinds: dict[str, Counter[str]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        kinds = {what: dict(sorted(counts.items())) for what, counts in sorted(self.kinds.items())}
        return {
            "inputs": self.worked + self.refused + self.findings,
            "worked": self.worked,
            "refused": self.refused,
            "findings": self.findings,
            "seconds": round(self.seconds, 1),
            "refusals": dict(sorted(self.refusals.items())),
            "kinds": kinds,
        }


@dataclass
class Soak:
    """Runs cases and collects what they did.

    Args:
        seed: Of all cases.
        keep: Folder for inputs of findings.
        tick: Called with (family, verdict) after each case.
    """

    seed: int
    keep: Path
    tick: Callable[[str, str], None] = lambda family, verdict: None
    tallies: dict[str, Tally] = field(default_factory=dict)
    findings: list[dict[str, Any]] = field(default_factory=list)

    def run(self, counts: Mapping[str, int]) -> None:
        """Cases 0 .. count - 1 of each family, in one worker after the other."""
        at = dict.fromkeys(counts, 0)
        with tempfile.TemporaryDirectory(prefix="vedere-soak-") as folder:
            while any(at[name] < count for name, count in counts.items()):
                left = {name: (at[name], count) for name, count in counts.items() if at[name] < count}
                self._worker(Path(folder), left, at)

    def _worker(self, folder: Path, left: Mapping[str, tuple[int, int]], at: dict[str, int]) -> None:
        """One worker's life; moves ``at`` on by every case that got a verdict."""
        plan = [str(part) for name, (start, stop) in left.items() for part in (name, start, stop)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "VEDERE_CACHE": str(folder / "cache")}
        environment["PYTHONPATH"] = os.pathsep.join([str(WORKER.parent), str(HERE), str(HERE.parent.parent / "src")])
        log = folder / "stderr"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, str(WORKER), str(self.seed), str(folder), *plan],
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
            )
        family, since, hung, pending = next(iter(left)), time.perf_counter(), False, b""
        assert process.stdout is not None
        stream = process.stdout.fileno()
        while True:
            if not select.select([stream], [], [], WALL_SECONDS)[0]:
                hung = True
                process.kill()
                break
            block = os.read(stream, 1 << 16)
            if not block:
                break
            *lines, pending = (pending + block).split(b"\n")
            for line in lines:
                result = json.loads(line)
                if "ready" in result:
                    family = result["ready"]
                    self.tallies.setdefault(family, Tally())
                    since = time.perf_counter()
                    continue
                self._count(result, time.perf_counter() - since, folder)
                since = time.perf_counter()
                at[family] += 1
        process.stdout.close()
        code = process.wait()
        if code == 0 and not hung:
            return
        self._died(family, at[family], code, hung, time.perf_counter() - since, log, folder)
        at[family] += 1

    def _died(self, family: str, number: int, code: int, hung: bool, seconds: float, log: Path, folder: Path) -> None:
        trace = log.read_bytes()[-4000:].decode("utf-8", "replace")
        if code == 1:  # an exception that nothing caught
            raise RuntimeError(f"a mistake in the soak itself, {family} {number}:\n{trace}")
        if hung:
            kind = f"no result after {WALL_SECONDS:.0f} seconds"
        elif code == -signal.SIGPROF:
            kind = f"more than {cases.CPU_SECONDS:.0f} seconds of work"
        else:
            kind = f"the process died: {signal.Signals(-code).name if code < 0 else f'exit code {code}'}"
        result = {"family": family, "number": number, "what": "?", "verdict": "finding", "kind": kind, "class": "death"}
        place = next((line.strip() for line in trace.splitlines() if "vedere" in line and "line" in line), "")
        self._count(result | {"place": place[-120:], "message": "", "trace": trace}, seconds, folder)

    def _count(self, result: dict[str, Any], seconds: float, folder: Path) -> None:
        tally = self.tallies.setdefault(result["family"], Tally())
        verdict = result["verdict"]
        tally.seconds += seconds
        tally.kinds.setdefault(result["what"], Counter())[verdict] += 1
        if verdict == "worked":
            tally.worked += 1
        elif verdict == "refused":
            tally.refused += 1
            tally.refusals[result["class"]] += 1
        else:
            tally.findings += 1
            self._store(result, folder)
        self.tick(result["family"], verdict)

    def _store(self, result: dict[str, Any], folder: Path) -> None:
        """Keeps a finding; equal ones (class and place) are counted together, the first one's input is saved."""
        for key in ("place", "message", "trace"):
            result[key] = result.get(key, "").replace(str(folder), "...").replace(str(HERE.parent.parent), "...")
        mark = (result["family"], result["kind"].split(" of ")[0][:40], result["class"], result["place"])
        for known in self.findings:
            if known["mark"] == mark:
                known["count"] += 1
                return
        name = f"{result['family']}-{result['number']}"
        self.findings.append(result | {"mark": mark, "count": 1, "input": name})
        if len(self.findings) <= MOST_STORED:
            self.keep.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(self.keep / name, ignore_errors=True)
            kept = folder / "found" / name
            source = kept if kept.is_dir() else folder / "case"  # the latter of a worker that died
            if source.is_dir():
                shutil.copytree(source, self.keep / name, symlinks=True)
            (self.keep / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
