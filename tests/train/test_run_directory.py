"""What a run writes before its first step: config, provenance, plan; and what it refuses then."""

from __future__ import annotations

import errno
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import small_runs
from vedere import atomic
from vedere.errors import CheckpointError, ConfigError, RecordError, TrainingError
from vedere.models.checkpoints import read_config
from vedere.train import loop, provenance
from vedere.train.export import export_delta, load_run, session_extras
from vedere.train.loop import Trainer
from vedere.train.run import ModelSource, RunConfig
from vedere.train.stages import StageConfig

pytestmark = pytest.mark.usefixtures("quick")


def silent(text: str) -> None:
    pass


def test_the_plan_of_each_stage_is_written_before_it_begins(ground: Path, tmp_path: Path) -> None:
    trainer = Trainer(small_runs.recipe(ground), tmp_path, say=silent)
    (start,) = json.loads((tmp_path / "run.json").read_text())["starts"]
    plan = start["plan"]
    assert start["records"] == {"meta.json": {"colours": 12, "twice": 13}, "heldout.json": {"colours": 12}}
    assert list(plan) == ["one", "two"]
    sizes = {name: parameter.numel() for name, parameter in trainer.model.named_parameters()}
    visual = sum(size for name, size in sizes.items() if name.startswith(("vision.", "projector.")))
    experts = sum(size for name, size in sizes.items() if ".ffn.visual." in name)
    assert plan["one"]["learning"] == visual + experts < plan["two"]["learning"]
    for stage, made in zip(trainer.config.stages, plan.values(), strict=True):
        assert made["tokens"] == stage.steps * stage.tokens_per_step
        assert made["weights_bytes"] == 4 * sum(sizes.values())
        parts = (made[f"{part}_bytes"] for part in ("weights", "optimizer", "activations"))
        assert made["total_bytes"] == sum(parts) > made["weights_bytes"]


def test_a_pattern_of_a_late_stage_is_checked_before_the_first(ground: Path, tmp_path: Path) -> None:
    config = small_runs.recipe(ground)
    wrong = replace(config.stages[1], trains=("projektor.*",))
    with pytest.raises(ConfigError, match=r"'projektor\.\*' matches no parameter"):
        Trainer(replace(config, stages=(config.stages[0], wrong)), tmp_path, say=silent)


