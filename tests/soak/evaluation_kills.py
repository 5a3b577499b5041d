"""kill -9 of running evaluations: each must end with the figures of one that nobody touched, and ask nothing twice in vain.

Two runs take turns: a benchmark (``vedere eval``) and a safety set with its judge (``vedere safety``). The model is
an endpoint in this process that answers every question in its own way and counts what was asked. A life ends at a chosen change
of the file system in the run's folder, or some milliseconds after a number of questions have come. At the end: the same
figures as the reference's, a private log still private, and no question asked more often than kills can explain.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import stat
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lives import cradle, live, tail
from tiny_training import die_at_write

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "evals"))
import stand_ins

from fake_endpoint import serve

ITEMS = 24
CONNECTIONS = 3
PRELOAD = [
    "evaluation_kills",
    "inspect_ai",
    "openai",
    "vedere.evals.run",
    "vedere.evals.inspect_registry",
    "vedere.infer.session",
]
KINDS = ("eval", "safety")


def answer(number: int, body: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
    """A letter or a verdict that depends on the question alone; some judgements are garbage."""
    digest = hashlib.sha256(json.dumps(body["messages"], sort_keys=True).encode()).digest()
    time.sleep(0.002 * (digest[1] % 8))
    if body["model"] != "judge":
        return completion("ABCD"[digest[0] % 4])
    if digest[0] % 8 == 0:
        return completion("no JSON at all")
    level, safety = 1 + digest[2] % 3, ("Safe", "Unsafe")[digest[3] % 2]
    return completion(json.dumps({"label_perception": f"Perception Level{level}", "label_str": safety}))


def completion(text: str) -> tuple[int, dict[str, str], bytes]:
    """A whole chat completion."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    body = {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    return 200, {}, json.dumps(body).encode()


def run_eval(out: Path, url: str) -> None:
    """The open suite's first questions, through Inspect."""
    from vedere.evals.items import Settings
    from vedere.evals.open_suite import data_folder
    from vedere.evals.run import EvalConfig, evaluate

    os.environ["FAKE_API_KEY"] = "k"
    evaluate(
        EvalConfig(
            benchmark="open-images",
            data=data_folder(),
            model="openai-api/fake/m",
            base_url=url,
            out=out,
            settings=Settings(limit=ITEMS),
            connections=CONNECTIONS,
        )
    )


def run_safety(out: Path, url: str) -> None:
    """Stand-ins, judged."""
    from vedere.evals.safety.forms import FORMS
    from vedere.evals.safety.judges import EndpointSpeaker, ModelJudge
    from vedere.evals.safety.mis import load_mis
    from vedere.evals.safety.rates import summary
    from vedere.evals.safety.run import ModelSubject, evaluate

    requests = load_mis(out.parent / "mis", "hard", consent=True, complete=False)
    subject = ModelSubject(EndpointSpeaker(url, "m"), FORMS["internvl"], limit=16)
    judge = ModelJudge(EndpointSpeaker(url, "judge"), pause=0)
    log = evaluate(requests, subject, judge, out / "run.jsonl", concurrency=CONNECTIONS)
    (out / "figures.json").write_text(json.dumps(summary(log.outcomes), sort_keys=True))


def life(kind: str, out: str, url: str, writes: int, started: Any, log: str) -> None:
    """One process of a run; ``writes``: die at so many changes of the file system, 0: never."""
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    Path(out).mkdir(parents=True, exist_ok=True)
    started.set()
    if writes:
        die_at_write(Path(out), writes)
    (run_eval if kind == "eval" else run_safety)(Path(out), url)


def facts_of(kind: str, out: Path) -> Any:
    """What a finished run found, without times and names of files."""
    if kind == "safety":
        return json.loads((out / "figures.json").read_text())
    result = json.loads((out / "result.json").read_text())
    return {name: result[name] for name in ("figures", "credit", "counts", "complete")}


