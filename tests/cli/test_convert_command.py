"""A run becomes a delta, a whole model, and back."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import small_runs
from vedere.cli import main
from vedere.infer.session import load
from vedere.models.checkpoints import load_model
from vedere.train.export import load_run
from vedere.train.loop import Trainer


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("run")
    config = small_runs.recipe(root)
    small_runs.corpus(root / "data")
    small_runs.language_model(root / "lm")
    Trainer(config, root / "run", say=lambda _: None).train()
    return root / "run"


def test_a_whole_model_is_the_trained_one(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(run), str(tmp_path), "--dtype", "fp32", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layout"] == "vedere"
    trained = load_run(run, lambda _: None).model.state_dict()
    for name, tensor in load_model(tmp_path).state_dict().items():
        assert torch.equal(tensor, trained[name]), name


@pytest.mark.parametrize("layout", ["vedere", "original"])
def test_what_comes_out_answers(run: Path, tmp_path: Path, layout: str) -> None:
    """Template, tiling and tokenizer go along, from a run and from a folder of a model."""
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["convert", str(run), str(first), "--layout", layout, "--dtype", "fp32"]) == 0
    assert main(["convert", str(first), str(second), "--layout", layout, "--dtype", "fp32"]) == 0
    replies = [load(folder).chat("What colour is it?", max_new_tokens=4) for folder in (first, second)]
    assert replies[0].logprobs == replies[1].logprobs


def test_a_checkpoint_of_another_model_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    config = json.loads((copy / "config.json").read_text())
    config["model"]["patch_width"] *= 2
    (copy / "config.json").write_text(json.dumps(config))
    assert main(["convert", str(copy), str(tmp_path / "out")]) == 2
    assert (
        "7 tensors of the newest checkpoint do not fit the model of config.json, first 'projector.fc1.weight'"
        in capsys.readouterr().err
    )


def test_a_delta_is_near_the_trained_model_and_leaves_the_language_model(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["convert", str(run), str(tmp_path), "--layout", "delta", "--bits", "8", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["bytes"] == (tmp_path / "delta.safetensors").stat().st_size
    assert 0 < said["worst_relative_error"] < 0.1
    source = load_run(run, lambda _: None)
    loaded = load_model(tmp_path, torch.float32, language_model=source.language_model).state_dict()
    for name, tensor in source.model.state_dict().items():
        if ".visual." not in name and name.startswith("decoder."):
            assert torch.equal(loaded[name], tensor), name
        else:
            torch.testing.assert_close(loaded[name], tensor, atol=2e-2, rtol=2e-2)
    assert load(tmp_path).chat("What colour is it?", max_new_tokens=2).answer_tokens > 0  # it says where its model is


def test_a_model_folder_has_no_delta(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(run), str(tmp_path / "whole")]) == 0
    assert main(["convert", str(tmp_path / "whole"), str(tmp_path / "delta"), "--layout", "delta"]) == 2
    assert "is no run directory" in capsys.readouterr().err


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "checkpoints").mkdir()
    assert main(["convert", str(tmp_path), str(tmp_path / "out")]) == 2
    assert "no config.json" in capsys.readouterr().err