def test_a_full_disk_keeps_the_config_that_a_resume_needs(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_runs.recipe(ground)
    Trainer(config, tmp_path, say=silent)
    before = {name: (tmp_path / name).read_bytes() for name in ("config.json", "run.json")}

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(
        CheckpointError, match=r"config.json: No space left on device .*what was there before is untouched"
    ):
        Trainer(replace(config, seed=1), tmp_path, resume=True, say=silent)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_directory_that_cannot_be_made_is_refused(ground: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match=r"file/run cannot be the directory of a run \(Not a directory\); choose"):
        Trainer(small_runs.recipe(ground), tmp_path / "file" / "run", say=silent)


def test_a_device_that_is_not_there_is_refused(ground: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown device 'gpu'.* \(expected auto, cpu, cuda\)"):
        Trainer(small_runs.recipe(ground, device="gpu"), tmp_path, say=silent)
    with pytest.raises(ConfigError, match=r"'cuda:99' was asked for, but torch .* sees \d+ GPUs here; choose cpu"):
        Trainer(small_runs.recipe(ground, device="cuda:99"), tmp_path, say=silent)


def test_the_limit_of_mfu_is_that_of_the_decoders_own_shape(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, int]] = []

    def measured(device: Any, dtype: Any, width: int, hidden: int) -> float:
        shapes.append((width, hidden))
        return 1e9

    monkeypatch.setattr(loop, "matmul_limit", measured)
    trainer = Trainer(small_runs.one_stage(small_runs.recipe(ground, held_out=""), steps=1), tmp_path, say=silent)
    trainer.train()
    layer = trainer.model.decoder.layers[0].ffn.text.gate_up
    assert shapes == [(layer.in_features, layer.out_features)]


def test_the_commit_is_that_of_vederes_own_checkout_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package installed inside another repository must not take that one's commit for its own."""

    def place(*parts: str) -> str:
        module = tmp_path.joinpath(*parts, "train", "provenance.py")
        module.parent.mkdir(parents=True)
        module.touch()
        monkeypatch.setattr(provenance, "__file__", str(module))
        return provenance.git_commit()

    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false")
    for command in (("init", "--quiet"), (*identity, "commit", "--quiet", "--allow-empty", "-m", "one")):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    assert place("venv", "site-packages", "vedere") == ""
    assert len(place("src", "vedere")) >= 12


def test_fractional_positions_need_a_model_made_for_them() -> None:
    stage = StageConfig(name="v", data="x", position_mode="v2pe_rnd")
    with pytest.raises(ConfigError, match=r"stage 'v' has fractional positions.*set model\.v2pe=true"):
        RunConfig(recipe="r", data="d", stages=(stage,))
    assert RunConfig(recipe="r", data="d", stages=(stage,), model=ModelSource(v2pe=True)).model.v2pe


def test_a_model_trained_with_fractional_positions_answers_with_them(tmp_path: Path) -> None:
    small_runs.corpus(tmp_path / "data")
    small_runs.language_model(tmp_path / "lm")
    config = small_runs.recipe(tmp_path)
    stage = replace(config.stages[0], steps=1, position_mode="v2pe_fix", v2pe_delta=0.25)
    config = replace(config, stages=(stage,), model=replace(config.model, v2pe=True), held_out="")
    Trainer(config, tmp_path / "run", say=lambda _: None).train()
    trained = load_run(tmp_path / "run", lambda _: None)
    assert trained.model.config.decoder.v2pe
    assert session_extras(trained)["rope_pos_id_stride"] == 64


def test_an_export_names_all_runs_that_its_weights_went_through(tmp_path: Path) -> None:
    small_runs.corpus(tmp_path / "data")
    small_runs.language_model(tmp_path / "lm")
    config = small_runs.one_stage(small_runs.recipe(tmp_path, held_out=""), steps=1)
    parts, start = [], ""
    for number, name in enumerate(("first", "second", "third"), start=1):
        again = replace(config, recipe=name, model=replace(config.model, start=start), seed=number)
        again = small_runs.one_stage(again, steps=number)
        Trainer(again, tmp_path / name, say=lambda _: None).train()
        trained = load_run(tmp_path / name, lambda _: None)
        parts.append({"recipe": name, "steps": number, "tokens": trained.tokens})
        start = str(tmp_path / f"{name}-delta")
        export_delta(trained, start)
        said = read_config(start).extras["trained"]
        tokens = sum(part["tokens"] for part in parts)
        assert said == {"recipe": name, "steps": sum(range(number + 1)), "tokens": tokens, "parts": parts}


def test_an_export_on_a_delta_of_before_parts_counts_it_as_one(tmp_path: Path) -> None:
    small_runs.corpus(tmp_path / "data")
    small_runs.language_model(tmp_path / "lm")
    config = small_runs.one_stage(small_runs.recipe(tmp_path, held_out=""), steps=1)
    Trainer(config, tmp_path / "run", say=lambda _: None).train()
    trained = load_run(tmp_path / "run", lambda _: None)
    export_delta(trained, tmp_path / "delta")
    file = tmp_path / "delta" / "config.json"
    data = json.loads(file.read_text())
    data["extras"]["trained"] = {"recipe": "old", "steps": 5, "tokens": 50}
    file.write_text(json.dumps(data))
    again = replace(trained, config=replace(config, model=replace(config.model, start=str(tmp_path / "delta"))))
    assert session_extras(again)["trained"]["parts"][0] == {"recipe": "old", "steps": 5, "tokens": 50}
    assert session_extras(again)["trained"]["steps"] == 6
    del data["extras"]["trained"]  # a release says nothing of the kind
    file.write_text(json.dumps(data))
    assert len(session_extras(again)["trained"]["parts"]) == 1


@pytest.mark.parametrize("change", [{"held_out": "none.json"}, {"stage": "later.json"}])
def test_data_of_later_stages_is_looked_for_before_the_first_step(
    ground: Path, tmp_path: Path, change: dict[str, str]
) -> None:
    config = small_runs.recipe(ground)
    if "stage" in change:
        config = replace(config, stages=(config.stages[0], replace(config.stages[1], data=change["stage"])))
    else:
        config = replace(config, held_out=change["held_out"])
    with pytest.raises(RecordError, match=r"(none|later)\.json: the meta file cannot be read"):
        Trainer(config, tmp_path / "run", say=silent)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read"), ("\n", "no records"), ("[1]\n", "is a JSON array"), ("x", "leaves none")],
)
def test_annotations_of_later_stages_are_opened_before_the_first_step(
    ground: Path, tmp_path: Path, content: str | None, message: str
) -> None:
    annotation = tmp_path / "late.jsonl"
    if content is not None:
        annotation.write_text(content)
    (tmp_path / "late.json").write_text(json.dumps({"a": {"annotation": "late.jsonl", "repeat_time": 0.5}}))
    config = small_runs.recipe(ground)
    late = replace(config.stages[1], data=str(tmp_path / "late.json"))
    with pytest.raises((RecordError, ConfigError), match=message):
        Trainer(replace(config, stages=(config.stages[0], late)), tmp_path / "run", say=silent)
    assert not (tmp_path / "run").exists()


def test_every_start_of_a_run_is_kept(ground: Path, tmp_path: Path) -> None:
    config = small_runs.one_stage(small_runs.recipe(ground, held_out=""), steps=2)

    def starts(**options: Any) -> list[dict[str, Any]]:
        trainer = Trainer(config, tmp_path, say=silent, **options)
        found: list[dict[str, Any]] = json.loads((tmp_path / "run.json").read_text())["starts"]
        if not options:
            trainer.train()
        return found

    (first,) = starts()
    assert starts(resume=True)[0] == first
    assert [start["after_step"] for start in starts(resume=True)] == [0, 2, 2]
    (tmp_path / "run.json").write_text(json.dumps(first))  # as it was written before starts were kept
    assert starts(resume=True)[0] == first
    for damaged in ("{", "[]", '{"starts": [1]}', '{"starts": {"a": 1}}', "3"):
        (tmp_path / "run.json").write_text(damaged)
        with pytest.raises(CheckpointError, match=r"run\.json does not hold the starts of a run; move it away"):
            starts(resume=True)
        assert (tmp_path / "run.json").read_text() == damaged
