"""Recorded outcomes score to their published figures: the cases kept here, and all shared ones where they are at hand."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from vedere.evals.benchmarks import score_file

ROOT = Path(__file__).parents[2]
KEPT = Path(__file__).parent / "cases"
SHARED = ROOT.parent / "shared" / "scoring"
FOLDERS = sorted(path for root in (KEPT, SHARED) if root.is_dir() for path in root.iterdir() if path.is_dir())


def _tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("score_cases", ROOT / "tools" / "score_cases.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOL = _tool()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_every_figure_is_the_expected_one(folder):
    expected = json.loads((folder / "expected.json").read_text("utf-8"))
    rows = folder / "cases.jsonl"
    scores = score_file(TOOL.benchmark_of(folder.name), rows if rows.is_file() else folder / "expected.json")
    assert TOOL.leaves(expected) > 1
    assert not list(TOOL.differences(expected, scores.figures))
    assert scores.counts["repeated_rows_left_out"] == 0


def test_the_cases_kept_here_are_found():
    assert sum(path.parent == KEPT for path in FOLDERS) == 7


def test_the_comparison_sees_a_figure_that_is_off():
    assert not list(TOOL.differences({"a": 67.6, "b": [1]}, {"a": 67.64, "b": [1]}))
    assert list(TOOL.differences({"a": 67.6}, {"a": 67.66}))
    assert list(TOOL.differences({"a": {"b": 1}}, {"a": {}}))
    assert list(TOOL.differences({"b": [1, 2]}, {"b": [1]}))
    assert list(TOOL.differences({"n": 10}, {"n": 11}))
    assert list(TOOL.differences({"acc": "48.70"}, {"acc": 48.71}))
