"""A whole training that takes seconds: two stages on a tiny random language model and a tiny corpus, by the real loop.

What could differ after a resume is in it: two data sets with repeats, JPEG augmentation, random V2PE positions, frozen and
open attention (so both ways through the loop), cosine and constant rates, packs that wait in open bins, held-out lines.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from picture_inputs import _picture

from vedere.models.decoder import Decoder, DecoderConfig
from vedere.models.shards import json_writer, write_tensors
from vedere.train import loop
from vedere.train.run import ModelSource, RunConfig
from vedere.train.stages import VISUAL_ATTENTION, VISUAL_PARTS, OptimConfig, StageConfig

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tiny_models import VOCABULARY, tiny_tokenizer

COLOURS = ("red", "green", "blue", "yellow")
WRITES = {"open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "shutil.rmtree", "os.truncate"}


def make_inputs(folder: Path) -> None:
    """Language model, tokenizer, pictures and annotations."""
    torch.manual_seed(1)
    config = DecoderConfig(
        hidden_size=32, ffn_size=48, layers=2, heads=4, kv_heads=2, head_dim=8, vocab_size=VOCABULARY, max_positions=512
    )
    tensors = {f"decoder.{name}": tensor for name, tensor in Decoder(config).state_dict().items()}
    write_tensors(folder / "language", tensors, beside={"config.json": json_writer(vars(config))})
    tiny_tokenizer(folder / "language")
    rng, data = random.Random(2), folder / "data"
    (data / "media").mkdir(parents=True)
    lines = []
    for number in range(24):
        name = f"{number}.png"
        _picture("RGB", (rng.randint(20, 90), rng.randint(20, 90)), number).save(data / "media" / name)
        turns = [["human", "<image>\nwhat is it?"], ["gpt", f"a {rng.choice(COLOURS)} circle" * rng.randint(1, 3)]]
        lines.append({"id": number, "image": name, "conversations": turns})
    talk = [{"conversations": [["human", f"say {k}"], ["gpt", f"{k} is {k * k}"]]} for k in range(15)]
    for name, records in (("pictures", lines), ("talk", talk), ("held", lines[:5])):
        text = "".join(
            json.dumps(
                record | {"conversations": [{"from": who, "value": value} for who, value in record["conversations"]]}
            )
            + "\n"
            for record in records
        )
        (data / f"{name}.jsonl").write_text(text, encoding="utf-8")
    pictures = {"annotation": "pictures.jsonl", "root": "media", "data_augment": True, "repeat_time": 1.5}
    meta = {"pictures": pictures, "talk": {"annotation": "talk.jsonl", "weight": 8.0}}
    (data / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    held = {"held": {"annotation": "held.jsonl", "root": "media"}}
    (data / "held.json").write_text(json.dumps(held), encoding="utf-8")


def recipe(folder: Path, steps: int, workers: int = 0) -> RunConfig:
    """Two stages of ``steps`` steps."""
    learning = OptimConfig(lr=3e-3, schedule="constant", warmup=3)
    first = StageConfig(
        name="look",
        data="meta.json",
        trains=VISUAL_PARTS,
        steps=steps,
        tokens_per_step=200,
        pack_tokens=160,
        pack_tiles=12,
        max_tiles=3,
        optim=learning,
    )
    second = replace(
        first,
        name="listen",
        trains=(*VISUAL_PARTS, *VISUAL_ATTENTION),
        averaging="square",
        position_mode="v2pe_rnd",
        optim=replace(learning, schedule="cosine", final=0.1),
    )
    model = ModelSource(v2pe=True, language_model=str(folder / "language"), patch_width=16, patch=7, tile=28)
    return RunConfig(
        recipe="tiny",
        data=str(folder / "data"),
        held_out="held.json",
        model=model,
        stages=(first, second),
        seed=5,
        precision="fp32",
        threads=1,
        workers=workers,
        device="cpu",
        save_every=3,
        eval_every=10,
        eval_samples=5,
    )


def die_at_write(directory: Path, count: int) -> None:
    """Kills this process at the ``count``-th change of the file system in ``directory``, before it happens.

    Where the change is opening an existing file for writing, the file is emptied first: a kill between opening and
    writing leaves exactly that, and is too rare to wait for.
    """
    left, inside = count, str(directory)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event not in WRITES or not arguments or not str(arguments[0]).startswith(inside):
            return
        writes = event != "open" or (len(arguments) > 2 and bool(int(arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)))
        if not writes:
            return
        left -= 1
        if left > 0:
            return
        if event == "open" and int(arguments[2]) & os.O_TRUNC and Path(arguments[0]).is_file():
            left = 1 << 60
            os.truncate(arguments[0], 0)
        os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def life(folder: str, run: str, steps: int, workers: int, writes: int, started: Any, log: str) -> None:
    """One process of a run: begins or resumes it and goes on to the end, unless it is killed.

    Args:
        folder: Of `make_inputs`.
        run: Directory of the run.
        steps: Steps a stage.
        workers: Data processes.
        writes: Die at so many changes of the file system; 0: never.
        started: An event that is set when training begins.
        log: File for everything that is printed.
    """
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    loop.matmul_limit = lambda *_: 1e9  # a second of arithmetic for one number that only tells speed
    directory = Path(run)
    started.set()
    if writes:
        directory.mkdir(parents=True, exist_ok=True)
        die_at_write(directory, writes)
    loop.Trainer(recipe(Path(folder), steps, workers), directory, resume=directory.exists()).train()
