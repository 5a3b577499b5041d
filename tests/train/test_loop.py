"""Laws of the loop: resume is bit-identical wherever a run was killed, packs add up, and it stops loudly."""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

import small_runs
from vedere.data.loader import Loader, LoaderConfig
from vedere.data.mixture import open_meta
from vedere.data.packing import Document, PackLimits, collate
from vedere.errors import CheckpointError, RecordError, TrainingError, VedereError
from vedere.train import precision, state
from vedere.train.batch import Batch, make_batch, pack_positions, without_tails
from vedere.train.loop import Interrupted, Trainer, backward
from vedere.train.losses import chunked_cross_entropy
from vedere.train.prefix import SharedPrefix
from vedere.train.run import preparer
from vedere.train.stages import EVERYTHING, TEXT_ATTENTION, VISUAL_PARTS, StageConfig, set_trainable
from vedere.train.state import checkpoint_steps, read_checkpoint, write_checkpoint

pytestmark = pytest.mark.usefixtures("quick")


def silent(text: str) -> None:
    pass


KILLS = ("step 2", "step 4", "write 5", "step 6", "evaluation 7", "write 8")


@pytest.fixture(scope="module")
def runs(ground: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(a run to its end, a run that was killed and resumed again and again), both in processes of their own."""
    folder = tmp_path_factory.mktemp("runs")
    whole, killed = folder / "whole", folder / "killed"
    errands = [f"{whole}:", *(f"{killed}:{when}" for when in KILLS), f"{killed}:"]
    tests = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(tests)])}
    command = [sys.executable, str(tests / "small_runs.py"), str(ground), *errands]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.stdout.split() == ["0", *[str(-signal.SIGKILL)] * len(KILLS), "0"], done.stderr
    return whole, killed


@pytest.fixture
def uninterrupted(runs: tuple[Path, Path]) -> Path:
    return runs[0]


def weights(run: Path) -> dict[str, Tensor]:
    newest = checkpoint_steps(run / "checkpoints")[-1]
    return safetensors.torch.load_file(run / "checkpoints" / f"step-{newest:08d}" / state.MODEL)


def test_killed_and_resumed_runs_equal_the_uninterrupted_one(runs: tuple[Path, Path]) -> None:
    """Kills before the first checkpoint, between checkpoints, inside one, in an evaluation, and after a stage's border."""
    whole, killed = runs
    assert small_runs.numbers(killed) == small_runs.numbers(whole)
    expected, found = weights(whole), weights(killed)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    steps = [line["step"] for line in small_runs.numbers(killed) if "loss" in line]
    assert steps == list(range(1, 10))
    left = [path.name for path in (killed / "checkpoints").iterdir()]
    assert sorted(left) == ["step-00000008", "step-00000009"], "what killed writers left behind"


def test_ctrl_c_finishes_the_step_saves_and_continues_exactly(
    ground: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    said: list[str] = []

    def interrupt(values: dict[str, Any]) -> None:
        if values["step"] == 4:
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    config = small_runs.recipe(ground)
    with pytest.raises(Interrupted, match="stopped after step 4; continue with --resume"):
        Trainer(config, tmp_path, say=said.append, progress=interrupt).train()
    assert "stopping after this step (once more to stop at once)" in said
    assert checkpoint_steps(tmp_path / "checkpoints")[-1] == 4
    assert signal.getsignal(signal.SIGINT) is before
    Trainer(config, tmp_path, resume=True, say=said.append).train()
    assert "resuming after step 4 in stage one" in said
    assert [line["loss"] for line in small_runs.numbers(tmp_path) if "loss" in line] == [
        line["loss"] for line in small_runs.numbers(uninterrupted) if "loss" in line
    ]


def test_a_resumed_run_lets_go_of_the_checkpoint_that_it_read(ground: Path, tmp_path: Path) -> None:
    """Its files are mapped, and would keep their disk space after newer checkpoints replaced them."""
    config = small_runs.one_stage(small_runs.recipe(ground, held_out=""), steps=1)
    Trainer(config, tmp_path, say=silent).train()
    trainer = Trainer(small_runs.one_stage(config, steps=2), tmp_path, resume=True, say=silent)
    kept = [weakref.ref(tensor) for tensors in (trainer.saved or ())[:2] for tensor in tensors.values()]
    alive: list[int] = []
    trainer.progress = lambda values: alive.append(sum(tensor() is not None for tensor in kept))
    trainer.train()
    assert len(kept) > 20
    assert alive == [0]


def test_a_second_ctrl_c_stops_at_once(ground: Path, tmp_path: Path) -> None:
    def interrupt(values: dict[str, Any]) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        Trainer(small_runs.recipe(ground), tmp_path, say=silent, progress=interrupt).train()
    assert checkpoint_steps(tmp_path / "checkpoints") == []


def test_what_a_run_leaves(ground: Path, uninterrupted: Path) -> None:
    lines = small_runs.numbers(uninterrupted)
    assert {line["stage"] for line in lines if "stage" in line} == {"one", "two"}
    assert [line["step"] for line in lines if "held_out" in line] == [2, 4, 5, 7, 9]
    last = [line for line in lines if "loss" in line][-1]
    assert last["loss"] < lines[0]["loss"]
    assert last["tokens"] >= 9 * 200
    assert 0 < last["visual_share"] < 1
    (facts,) = json.loads((uninterrupted / "run.json").read_text())["starts"]
    assert {name: stage["steps"] for name, stage in facts["plan"].items()} == {"one": 5, "two": 4}
    assert facts["dtype"] == "float32"
    assert checkpoint_steps(uninterrupted / "checkpoints") == [8, 9]
    resolved = json.loads((uninterrupted / "config.json").read_text())
    assert resolved["stages"][1]["optim"]["warmup"] == 2


def batch_of(config: Any, documents: list[Document], model: Any, stage: StageConfig) -> Batch:
    return make_batch(collate(documents), stage, model, random.Random(0))


def documents_of(trainer: Trainer, meta: str = "meta.json") -> list[Document]:
    prepare = preparer(trainer.config, trainer.config.stages[0], trainer.tokenizer)
    parts = open_meta(Path(trainer.config.data) / meta)
    return [prepare(part.records[number], random.Random(0)) for part in parts for number in (0, 1, 2)]


def gradients(model: Any) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def agree(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert first
    for name in first:
        scale = float(first[name].abs().max())
        torch.testing.assert_close(second[name], first[name], rtol=1e-4, atol=1e-5 * scale, msg=name)


@pytest.mark.parametrize("averaging", ["token", "square"])
def test_small_packs_add_up_to_a_large_one(ground: Path, tmp_path: Path, averaging: str) -> None:
    trainer = Trainer(small_runs.recipe(ground), tmp_path, say=silent)
    stage = replace(trainer.config.stages[0], averaging=averaging)  # type: ignore[arg-type]
    set_trainable(trainer.model, EVERYTHING)
    documents = documents_of(trainer)
    whole = batch_of(trainer.config, documents, trainer.model, stage)
    total = backward(trainer.model, whole)
    expected = gradients(trainer.model)
    parts = [batch_of(trainer.config, half, trainer.model, stage) for half in (documents[:2], documents[2:])]
    assert sum(backward(trainer.model, part) for part in parts) == pytest.approx(total, rel=1e-5)
    assert sum(float(part.weights.sum()) for part in parts) == pytest.approx(float(whole.weights.sum()))
    agree(expected, gradients(trainer.model))


def test_recomputed_layers_give_the_same_gradients(ground: Path, tmp_path: Path) -> None:
    trainer = Trainer(small_runs.recipe(ground), tmp_path, say=silent)
    set_trainable(trainer.model, VISUAL_PARTS + TEXT_ATTENTION)
    batch = batch_of(trainer.config, documents_of(trainer), trainer.model, trainer.config.stages[0])
    loss = backward(trainer.model, batch)
    expected = gradients(trainer.model)
    trainer.model.decoder.checkpoint_layers = True
    assert backward(trainer.model, batch) == loss
    found = gradients(trainer.model)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_what_stands_behind_the_last_target_changes_nothing(ground: Path, tmp_path: Path) -> None:
    """Neither loss nor gradients, against a pass over all tokens; a tail with a picture stays."""
    trainer = Trainer(small_runs.recipe(ground), tmp_path, say=silent)
    set_trainable(trainer.model, EVERYTHING)
    model, documents = trainer.model, documents_of(trainer)
    batch = batch_of(trainer.config, documents, model, trainer.config.stages[0])
    hidden = model(batch.ids, batch.positions, batch.borders, batch.span_types, batch.pixels)[batch.rows]
    plain = chunked_cross_entropy(hidden, model.decoder.head_weight, batch.targets, batch.weights)
    plain.backward()
    expected = {name: gradient for name, gradient in gradients(model).items() if gradient.any()}
    trimmed = without_tails(batch)
    assert len(batch.ids) - len(trimmed.ids) >= len(documents)
    assert torch.equal(trimmed.ids[trimmed.rows], batch.ids[batch.rows])
    assert {border - 1 for border in trimmed.borders[1:]} <= set(trimmed.rows.tolist())
    assert backward(model, batch) == pytest.approx(float(plain.detach()), rel=1e-5)
    agree(expected, gradients(model))
    pictured = batch.span_types.clone()
    pictured[-1] = 1
    assert without_tails(replace(batch, span_types=pictured)).borders[-1] > trimmed.borders[-1]


def test_a_shared_prefix_changes_neither_loss_nor_gradients(ground: Path, tmp_path: Path) -> None:
    trainer = Trainer(small_runs.recipe(ground), tmp_path, say=silent)
    set_trainable(trainer.model, trainer.config.stages[1].trains)
    documents = [document for document in documents_of(trainer) if len(document.tiles) == 1]
    batch = batch_of(trainer.config, documents, trainer.model, trainer.config.stages[1])
    prefix = SharedPrefix(trainer.model.decoder)
    stripped, cache = prefix.strip(batch)
    assert cache is not None
    assert len(stripped.ids) < len(batch.ids)
    plain = backward(trainer.model, batch)
    expected = gradients(trainer.model)
    assert backward(trainer.model, batch, prefix) == pytest.approx(plain, rel=1e-5)
    agree(expected, gradients(trainer.model))


def test_a_pack_without_pictures_passes_through_a_stage_that_trains_visual_parts(ground: Path, tmp_path: Path) -> None:
    """Nothing that learns is reached: a loss without gradient, not a crash."""
    trainer = Trainer(small_runs.recipe(ground), tmp_path, say=silent)
    set_trainable(trainer.model, VISUAL_PARTS)
    prepare = preparer(trainer.config, trainer.config.stages[0], trainer.tokenizer)
    records = open_meta(Path(trainer.config.data) / "meta.json")[1].records
    document = prepare(records[len(records) - 1], random.Random(0))
    assert not len(document.tiles)
    batch = batch_of(trainer.config, [document], trainer.model, trainer.config.stages[0])
    assert backward(trainer.model, batch) > 0
    assert gradients(trainer.model) == {}


def poison(trainer: Trainer, step: int, name: str) -> None:
    """Makes a weight NaN after ``step``."""

    def progress(values: dict[str, Any]) -> None:
        if values["step"] == step:
            dict(trainer.model.named_parameters())[name].data.view(-1)[0] = float("nan")

    trainer.progress = progress


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(ground: Path, tmp_path: Path) -> None:
    trainer = Trainer(small_runs.recipe(ground, eval_every=0), tmp_path, say=silent)
    poison(trainer, 4, "projector.fc2.bias")
    with pytest.raises(
        TrainingError, match=r"step 5, stage one: loss nan in a pack of samples (colours|twice)#\d+, "
    ) as raised:
        trainer.train()
    assert "the last checkpoint is kept" in str(raised.value)
    assert checkpoint_steps(tmp_path / "checkpoints") == [3]
    assert [line["step"] for line in small_runs.numbers(tmp_path)] == [1, 2, 3, 4]
    saved = read_checkpoint(tmp_path / "checkpoints")
    assert saved is not None
    assert all(bool(tensor.isfinite().all()) for tensor in saved[0].values())


def test_a_gradient_that_is_not_finite_names_step_and_samples(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vedere.train import loop

    def infinite(model: Any, batch: Batch, prefix: Any = None) -> float:
        value = backward(model, batch, prefix)
        model.projector.fc2.bias.grad.fill_(float("inf"))
        return value

    trainer = Trainer(small_runs.recipe(ground), tmp_path, say=silent)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    monkeypatch.setattr(loop, "backward", infinite)
    with pytest.raises(
        TrainingError, match=r"step 1, stage one: gradient norm (inf|nan); .* \(samples (colours|twice)#\d+, .*--resume"
    ):
        trainer.train()
    assert all(torch.equal(before[name], p) for name, p in trainer.model.named_parameters())


@pytest.mark.parametrize("where", ["tensors", "state", "rename"])
def test_a_full_disk_keeps_the_old_checkpoint(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    armed = False

    def fail_or(function: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if armed:
                raise full
            return function(*args, **kwargs)

        return wrapped

    if where == "tensors":
        monkeypatch.setattr(state.safetensors.torch, "save_file", fail_or(state.safetensors.torch.save_file))
    elif where == "state":
        monkeypatch.setattr(state.os, "fsync", fail_or(state.os.fsync))
    else:
        monkeypatch.setattr(state.os, "replace", fail_or(state.os.replace))

    def progress(values: dict[str, Any]) -> None:
        nonlocal armed
        armed = values["step"] == 5

    config = small_runs.recipe(ground, eval_every=0, held_out="")
    with pytest.raises(
        CheckpointError,
        match=r"cannot write the checkpoint of step 5 .*No space left.*--resume \(checkpoints left: \[3\]\)",
    ):
        Trainer(config, tmp_path, say=silent, progress=progress).train()
    armed = False
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]
    Trainer(config, tmp_path, resume=True, say=silent).train()
    assert [line["step"] for line in small_runs.numbers(tmp_path)] == list(range(1, 10))


def test_a_resumed_run_keeps_the_number_format_it_began_with(ground: Path, tmp_path: Path, monkeypatch) -> None:
    """Which format is faster is measured, and another machine, or a busy one, may find otherwise."""
    config = small_runs.one_stage(small_runs.recipe(ground, precision="auto", save_every=1, held_out=""), steps=2)
    monkeypatch.setattr(precision, "matmul_limit", lambda device, dtype: float(dtype == torch.bfloat16) + 0.1)
    assert Trainer(config, tmp_path, say=silent).dtype == torch.bfloat16
    Trainer(config, tmp_path, say=silent).train()
    monkeypatch.setattr(precision, "matmul_limit", lambda device, dtype: float(dtype == torch.float32) + 0.1)
    assert Trainer(config, tmp_path / "new", say=silent).dtype == torch.float32
    assert Trainer(config, tmp_path, resume=True, say=silent).dtype == torch.bfloat16


def test_a_directory_that_holds_a_run_is_refused_without_resume(ground: Path, tmp_path: Path) -> None:
    config = small_runs.one_stage(small_runs.recipe(ground, held_out=""), steps=1)
    Trainer(config, tmp_path, say=silent).train()
    with pytest.raises(TrainingError, match=r"holds a run already; resume it \(--resume\) or choose another directory"):
        Trainer(config, tmp_path, say=silent)
    said: list[str] = []
    Trainer(config, tmp_path / "new", resume=True, say=said.append)
    assert said[0].startswith("nothing to resume in")


def test_a_checkpoint_of_another_recipe_is_refused(ground: Path, tmp_path: Path) -> None:
    config = small_runs.recipe(ground, held_out="", save_every=1)
    Trainer(small_runs.one_stage(config, steps=1), tmp_path, say=silent).train()
    with pytest.raises(
        TrainingError, match=r"step 1 does not fit this recipe \(\d+ missing, first 'decoder.layers.0.att"
    ):
        Trainer(config, tmp_path, resume=True, say=silent).train()
    other = small_runs.one_stage(replace(config, model=replace(config.model, patch_width=8)), steps=2)
    with pytest.raises(TrainingError, match=r"\d+ of another shape, first 'vision"):
        Trainer(other, tmp_path, resume=True, say=silent).train()
    fewer = small_runs.one_stage(config, steps=2, pack_tokens=200)
    with pytest.raises(TrainingError, match=r"another stream \(limits: saved .*resume with the saved settings"):
        Trainer(fewer, tmp_path, resume=True, say=silent).train()


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path) -> None:
    for step in (1, 2):
        write_checkpoint(tmp_path, step, {"w": torch.full((3,), float(step))}, {}, {"step": step})
    newest = tmp_path / "step-00000002" / state.MODEL
    newest.write_bytes(newest.read_bytes()[:-5])
    saved = read_checkpoint(tmp_path)
    assert saved is not None
    assert saved[2] == {"step": 1}
    (tmp_path / "step-00000001" / state.STATE).write_text("{")
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* can be read \(step-00000002: .*; step-00000001: "):
        read_checkpoint(tmp_path)


def test_a_sample_without_a_trained_token_is_refused_by_name(ground: Path, tmp_path: Path) -> None:
    """A record that ends with a question has nothing to learn from."""
    small_runs.corpus(tmp_path / "data")
    path = tmp_path / "data" / "colours.jsonl"
    lines = path.read_text().splitlines()
    record = json.loads(lines[2])
    lines[2] = json.dumps({**record, "conversations": record["conversations"][:1]})
    path.write_text("\n".join(lines) + "\n")
    config = small_runs.recipe(ground, data=str(tmp_path / "data"), held_out="")
    with pytest.raises(VedereError, match=r"colours.jsonl:3: sample 'colours#2': "):
        Trainer(config, tmp_path / "run", say=silent).train()
    skipping = replace(config, on_error="skip", held_out="heldout.json")  # the same file: measuring skips it too
    Trainer(skipping, tmp_path / "skipping", say=silent).train()
    measured = [line["held_out"]["colours"] for line in small_runs.numbers(tmp_path / "skipping") if "held_out" in line]
    assert {each["samples"] for each in measured} == {config.eval_samples - 1}


def test_a_pack_without_any_target_is_refused(ground: Path, tmp_path: Path) -> None:
    trainer = Trainer(small_runs.recipe(ground), tmp_path, say=silent)
    document = documents_of(trainer)[0]
    silenced = replace(document, labels=document.labels * 0 - 100)
    with pytest.raises(TrainingError, match=r"without any trained token \(samples colours#0\)"):
        batch_of(trainer.config, [silenced], trainer.model, trainer.config.stages[0])


def test_a_missing_picture_is_named(ground: Path, tmp_path: Path) -> None:
    small_runs.corpus(tmp_path / "data")
    (tmp_path / "data" / "red.png").unlink()
    config = small_runs.recipe(ground, data=str(tmp_path / "data"), held_out="")
    with pytest.raises(RecordError, match=r"jsonl:\d+: sample '.*': .*red.png"):
        Trainer(config, tmp_path / "run", say=silent).train()


def test_positions_restart_in_every_document_and_follow_the_stage(ground: Path, tmp_path: Path) -> None:
    trainer = Trainer(small_runs.recipe(ground), tmp_path, say=silent)
    stage = trainer.config.stages[0]
    pack = collate(documents_of(trainer))
    borders = pack.segments.tolist()
    plain = pack_positions(pack, stage, random.Random(0))
    assert plain.tolist() == [place for a, b in itertools.pairwise(borders) for place in range(b - a)]
    fixed = replace(stage, position_mode="v2pe_fix")
    assert torch.equal(pack_positions(pack, fixed, random.Random(0)), plain.float())  # a step of 1 is no compression
    halved = pack_positions(pack, replace(fixed, v2pe_delta=0.5), random.Random(0))
    for start, end in itertools.pairwise(borders):
        alone = [span for span in pack.spans if start <= span.start < end]
        saved = sum(span.length // 2 for span in alone)
        assert halved[start] == 0
        assert halved[end - 1] == end - start - 1 - saved
    drawn = replace(stage, position_mode="v2pe_rnd")
    assert torch.equal(pack_positions(pack, drawn, random.Random(5)), pack_positions(pack, drawn, random.Random(5)))
    assert not torch.equal(pack_positions(pack, drawn, random.Random(5)), pack_positions(pack, drawn, random.Random(6)))


def test_loss_is_the_weighted_mean_over_the_step(ground: Path, tmp_path: Path) -> None:
    """The logged loss of the first step, from the packs that the loader hands out, with plain torch."""
    from vedere.data.mixture import seed_of

    config = small_runs.one_stage(small_runs.recipe(ground, held_out=""), steps=1)
    stage = config.stages[0]
    trainer = Trainer(config, tmp_path, say=silent)
    limits = PackLimits(tokens=stage.pack_tokens, tiles=stage.pack_tiles)
    parts = open_meta(Path(config.data) / "meta.json")
    loader = Loader(
        LoaderConfig(seed=seed_of(0, "one"), limits=limits), parts, preparer(config, stage, trainer.tokenizer)
    )
    losses, tokens = [], 0
    for loaded in loader:
        batch = make_batch(loaded.pack, stage, trainer.model, random.Random(0))
        with torch.no_grad():
            hidden = trainer.model(batch.ids, batch.positions, batch.borders, batch.span_types, batch.pixels)
            logits = trainer.model.decoder.logits(hidden[batch.rows])
        losses.append(torch.nn.functional.cross_entropy(logits, batch.targets, reduction="none"))
        tokens += len(batch.ids)
        if tokens >= stage.tokens_per_step:
            break
    trainer.train()
    assert small_runs.numbers(tmp_path)[0]["loss"] == pytest.approx(float(torch.cat(losses).mean()), rel=1e-5)
