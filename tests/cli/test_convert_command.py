"""A run becomes a delta, a whole model, and back."""

import json
from pathlib import Path

import pytest
import torch

import small_runs
from vedere.cli import main
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


def test_a_delta_is_near_the_trained_model_and_leaves_the_language_model(run: Path, tmp_path: Path) -> None:
    assert main(["convert", str(run), str(tmp_path), "--layout", "delta", "--bits", "8"]) == 0
    source = load_run(run, lambda _: None)
    loaded = load_model(tmp_path, torch.float32, language_model=source.language_model).state_dict()
    for name, tensor in source.model.state_dict().items():
        if ".visual." not in name and name.startswith("decoder."):
            assert torch.equal(loaded[name], tensor), name
        else:
            torch.testing.assert_close(loaded[name], tensor, atol=2e-2, rtol=2e-2)


def test_a_model_folder_has_no_delta(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(run), str(tmp_path / "whole")]) == 0
    assert main(["convert", str(tmp_path / "whole"), str(tmp_path / "delta"), "--layout", "delta"]) == 2
    assert "is no run directory" in capsys.readouterr().err


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "checkpoints").mkdir()
    assert main(["convert", str(tmp_path), str(tmp_path / "out")]) == 2
    assert "no config.json" in capsys.readouterr().err
