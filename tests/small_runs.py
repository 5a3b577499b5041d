"""A whole run in a second: a tiny language model, a few pictures, two stages. Also the target of killed processes."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tiny_models import TILE, tiny_config, tiny_tokenizer
from vedere import config as configs
from vedere.models.decoder import Decoder
from vedere.models.shards import write_tensors
from vedere.train import loop, state
from vedere.train.loop import Trainer
from vedere.train.run import ModelSource, RunConfig
from vedere.train.stages import VISUAL_ATTENTION, VISUAL_PARTS, OptimConfig, StageConfig

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 220), "grey": (128, 128, 128)}
CLOCK = {"seconds", "tokens_per_second", "mfu", "data_seconds"}


def language_model(directory: Path) -> Path:
    """A bare decoder as the cache of language models keeps it."""
    torch.manual_seed(7)
    config = tiny_config(visual_ffn=False, visual_attention=False, layers=2, tied_head=True).decoder
    tiny_tokenizer(directory)
    configs.save(config, directory / "config.json")
    write_tensors(directory, {f"decoder.{name}": tensor for name, tensor in Decoder(config).state_dict().items()})
    return directory


def corpus(directory: Path, text_only: bool = True) -> Path:
    """Pictures of one colour with questions, in two data sets, and the same held out."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, colour in COLOURS.items():
        Image.new("RGB", (TILE, TILE), colour).save(directory / f"{name}.png")
    names = list(COLOURS)
    sets: dict[str, list[dict[str, Any]]] = {"colours": [], "twice": []}
    for number in range(12):
        name, other = names[number % 4], names[(number + 1) % 4]
        asked = ("What colour is it?", "Is it red?", "Look.")[number % 3]
        answer = (name, "yes" if name == "red" else "no", f"a picture in {name}")[number % 3]
        sets["colours"].append({"image": f"{name}.png", "conversations": dialogue(asked, answer)})
        sets["twice"].append(
            {"image": [f"{name}.png", f"{other}.png"], "conversations": dialogue("Same?", "no", "Sure?", "yes, sure")}
        )
    if text_only:
        sets["twice"].append({"conversations": dialogue("Hello.", "Hello!")})
    for meta, chosen in (("meta.json", ("colours", "twice")), ("heldout.json", ("colours",))):
        entries = {name: {"root": ".", "annotation": f"{name}.jsonl"} for name in chosen}
        (directory / meta).write_text(json.dumps(entries))
    for name, records in sets.items():
        lines = [json.dumps({"id": number, **record}) for number, record in enumerate(records)]
        (directory / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return directory


def dialogue(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(texts)]


def recipe(directory: Path, **changes: Any) -> RunConfig:
    """Two stages of five and four steps on the model and data that stand in ``directory``."""
    first = StageConfig(
        name="one",
        data="meta.json",
        trains=VISUAL_PARTS,
        steps=5,
        tokens_per_step=200,
        pack_tokens=160,
        pack_tiles=6,
        optim=OptimConfig(lr=1e-2, warmup=2),
    )
    config = RunConfig(
        recipe="small",
        data=str(directory / "data"),
        held_out="heldout.json",
        model=ModelSource(language_model=str(directory / "lm"), patch_width=16, patch=7, tile=TILE),
        stages=(first, replace(first, name="two", steps=4, trains=VISUAL_PARTS + VISUAL_ATTENTION)),
        precision="fp32",
        save_every=3,
        eval_every=2,
        eval_samples=4,
    )
    return replace(config, **changes)


def one_stage(config: RunConfig, **changes: Any) -> RunConfig:
    return replace(config, stages=(replace(config.stages[0], **changes),))


def bare(patch: pytest.MonkeyPatch | None = None) -> None:
    """Leaves out what only costs time here, for good without ``patch``: the speed of matmuls, TensorBoard, matplotlib."""
    patch = patch or pytest.MonkeyPatch()
    patch.setattr(loop, "matmul_limit", lambda *_: 1e9)
    for name in ("torch.utils.tensorboard", "matplotlib"):
        patch.setitem(sys.modules, name, None)  # type: ignore[arg-type]


def numbers(directory: Path) -> list[dict[str, Any]]:
    """Metrics without what a clock measured."""
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in CLOCK} for line in lines]


def train_and_die(root: str, run: str, when: str) -> None:
    """Trains, resuming if there is something, and kills itself with SIGKILL at ``when``.

    ``when`` is ``step N`` (after its metrics, before its checkpoint), ``evaluation N``, ``write N`` (the files of the
    checkpoint of step N are complete but not renamed), or empty to train to the end.
    """
    torch.set_num_threads(1)
    bare()
    what, _, number = when.partition(" ")

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def progress(values: dict[str, Any]) -> None:
        if what == "step" and values["step"] == int(number):
            die()

    def on_evaluation(*arguments: Any) -> None:
        if what == "evaluation" and arguments[-1] == int(number):
            die()

    rename: Callable[..., None] = os.replace

    def replace_or_die(source: Any, target: Any) -> None:
        if what == "write" and str(target).endswith(f"step-{int(number):08d}"):
            die()
        rename(source, target)

    state.os.replace = replace_or_die
    config = recipe(Path(root))
    trainer = Trainer(
        config, run, resume=Path(run).exists(), say=lambda text: None, progress=progress, on_evaluation=on_evaluation
    )
    trainer.train()


def main(root: str, *errands: str) -> None:
    """Runs errands ``directory:when`` one after the other, each in a fork of its own; prints how each ended.

    One import of torch, and of the three seconds of dynamo that the first optimiser pulls in, serves them all. Forking is
    safe here because this process itself never computes a gradient.
    """
    importlib.import_module("torch._dynamo")
    for errand in errands:
        run, _, when = errand.partition(":")
        child = os.fork()
        if child == 0:
            try:
                train_and_die(root, run, when)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
