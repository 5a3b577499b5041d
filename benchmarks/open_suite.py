"""The open suite's results: vedere-mini, the same model blind, and answers that are always B.

    python benchmarks/open_suite.py [--out FOLDER] [--model NAME]

Each run lives in a folder below FOLDER and goes on there; ``benchmarks/results/open-suite.json`` is written at the end.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import harness
import torch

from vedere import __version__
from vedere.evals.intervals import compare, share
from vedere.evals.items import Settings
from vedere.evals.open_suite import data_folder, ledger, open_suite
from vedere.evals.records import Row
from vedere.evals.run import EvalConfig, evaluate

RUNS = {
    "open-images": {"model": Settings(), "blind": Settings(prompts="blind")},
    "open-videos": {
        "model": Settings(),
        "model, subtitles": Settings(subtitles="on"),
        "blind": Settings(prompts="blind"),
    },
}


def answers_of(folder: Path) -> dict[str, Mapping[str, Any]]:
    """Scored records of a run by id."""
    from inspect_ai.log import read_eval_log

    result = json.loads((folder / "result.json").read_text("utf-8"))
    log = read_eval_log(str(folder / result["log"]))
    return {str(sample.id): sample.metadata["vedere"]["record"] for sample in log.samples or []}


def credits_of(name: str, records: Mapping[str, Mapping[str, Any]], order: list[str]) -> list[float]:
    """Credit of each item, in order."""
    part = open_suite(name)
    found = [part.verdict(Row(place, records[item])) for place, item in enumerate(order, 1)]
    return [verdict.credit or 0.0 if verdict else 0.0 for verdict in found]


def described(credits: list[float], groups: list[str]) -> dict[str, float]:
    """Share with its interval, percent."""
    found = share([credit == 1.0 for credit in credits], groups)
    return {"acc": 100 * found.value, "low": 100 * found.low, "high": 100 * found.high, "n": found.n}


def measure(name: str, out: Path, model: str) -> dict[str, Any]:
    """All rows of one part."""
    part = open_suite(name)
    items = part.load(data_folder(), Settings())
    order, groups = [item.id for item in items], [item.group for item in items]
    rows: dict[str, list[float]] = {}
    for label, settings in RUNS[name].items():
        folder = out / f"{name}-{label.replace(', ', '-')}"
        evaluate(EvalConfig(benchmark=name, data=data_folder(), model=model, out=folder, settings=settings))
        said = answers_of(folder)
        records = {item.id: {**item.record, part.answer_field: said[item.id][part.answer_field]} for item in items}
        rows[label] = credits_of(name, records, order)
    always = {item.id: {**item.record, part.answer_field: "B"} for item in items}
    rows["always B"] = credits_of(name, always, order)
    tags = sorted({(key, str(value)) for item in items for key, value in item.metadata.items()})
    trained = {one["file"] for one in ledger() if one["mini_trained_on_it"]}
    parts: dict[str, list[int]] = {
        f"{key}: {value}": [n for n, item in enumerate(items) if str(item.metadata.get(key)) == value]
        for key, value in tags
    }
    if name == "open-images":
        seen = [any(medium.name in trained for medium in item.media) for item in items]
        photographs = [all(medium.name.startswith("coco-") for medium in item.media) for item in items]
        parts["photographs that mini was trained on"] = [n for n, one in enumerate(seen) if one]
        parts["photographs that it was not trained on"] = [
            n for n, one in enumerate(photographs) if one and not seen[n]
        ]
    found = compare(rows["blind"], rows["model"], groups)
    return {
        "rows": {label: described(credits, groups) for label, credits in rows.items()},
        "parts": {
            key: {
                label: described([credits[n] for n in places], [groups[n] for n in places])
                for label, credits in rows.items()
            }
            for key, places in parts.items()
        },
        "model minus blind": {
            "points": 100 * found.difference.value,
            "low": 100 * found.difference.low,
            "high": 100 * found.difference.high,
            "p": found.p,
        },
    }


def main() -> None:
    """Runs, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/open-suite"))
    parser.add_argument("--model", default="mini")
    options = parser.parse_args()
    results = {name: measure(name, options.out, f"vedere/{options.model}") for name in RUNS}
    results |= {"vedere": __version__, "torch": torch.__version__, "threads": torch.get_num_threads()}
    path = harness.RESULTS / "open-suite.json"
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for name in RUNS:
        for label, row in results[name]["rows"].items():
            print(f"{name:12} {label:18} {row['acc']:5.1f} [{row['low']:.1f}, {row['high']:.1f}] n {row['n']}")


if __name__ == "__main__":
    main()
