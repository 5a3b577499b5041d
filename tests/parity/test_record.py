"""`vedere verify --record`: recordings pass on their model and on conversions, and name what a changed weight changes."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny_internvl
import tiny_models
import tiny_xcomposer
import tiny_xcomposer2
from vedere.cli.convert import main as convert
from vedere.cli.verify import main
from vedere.errors import CheckpointError, ConfigError
from vedere.models.checkpoints import save_model
from vedere.verify.record import record
from vedere.verify.run import verify

# XComposer2-7B (224 px: 16 x 16 patches), -VL-7B and -VL-1.8B (490 px: 35 x 35, an odd number), and 4KHD, in small
SECOND = {"xcomposer2": ("square", 56), "xcomposer2-vl": ("square", 70), "xcomposer2-4khd": ("hd", 56)}


def make(kind: str, path: Path) -> Path:
    """A tiny model folder."""
    if kind == "original":
        return tiny_internvl.folder(path, kind)
    if kind == "hf":
        assert convert([str(make("original", path.parent / "source")), str(path), "--layout", "hf"]) == 0
        return path
    if kind == "v2pe":
        return tiny_internvl.folder(path, "vedere", v2pe=True)
    if kind == "xcomposer":
        return tiny_xcomposer.folder(path)
    if kind in SECOND:
        views, tile = SECOND[kind]
        model = tiny_xcomposer2.model(tiny_xcomposer2.shape(views, tile=tile))
        save_model(model, path, layout="original")
        return path
    model = tiny_models.tiny_model()
    save_model(model if kind == "mono" else model.decoder, path)
    return path


def failed(report) -> list[str]:
    return [check.name for check in report.checks if not check.passed]


@pytest.mark.parametrize("kind", ["original", "hf", "v2pe", "mono", "decoder", "xcomposer", *SECOND])
def test_a_recording_passes_and_a_changed_weight_does_not(tmp_path, kind) -> None:
    folder, out = make(kind, tmp_path / "model"), tmp_path / "recording"
    names = set(record(folder, out))
    report = verify(out)
    assert failed(report) == []
    assert report.kind == "vedere's own"
    assert (
        {check.name for check in report.checks} | set(report.inputs) == names == set(load_file(out / "io.safetensors"))
    )
    assert not (out / "model.safetensors").exists()
    (weights,) = folder.glob("model.safetensors")
    stored = load_file(weights)
    name = next(
        key
        for key in stored
        if "layers.1." in key and key.endswith(("wo.weight", "o_proj.weight", "out.weight")) and "vision" not in key
    )
    stored[name][0, 0] += 0.5
    save_file(stored, weights, metadata={"format": "pt"})
    end = ".d16" if kind == "v2pe" else ""
    wrong = failed(verify(out))
    assert f"hidden_state_2{end}" in wrong  # what layer 1 gives
    assert f"logits{end}" in wrong
    assert not {f"hidden_state_1{end}", "projected_features"} & set(wrong)


def test_a_converted_checkpoint_passes_and_a_moved_recording_asks_for_its_model(tmp_path, capsys) -> None:
    folder, out = make("original", tmp_path / "model"), tmp_path / "recording"
    assert main([str(out), "--record", "--model", str(folder)]) == 0
    assert convert([str(folder), str(tmp_path / "native"), "--layout", "hf"]) == 0
    assert main([str(out), "--model", str(tmp_path / "native")]) == 0
    assert main([str(out), "--model", str(tmp_path / "native"), "--dtype", "bf16"]) == 0
    shutil.rmtree(folder)
    capsys.readouterr()
    assert main([str(out)]) == 2
    assert "which is not here; give the model: --model FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize(("views", "tile"), SECOND.values(), ids=list(SECOND))
def test_released_shards_of_xcomposer2_are_recorded_and_their_conversion_passes(tmp_path, views, tile, capsys) -> None:
    """Two ``.bin`` shards of mixed dtypes; the tower of the siblings is that of 4KHD, their picture one square."""
    released, out, own = tiny_xcomposer2.folder(tmp_path / "hub", views, tile), tmp_path / "rec", tmp_path / "own"
    assert main([str(out), "--record", "--model", str(released), "--dtype", "fp32"]) == 0
    stored = load_file(out / "io.safetensors")
    side = tile // 14
    if views == "hd":  # sides merged by two; global view, separator, then views in a row with one end a row
        side //= 2
        taken = sum(side * (side + 1) + 1 + side * (side * columns + 1) for columns in (2, 1))
    else:
        taken = 3 * side**2
    assert int(stored["attention_mask"][0].sum()) == 18 + taken
    assert ("span_types" in stored) == (views == "hd")
    assert len(stored["pixel_values"]) == (7 if views == "hd" else 4)
    assert convert([str(released), str(own), "--layout", "vedere", "--dtype", "fp32"]) == 0
    capsys.readouterr()
    assert main([str(out), "--model", str(own), "--dtype", "fp32", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passed"]


def test_weights_travel_with_a_recording_that_was_asked_to(tmp_path) -> None:
    folder, out = make("mono", tmp_path / "model"), tmp_path / "recording"
    record(folder, out, dtype=torch.bfloat16, with_weights=True)
    shutil.rmtree(folder)
    moved = out.rename(tmp_path / "moved")
    assert failed(verify(moved)) == []
    assert "bfloat16" in (moved / "README.md").read_text()
    assert json.loads((moved / "recording.json").read_text())["model"] == "."


def test_nothing_recorded_passes_unseen(tmp_path) -> None:
    folder, out = make("mono", tmp_path / "model"), tmp_path / "recording"
    record(folder, out)
    stored = load_file(out / "io.safetensors")
    for name in [
        key
        for key, tensor in stored.items()
        if key not in ("input_ids", "attention_mask", "labels", "pixel_values", "margins")
    ]:
        changed = dict(stored)
        changed[name] = changed[name].clone()
        changed[name].view(-1)[0] += 1
        save_file(changed, out / "io.safetensors")
        assert failed(verify(out)) == [name]
    save_file(
        {key: tensor for key, tensor in stored.items() if key != "loss"} | {"more": torch.ones(1)},
        out / "io.safetensors",
    )
    assert failed(verify(out)) == ["loss", "more"]


def test_what_does_not_fit_is_refused(tmp_path, golden, capsys) -> None:
    folder = make("mono", tmp_path / "model")
    with pytest.raises(CheckpointError, match="holds something else than a recording"):
        record(folder, folder)
    assert main([str(tmp_path / "x"), "--record"]) == 2
    assert "--record needs --model" in capsys.readouterr().err
    assert main([str(tmp_path / "x"), "--dtype", "bf61"]) == 2
    assert "unknown dtype 'bf61'; did you mean 'bf16'?" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="recorded in float32 and verified so on the CPU"):
        verify(golden / "mono-internvl", dtype=torch.bfloat16)
    with pytest.raises(ConfigError, match="which has no model to replace by"):
        verify(golden / "loss-reweighting", model=folder)


def test_a_recorded_folder_of_the_original_verifies_a_conversion(golden, tmp_path) -> None:
    assert convert([str(golden / "internvl-qwen2"), str(tmp_path / "own"), "--layout", "vedere"]) == 0
    assert verify(golden / "internvl-qwen2", model=tmp_path / "own").passed