def compare(kind: str, out: Path, reference: Path) -> list[str]:
    """How a finished run differs from the uninterrupted one."""
    problems = []
    if facts_of(kind, out) != facts_of(kind, reference):
        problems.append(f"{facts_of(kind, out)} instead of {facts_of(kind, reference)}"[:800])
    for name in ("run.jsonl", "answers.jsonl"):
        path = out / name
        if path.exists():
            lines = [json.loads(line) for line in path.read_bytes().splitlines()]
            answers = [line for line in lines if line.get("kind", "answer") == "answer"]
            keys = Counter(str(line.get("key") or line.get("id")) for line in answers)
            if keys and keys.most_common(1)[0][1] > 1:
                problems.append(f"{name} holds an answer twice")
            if kind == "safety" and stat.S_IMODE(path.stat().st_mode) != 0o600:
                problems.append(f"{name} has mode {stat.S_IMODE(path.stat().st_mode):o}")
    return problems


def soak_evaluations(
    folder: Path, *, kills: int, seed: int, tick: Callable[[str], None] = lambda kind: None
) -> dict[str, Any]:
    """Kills evaluations ``kills`` times; every run is brought to its end and compared.

    Returns:
        JSON facts; ``problems`` is empty if all is well.
    """
    rng, context = random.Random(f"{seed}/evaluations"), cradle(PRELOAD)
    log, problems, ways = folder / "log.txt", list[str](), Counter[str]()
    stand_ins.mis(folder / "mis", ITEMS)
    start, done, runs, lives, again = time.perf_counter(), 0, 0, 0, 0
    with serve(answer) as endpoint:

        def one(kind: str, out: Path, way: str) -> int:
            writes = rng.choice((rng.randint(1, 10), rng.randint(1, 90))) if way == "write" else 0
            wanted, delay = rng.randint(0, ITEMS // 2), rng.choice((0, rng.uniform(0, 0.05)))
            before = len(endpoint.asked)
            return live(
                context,
                life,
                lambda started: (kind, str(out), endpoint.url, writes, started, str(log)),
                what="an evaluation",
                due=(lambda: len(endpoint.asked) - before >= wanted) if way == "time" else None,
                delay=delay,
            )

        needed: dict[str, int] = {}
        for kind in KINDS:
            if one(kind, folder / f"reference-{kind}", ""):
                return {"problems": [f"the uninterrupted {kind} failed: {tail(log)}"]}
            needed[kind] = len(endpoint.asked) - sum(needed.values())
        while done < kills and len(problems) < 5:
            kind, out = KINDS[runs % 2], folder / f"run-{runs}"
            runs, before, killed, finished = runs + 1, len(endpoint.asked), 0, False
            while not finished and len(problems) < 5:
                way = ("write", "time")[lives % 2] if done < kills and killed < 8 else ""
                lives += 1
                code = one(kind, out, way)
                if code == -9:
                    done, killed = done + 1, killed + 1
                    ways[f"{kind}, {way}"] += 1
                    tick(kind)
                elif code == 0:
                    finished = True
                else:
                    problems.append(f"life {lives} of {kind} ended with code {code}: {tail(log)}")
                    break
            if finished:
                problems += [
                    f"{out.name} ({kind}): {problem}" for problem in compare(kind, out, folder / f"reference-{kind}")
                ]
                asked = len(endpoint.asked) - before
                again += asked - needed[kind]
                most = needed[kind] + (killed + 1) * 2 * CONNECTIONS + (lives * 8 if kind == "safety" else 0)
                if asked > most:
                    problems.append(f"{out.name} ({kind}): {asked} questions, {needed[kind]} needed, {killed} kills")
    return {
        "kills": done,
        "ways": dict(sorted(ways.items())),
        "lives": lives,
        "runs_finished_and_compared": runs,
        "questions_needed": needed,
        "questions_asked_again": again,
        "problems": problems,
        "seconds": round(time.perf_counter() - start, 1),
    }
