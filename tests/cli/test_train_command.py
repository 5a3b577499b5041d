"""``vedere train``: options over recipes, resuming, Ctrl-C from outside, what is printed where."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import small_runs
from vedere import recipes
from vedere.cli import main, train
from vedere.recipes import get_recipe

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ground")
    small_runs.language_model(root / "lm")
    small_runs.corpus(root / "data")
    return root


@pytest.fixture(autouse=True)
def small(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe named ``small``, without TensorBoard and curves."""
    from vedere.train import loop

    monkeypatch.setitem(recipes.RECIPES, "small", lambda: small_runs.recipe(place))
    monkeypatch.setattr(loop, "matmul_limit", lambda *_: 1e9)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # type: ignore[arg-type]


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    status = main(["train", *argv])
    out, err = capsys.readouterr()
    return status, out, err


def test_a_run_and_what_it_prints(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out_dir = tmp_path / "run"
    status, out, err = run(capsys, "small", "--out", str(out_dir), "--json", "--pages", "3")
    assert status == 0
    assert out.count("\n") == 1
    result = json.loads(out)
    assert (result["step"], result["steps"], result["stage"]) == (9, 9, "two")
    assert not result["interrupted"]
    assert result["checkpoint"] == str(out_dir / "checkpoints" / "step-00000009")
    assert result["loss"] == small_runs.numbers(out_dir)[-2]["loss"]
    assert result["held_out"]["colours"]["samples"] == 4
    assert "step 9/9  two  loss" in err
    assert "MFU" in err
    assert "0:00:00 left" in err
    pages = sorted(path.name for path in (out_dir / "samples").iterdir())
    assert pages == [f"step-{step:06d}.html" for step in (2, 4, 5, 7, 9)]
    assert (out_dir / "samples" / pages[0]).read_text().count("<figure>") == 3


def test_dotted_options_reach_the_config(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    options = ["--stages.0.optim.lr", "1e-4", "--stages.1.steps", "1", "--stages.0.steps", "1", "--held_out", ""]
    status, out, err = run(capsys, "small", *options, "--model.patch-width", "8", "--out", str(tmp_path), "--seed=3")
    assert status == 0
    assert out == ""
    kept = json.loads((tmp_path / "config.json").read_text())
    assert kept["stages"][0]["optim"]["lr"] == 1e-4
    assert kept["stages"][1]["optim"]["lr"] == 1e-2
    assert kept["model"]["patch_width"] == 8
    assert kept["seed"] == 3
    assert [line["step"] for line in small_runs.numbers(tmp_path)] == [1, 2]
    assert f"done; results in {tmp_path}" in err


def test_resuming_keeps_the_options_of_the_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    options = ("--stages.0.steps", "1", "--stages.1.steps", "2", "--stages.0.optim.lr", "1e-4", "--held-out", "")
    assert run(capsys, "small", *options, "--out", str(tmp_path))[0] == 0
    status, _, err = run(capsys, "small", "--out", str(tmp_path))
    assert status == 2
    assert "holds a run already; resume it (--resume)" in err
    status, out, err = run(capsys, "small", "--out", str(tmp_path), "--resume", "--stages.1.steps", "4", "--json")
    assert status == 0
    assert "resuming after step 3 in stage two" in err
    assert json.loads(out)["step"] == 5
    kept = json.loads((tmp_path / "config.json").read_text())
    assert [stage["steps"] for stage in kept["stages"]] == [1, 4]
    assert kept["stages"][0]["optim"]["lr"] == 1e-4
    status, _, err = run(capsys, "mono-mini", "--out", str(tmp_path), "--resume")
    assert status == 2
    assert "holds a run of recipe 'small', not 'mono-mini'; resume it by that name" in err


def test_the_second_ctrl_c_says_what_is_lost(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: Any, values: dict[str, Any]) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(train.Progress, "step", interrupt)
    status, out, err = run(capsys, "small", "--out", str(tmp_path), "--json")
    assert status == 130
    assert json.loads(out)["interrupted"]
    assert f"since the last checkpoint are lost; go on with: vedere train small --out {tmp_path} --resume" in err


CHILD = """
import sys
import small_runs
from pathlib import Path
from vedere import recipes
from vedere.cli import main
small_runs.bare()
recipes.RECIPES["small"] = lambda: small_runs.recipe(Path(sys.argv[1]))
sys.exit(main(["train", "small", *sys.argv[2:]]))
"""


def test_ctrl_c_from_outside_saves_and_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], place: Path, tmp_path: Path
) -> None:
    """A real process, interrupted as soon as it reports its first step."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(TESTS)])}
    long = ("--stages.0.steps", "4000", "--stages.1.steps", "1", "--eval-every", "0", "--save-every", "100000")
    command = [sys.executable, "-c", CHILD, str(place), *long, "--out", str(tmp_path), "--json"]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if line.startswith("step 1/"):
                process.send_signal(signal.SIGINT)
                break
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    result = json.loads(out)
    assert result["interrupted"]
    step = result["step"]
    assert 1 <= step < 4000
    assert "stopping after this step (once more to stop at once)" in err
    assert (
        f"stopped after step {step}, everything is saved; go on with: vedere train small --out {tmp_path} --resume"
        in err
    )
    assert result["checkpoint"].endswith(f"step-{step:08d}")
    status, out, _ = run(
        capsys, "small", "--out", str(tmp_path), "--resume", "--stages.0.steps", str(step + 1), "--json"
    )
    assert status == 0
    assert json.loads(out)["step"] == step + 2
    steps = [line["step"] for line in small_runs.numbers(tmp_path) if "loss" in line]
    assert steps == list(range(1, step + 3))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("mono-mimi",), "unknown recipe 'mono-mimi'; did you mean 'mono-mini'? (recipes: "),
        (("--data", "x"), "the recipe comes first: vedere train RECIPE --data ..."),
        (("small", "--data", "/nowhere", "--out", "OUT"), "the meta file cannot be read"),
        (("small", "--stages.0.trains", "vision.*", "visoin.*", "--out", "OUT"), "'visoin.*' matches no parameter"),
        (("small", "--on-error", "ignore", "--out", "OUT"), "on_error 'ignore'; expected raise or skip"),
    ],
)
def test_messages(capsys: pytest.CaptureFixture[str], tmp_path: Path, argv: tuple[str, ...], message: str) -> None:
    arguments = [str(tmp_path / "run") if argument == "OUT" else argument for argument in argv]
    status, out, err = run(capsys, *arguments)
    assert status == 2
    assert message in err
    assert out == ""


@pytest.mark.parametrize(
    ("argv", "nearest"),
    [
        (("--stages.0.optim.lt", "3"), "--stages.0.optim.lr"),
        (("--precison", "bf16"), "--precision"),
        (("--model.tyle", "3"), "--model.tile"),
    ],
)
def test_unknown_keys_name_the_nearest(capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], nearest: str) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["train", "small", *argv])
    assert raised.value.code == 2
    assert nearest in capsys.readouterr().err


def test_help_lists_recipes_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--help")
    assert status == 0
    assert "mono-mini" in out
    assert run(capsys)[0] == 2
    with pytest.raises(SystemExit) as raised:
        main(["train", "mono-mini", "--help"])
    assert raised.value.code == 0
    text = capsys.readouterr().out
    for option in ("--stages.3.optim.lr", "--model.tile", "--out", "--resume", "--held-out"):
        assert option in text


def test_the_default_directory_is_named_by_the_recipe() -> None:
    place, config = train.parse("mono-mini", ["--precision", "fp32"], get_recipe("mono-mini"))
    assert place.out == Path("runs/mono-mini")
    assert config.precision == "fp32"
    assert not place.resume


def test_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train.sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "160")
    values = {"step": 7, "stage": "two", "loss": 1.5, "tokens_per_second": 1234.5, "mfu": 0.42, "seconds": 2.0}
    with train.progress_of(10) as progress:
        assert isinstance(progress, train.Bar)
        progress.say("[bold]said")
        progress.step(values)
    err = capsys.readouterr().err
    assert "[bold]said" in err
    assert "7/10" in err
    assert "two  loss 1.500  1,234 tokens/s  MFU 42%  0:00:06 left" in err
