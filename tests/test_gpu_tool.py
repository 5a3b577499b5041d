"""The command for GPU measurements, on a CPU at tiny sizes: equality holds, results are kept, and time is a limit."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_benchmarks", ROOT / "tools" / "gpu_benchmarks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _path_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(
    ("part", "names", "compared"),
    [
        ("training", ["3 documents"], ["padded", "packed", "explicit", "prefix"]),
        ("packing", ["short", "mixed"], ["explicit", "sdpa", "flex"]),
        ("first_token", ["24 tokens", "40 tokens"], ["Mono-InternVL-2B", "InternVL2-2B"]),
    ],
)
def test_a_part_measures_everything(
    tool: ModuleType, tmp_path: Path, part: str, names: list[str], compared: list[str]
) -> None:
    assert tool.run_part(part, tmp_path, 600, "cpu", tiny=True) == 0
    facts = json.loads((tmp_path / f"{part}.json").read_text())
    assert facts["complete"] is True
    assert facts["left_out"] == []
    assert list(facts["results"]) == names
    assert facts["machine"]["torch"].startswith(torch.__version__.split("+")[0])
    for result in facts["results"].values():
        raw = result["runs"] if part == "first_token" else result["seconds"]
        assert list(raw) == compared
        assert all(len(times) > 0 for times in raw.values())


def test_a_part_begins_nothing_after_its_time(tool: ModuleType, tmp_path: Path) -> None:
    assert tool.run_part("packing", tmp_path, -1, "cpu", tiny=True) == 1
    facts = json.loads((tmp_path / "packing.json").read_text())
    assert facts["left_out"] == ["short", "mixed"]
    assert facts["results"] == {}
    assert facts["complete"] is False


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_a_backend_that_computes_something_else_is_an_error_and_no_time(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vedere.models import attention

    right = attention.explicit_attention
    monkeypatch.setattr(attention, "explicit_attention", lambda q, k, v, bias: right(q, k, v, bias * 0))
    assert tool.run_part("packing", tmp_path, 600, "cpu", tiny=True) == 1
    facts = json.loads((tmp_path / "packing.json").read_text())
    assert "computes something else" in facts["error"]
    assert facts["results"] == {}


def test_a_part_that_fails_or_hangs_costs_the_others_nothing(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = []

    def run(command: list[str], timeout: float, check: bool) -> object:
        tried.append((command[command.index("--part") + 1], timeout, "--tiny" in command))
        if len(tried) == 1:
            raise tool.subprocess.TimeoutExpired(command, timeout)
        return tool.subprocess.CompletedProcess(command, len(tried) % 2)

    monkeypatch.setattr(tool.subprocess, "run", run)
    (tmp_path / "packing.json").write_text("of an earlier run")
    assert tool.main([str(tmp_path), "--minutes", "3", "--tiny"]) == 1
    assert [name for name, _, _ in tried] == ["training", "packing", "first_token"]
    assert all(tiny for _, _, tiny in tried)
    assert tried[0][1] == pytest.approx(60 + tool.GRACE, abs=1)
    assert tried[1][1] == pytest.approx(90 + tool.GRACE, abs=1)  # what the first left is shared again
    assert "not complete: training, first_token" in capsys.readouterr().out
    assert not (tmp_path / "packing.json").exists()
