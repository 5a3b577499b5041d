"""The freezing law: after a step, exactly what a stage declares has changed."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

import small_runs
from tiny_models import tiny_model
from vedere.errors import ConfigError, TrainingError
from vedere.recipes import RECIPES, get_recipe
from vedere.text.tokenizer import Tokenizer
from vedere.train.loop import Trainer
from vedere.train.run import RunConfig, open_data, preparer
from vedere.train.stages import set_trainable

# In both checkpoint formats and read by nothing in a monolithic model: the class token, and what the visual expert of the last
# layer would make of rows that predict nothing.
UNUSED = {
    "vision.cls",
    *(f"decoder.layers.1.{name}.weight" for name in ("attention.visual.out", "ffn.visual.gate_up", "ffn.visual.down")),
}


def kind(name: str) -> str:
    """Part of the model that a parameter belongs to."""
    if not name.startswith("decoder.layers."):
        return "rest of the language model" if name.startswith("decoder.") else name.split(".")[0]
    brick = name.split(".")[3]
    return f"{brick}.{name.split('.')[4]}" if brick in ("attention", "ffn") else "rest of the language model"


VISUAL = {"vision", "projector", "ffn.visual"}


@pytest.mark.parametrize(
    ("recipe", "number", "parts"),
    [
        ("mono", 0, VISUAL),
        ("mono", 1, VISUAL),
        ("mono", 2, VISUAL | {"attention.text"}),
        ("mono", 3, VISUAL | {"attention.text", "ffn.text", "rest of the language model"}),
        ("mono-mini", 0, VISUAL),
        ("mono-mini", 1, VISUAL),
        ("mono-mini", 2, VISUAL | {"attention.visual"}),
        ("mono-mini", 3, VISUAL | {"attention.visual"}),
    ],
)
@pytest.mark.usefixtures("quick")
def test_a_step_changes_exactly_what_the_stage_trains(
    ground: Path, tmp_path: Path, recipe: str, number: int, parts: set[str]
) -> None:
    stage = get_recipe(recipe).stages[number]
    small = small_runs.recipe(ground, held_out="")
    small = replace(small, model=replace(small.model, visual_attention=get_recipe(recipe).model.visual_attention))
    trainer = Trainer(
        small_runs.one_stage(small, trains=stage.trains, steps=1), tmp_path / "run", say=lambda text: None
    )
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    after = dict(trainer.model.named_parameters())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if kind(name) in parts} - UNUSED
    assert {kind(name) for name in changed} == parts


def test_shipped_stages_never_touch_the_language_model() -> None:
    """What makes text-only answers bit-identical: no stage of the small recipe trains a parameter of the text path."""
    model = tiny_model()
    for stage in (*get_recipe("mono-mini").stages, *get_recipe("mono-mini-hd").stages):
        for name in set_trainable(model, stage.trains):
            assert not name.startswith("decoder.") or ".visual." in name


@pytest.mark.usefixtures("quick")
def test_the_mixed_resolution_stage_sees_documents_high_and_trains(ground: Path, tmp_path: Path) -> None:
    """Its limits on a tiny run: four tiles and a thumbnail for a document, one tile for the rest."""
    data = small_runs.corpus(tmp_path / "data", text_only=False)
    for name in small_runs.COLOURS:
        Image.new("RGB", (56, 56), small_runs.COLOURS[name]).save(data / f"{name}.png")
    entries = {name: {"root": ".", "annotation": "colours.jsonl"} for name in ("documents", "garments")}
    (data / "meta.json").write_text(json.dumps(entries))
    stage = get_recipe("mono-mini-hd").stages[-1]
    small = small_runs.one_stage(
        small_runs.recipe(ground, held_out="", data=str(data)),
        trains=stage.trains,
        limits=stage.limits,
        max_tiles=stage.max_tiles,
        steps=2,
    )
    trainer = Trainer(small, tmp_path / "run", say=lambda text: None)
    prepare = preparer(small, small.stages[0], trainer.tokenizer)
    tiles = {part.name: len(prepare(part.records[0], random.Random(0)).tiles) for part in open_data(small, "meta.json")}
    assert tiles == {"documents": 5, "garments": 1}
    trainer.train()
    assert len([line for line in small_runs.numbers(tmp_path / "run") if "loss" in line]) == 2


def test_a_pattern_that_matches_nothing_is_refused() -> None:
    model = tiny_model(visual_attention=False)
    with pytest.raises(
        ConfigError, match=r"'decoder.layers.\*.attention.visual.\*' matches no parameter of MonoInternVL"
    ):
        set_trainable(model, ["vision.*", "decoder.layers.*.attention.visual.*"])
    with pytest.raises(ConfigError, match=r"'projector.fc1.weigth' .*; did you mean 'projector.fc1.weight'\?"):
        set_trainable(model, ["projector.fc1.weigth"])
    with pytest.raises(ConfigError, match="'trains' is empty"):
        set_trainable(model, [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: replace(run, save_every=0), "save_every 0; expected at least 1"),
        (lambda run: replace(run, keep=0), "keep 0; expected at least 1"),
        (lambda run: replace(run, minutes=-1.0), "minutes -1.0; expected at least 0"),
        (lambda run: replace(run.stages[0], steps=0), "steps 0; expected at least 1"),
        (lambda run: replace(run.stages[0], tokens_per_step=0), "tokens_per_step 0; expected at least 1"),
        (lambda run: replace(run.stages[0].optim, clip=-1.0), "clip -1.0; expected at least 0"),
        (lambda run: replace(run.stages[0].optim, lr=float("nan")), "lr nan; expected at least 0"),
        (lambda run: replace(run.stages[0].optim, beta2=1.0), "beta1 0.9, beta2 1.0; expected both below 1"),
    ],
)
def test_numbers_out_of_range_are_refused(change: Callable[[RunConfig], object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        change(get_recipe("mono-mini"))


def test_recipes() -> None:
    with pytest.raises(ConfigError, match=r"unknown recipe 'mono-mimi'; did you mean 'mono-mini'\? \(recipes: "):
        get_recipe("mono-mimi")
    for name in RECIPES:
        assert get_recipe(name).recipe == name


@pytest.mark.usefixtures("quick")
def test_a_recipe_without_stages_or_with_equal_names_is_refused(ground: Path, tmp_path: Path) -> None:
    small = small_runs.recipe(ground)
    with pytest.raises(TrainingError, match="no stages"):
        Trainer(replace(small, stages=()), tmp_path)
    with pytest.raises(ConfigError, match="not unique"):
        replace(small, stages=(small.stages[0], small.stages[0]))
    with pytest.raises(ConfigError, match="on_error 'ignore'; expected raise or skip"):
        replace(small, on_error="ignore")


def test_a_stage_says_how_many_frames_of_a_video_training_sees(ground: Path) -> None:
    small = small_runs.recipe(ground)
    tokenizer = Tokenizer.load(Path(small.model.language_model))
    stage = replace(small.stages[0], frames=(4, 8))
    assert preparer(small, stage, tokenizer).frames == (4, 8)
    with pytest.raises(ConfigError, match=r"frames \(8, 4\); expected \(least, most\)"):
        preparer(small, replace(stage, frames=(8, 4)), tokenizer)
    assert all(stage.frames == (4, 8) for stage in get_recipe("mono-mini").stages)
