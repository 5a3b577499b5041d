"""Held-out measurements and sample pages: what teacher forcing calls exact is what greedy decoding says."""

from __future__ import annotations

import random
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import small_runs
from vedere.data.mixture import Part, open_meta
from vedere.infer.engine import Engine, Finished
from vedere.infer.sampling import SamplingParams
from vedere.train.evaluate import held_out
from vedere.train.loop import Trainer
from vedere.train.pages import SamplePages, question, spread
from vedere.train.run import preparer
from vedere.train.stages import EVERYTHING, OptimConfig

pytestmark = pytest.mark.usefixtures("quick")


def silent(text: str) -> None:
    pass


@pytest.fixture(scope="module")
def learnt(ground: Path, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    """A tiny model that has learnt a part of its corpus by heart."""
    with pytest.MonkeyPatch.context() as patch:
        from vedere.train import loop

        patch.setattr(loop, "matmul_limit", lambda *_: 1e9)
        patch.setattr(loop, "draw_curves", lambda *arguments: None)
        patch.setitem(sys.modules, "torch.utils.tensorboard", None)
        config = small_runs.recipe(ground, held_out="", eval_every=0)
        optim = OptimConfig(lr=1e-2, warmup=5, schedule="constant")
        config = small_runs.one_stage(config, trains=EVERYTHING, steps=40, optim=optim)
        trainer = Trainer(config, tmp_path_factory.mktemp("learnt"), say=silent)
        trainer.train()
    trainer.model.eval()
    return trainer


def colours(trainer: Trainer) -> Part:
    return open_meta(Path(trainer.config.data) / "heldout.json")[0]


def test_exact_by_teacher_forcing_is_exact_by_greedy_decoding(learnt: Trainer) -> None:
    stage = learnt.config.stages[0]
    prepare = preparer(learnt.config, stage, learnt.tokenizer)
    part = colours(learnt)
    stops = prepare.template.stop_ids(learnt.tokenizer)
    sampling = SamplingParams(max_new_tokens=30, stop_ids=stops)
    pairs = [
        question(part.records[number], prepare, stage, learnt.model, learnt.tokenizer, sampling)
        for number in range(len(part.records))
    ]
    events = Engine(learnt.model).generate([request for request, _ in pairs])
    answers = {event.request: event for event in events if isinstance(event, Finished)}
    said = [learnt.tokenizer.decode(answers[number].ids).strip() for number in range(len(pairs))]
    right = [found == expected for found, (_, expected) in zip(said, pairs, strict=True)]
    result = held_out(learnt.model, [part], prepare, stage)["colours"]
    assert result.samples == len(pairs) == 12
    assert result.exact == pytest.approx(sum(right) / len(right))
    assert result.exact > 0.3, "the model should have learnt something, else this test shows nothing"


def test_held_out_loss_is_plain_cross_entropy(learnt: Trainer) -> None:
    from vedere.data.packing import collate
    from vedere.train.batch import make_batch

    stage = replace(learnt.config.stages[0], averaging="square")  # averaging is the training's, not the measurement's
    prepare = preparer(learnt.config, stage, learnt.tokenizer)
    part = colours(learnt)
    losses = []
    for number in range(5):
        pack = collate([prepare(part.records[number], random.Random(0))])
        batch = make_batch(pack, stage, learnt.model, random.Random(0))
        with torch.no_grad():
            hidden = learnt.model(batch.ids, batch.positions, batch.borders, batch.span_types, batch.pixels)
        logits = learnt.model.decoder.logits(hidden[batch.rows])
        losses.append(torch.nn.functional.cross_entropy(logits, batch.targets, reduction="none").detach())
    result = held_out(learnt.model, [part], prepare, stage, limit=5)["colours"]
    assert result.samples == 5
    assert result.loss == pytest.approx(float(torch.cat(losses).mean()), rel=1e-4)


def test_measuring_leaves_no_gradient(learnt: Trainer) -> None:
    prepare = preparer(learnt.config, learnt.config.stages[0], learnt.tokenizer)
    learnt.model.zero_grad()
    held_out(learnt.model, [colours(learnt)], prepare, learnt.config.stages[0], limit=2)
    assert all(parameter.grad is None for parameter in learnt.model.parameters())


def page_of(learnt: Trainer, directory: Path, **changes: Any) -> str:
    config = replace(learnt.config, held_out="heldout.json", **changes)
    SamplePages(6)(learnt.model, learnt.tokenizer, config, config.stages[0], directory, 123)
    return (directory / "samples" / "step-000123.html").read_text()


def test_a_page_shows_pictures_prompts_expectations_and_answers(learnt: Trainer, tmp_path: Path) -> None:
    page = page_of(learnt, tmp_path)
    assert "<title>small, one, step 123</title>" in page
    assert page.count("<figure>") == 6
    assert page.count("data:image/jpeg;base64,") == 6
    assert page.count("expected: ") == 6
    assert "What colour is it?" in page
    assert "&lt;image&gt;" not in page
    assert "colours#0, " in page
    again = page_of(learnt, tmp_path)
    assert re.sub(r"in [\d.]+ s", "", page) == re.sub(r"in [\d.]+ s", "", again)


def test_a_sample_that_cannot_be_shown_is_noted_and_the_others_are_shown(learnt: Trainer, tmp_path: Path) -> None:
    small_runs.corpus(tmp_path / "data")
    (tmp_path / "data" / "red.png").write_bytes(b"no picture")
    records = tmp_path / "data" / "colours.jsonl"
    lines = records.read_text().splitlines()
    records.write_text("\n".join([*lines[:10], "{", lines[11]]) + "\n")  # the last one shown is no record at all
    page = page_of(learnt, tmp_path, data=str(tmp_path / "data"))
    assert page.count("<figure>") == 6
    assert page.count("cannot be shown: ") == 4
    assert "colours, record 11" in page
    assert page.count("expected: ") == 2


def test_a_model_that_says_nan_gets_a_page_that_says_so(learnt: Trainer, tmp_path: Path) -> None:
    bias = learnt.model.projector.fc2.bias
    kept = bias.detach().clone()
    try:
        bias.data.fill_(float("nan"))
        assert "the logits are not finite" in page_of(learnt, tmp_path)
    finally:
        bias.data.copy_(kept)


def test_without_held_out_data_no_page(learnt: Trainer, tmp_path: Path) -> None:
    SamplePages()(learnt.model, learnt.tokenizer, learnt.config, learnt.config.stages[0], tmp_path, 1)
    assert not (tmp_path / "samples").exists()


@pytest.mark.parametrize("count", [1, 5, 12, 100])
def test_samples_are_spread_evenly_and_always_the_same(ground: Path, count: int) -> None:
    parts = open_meta(ground / "data" / "meta.json")
    assert spread(parts, count) == spread(parts, count)
    chosen = [part.records[index].name for part, index in spread(parts, count)]
    assert len(set(chosen)) == len(chosen) == min(count, sum(len(part.records) for part in parts))
    sets = [sum(name.startswith(part.name + "#") for name in chosen) for part in parts]
    assert max(sets) - min(sets) <= 1


def test_a_prompt_ends_where_its_first_answer_begins(learnt: Trainer) -> None:
    """Two pictures and two answers: the prompt holds both pictures and the first question only."""
    stage = learnt.config.stages[0]
    prepare = preparer(learnt.config, stage, learnt.tokenizer)
    twice = open_meta(Path(learnt.config.data) / "meta.json")[1]
    request, expected = question(twice.records[0], prepare, stage, learnt.model, learnt.tokenizer, SamplingParams())
    text = learnt.tokenizer.decode(request.ids, skip_special=False)
    assert expected == "no"
    assert "Same?" in text
    assert "Sure?" not in text
    assert text.endswith("<|im_start|>assistant\n")
    assert request.pixels is not None
    assert len(request.pixels) == 2
