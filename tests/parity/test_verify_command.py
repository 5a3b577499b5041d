"""`vedere verify`: what it prints and how it exits."""

import json
import math

import pytest
import torch

from vedere.cli.verify import main
from vedere.verify.check import Check, difference
from vedere.verify.kinds import KINDS, recognise


def test_a_good_folder_prints_a_line_a_tensor_and_exits_with_0(golden, capsys) -> None:
    assert main([str(golden / "mono-internvl")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("mono-internvl: Mono-InternVL")
    (logits,) = [line for line in lines if " logits " in line]
    assert logits.startswith("pass")
    assert "[1, 30, 512]" in logits
    assert "max abs error" in logits
    assert "tolerance 1.0e-04" in logits
    assert lines[-2].startswith("inputs, not compared: ")
    assert "pixel_values" in lines[-2]
    assert lines[-1] == "9 of 9 pass, 0 fail"


def test_a_wrong_folder_exits_with_1_and_a_tolerance_decides(damaged, capsys) -> None:
    copy = damaged("loss-reweighting")
    copy.tensors(lambda stored: stored["l0.token.loss"].mul_(1.001) is None)
    assert main([str(copy.directory)]) == 1
    lines = capsys.readouterr().out.splitlines()
    (failed,) = [line for line in lines if line.startswith("FAIL")]
    assert "l0.token.loss" in failed
    assert "max rel error" in failed
    assert lines[-1].endswith("1 fail")
    assert main([str(copy.directory), "--tolerance", "1e-2"]) == 0
    assert main([str(copy.directory), "--tolerance", "0"]) == 1


def test_json_is_one_object(golden, damaged, capsys) -> None:
    assert main([str(golden / "loss-reweighting"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] is True
    assert report["kind"] == "loss re-weighting"
    assert len(report["checks"]) == 40
    assert {"name", "shape", "measure", "error", "tolerance", "passed", "note"} == report["checks"][0].keys()
    assert "l0.logits" in report["inputs"]
    copy = damaged("loss-reweighting")
    copy.tensors(lambda stored: stored["l0.token.loss"].fill_(torch.nan) is None)
    assert main([str(copy.directory), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert [(c["name"], c["error"]) for c in report["checks"] if not c["passed"]] == [("l0.token.loss", None)]


def test_a_folder_of_no_known_kind_exits_with_2_and_says_what_there_is(tmp_path, capsys) -> None:
    (tmp_path / "notes.txt").write_text("nothing recorded")
    assert main([str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert not captured.out
    assert "found: notes.txt" in captured.err
    for kind in KINDS:
        assert (kind.name in captured.err) == (kind.checks is not None)
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "no folder" in capsys.readouterr().err
    assert main([str(tmp_path), "--json"]) == 2
    assert "no recording that is known here" in json.loads(capsys.readouterr().out)["error"]["message"]


def test_a_bad_tolerance_is_refused(golden, capsys) -> None:
    for given in ("nan", "-1"):
        assert main([str(golden / "loss-reweighting"), f"--tolerance={given}"]) == 2
        assert "expected a number >= 0" in capsys.readouterr().err


def test_damaged_files_exit_with_2(damaged, capsys) -> None:
    copy = damaged("loss-reweighting")
    path = copy.directory / "io.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert main([str(copy.directory)]) == 2
    assert "is cut off" in capsys.readouterr().err


def test_missing_weights_exit_with_2(damaged, capsys) -> None:
    copy = damaged("mono-internvl")
    copy.tensors(lambda stored: stored.pop("mlp1.0.bias"), "model.safetensors")
    assert main([str(copy.directory)]) == 2
    assert "mlp1.0.bias" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "text"),
    [("dialogues.json", '{"templates": {"phi3-chat": {}}}'), ("index.json", "{}"), ("images.json", "[1]")],
)
def test_tables_that_are_laid_out_otherwise_exit_with_2(golden, tmp_path, capsys, file, text) -> None:
    (tmp_path / file).write_text(text)
    (tmp_path / "io.safetensors").write_bytes((golden / "loss-reweighting" / "io.safetensors").read_bytes())
    code = main([str(tmp_path)])
    captured = capsys.readouterr()
    assert code == 2, captured.out
    assert file.split(".")[0] in captured.err or "is not laid out like one" in captured.err


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("mono-internvl", "Mono-InternVL"),
        ("v2pe", "V2PE"),
        ("preprocessing", "preprocessing"),
        ("internvl-hf", "native InternVL"),
    ],
)
def test_kinds_are_recognised_by_files_and_keys(golden, name, kind) -> None:
    assert recognise(golden / name).name == kind


def test_differences_are_measured_in_float64() -> None:
    ones = torch.ones(3)
    assert difference(ones * (1 + 1e-6), ones, "relative") == pytest.approx(1e-6, rel=0.1)
    assert difference(ones, ones + torch.tensor([0, 0, 0.5]), "absolute") == 0.5
    assert difference(torch.tensor([1, 2**40 + 1]), torch.tensor([1, 2**40]), "mismatches") == 1
    assert math.isnan(difference(torch.tensor([1.0, torch.nan]), torch.ones(2), "absolute"))
    assert difference(torch.full((2,), torch.nan), torch.full((2,), torch.nan), "mismatches") == 2
    assert difference(torch.zeros(0, 3), torch.zeros(0, 3), "absolute") == 0


def test_nan_and_infinity_do_not_pass() -> None:
    for error in (math.nan, math.inf):
        assert not Check(name="x", measure="absolute", error=error, tolerance=1e9).passed
    assert Check(name="x", measure="absolute", error=1e-4, tolerance=1e-4).passed
