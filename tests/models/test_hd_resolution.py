"""The resolution experiment: its pages, its tiny run, and that the stored figures are those the page names."""

from __future__ import annotations

import json
import re
from pathlib import Path

from benchmark_runs import json_of

ROOT = Path(__file__).parents[2]


def test_it_runs_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    places = ("--work", tmp_path / "work", "--figure", tmp_path / "figure.png")
    first, again = (json_of("hd_resolution", "--quick", "--seeds", 1, *places) for _ in range(2))
    assert first["mean"].keys() == {"1", "4", "9", "16"}
    assert all(row.keys() == {"1", "4", "9", "16"} for row in first["mean"].values())
    assert first["seeds"] == again["seeds"]
    assert len(list((tmp_path / "work").glob("*.safetensors"))) == 5
    assert (tmp_path / "figure.png").stat().st_size > 5000


def test_the_page_names_the_stored_figures() -> None:
    stored = json.loads((ROOT / "benchmarks" / "results" / "hd_resolution.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "xcomposer2-4khd.md").read_text(encoding="utf-8")
    for trained, row in stored["mean"].items():
        line = re.search(rf"^\| trained at HD-{trained} \|(.*)\|$", page, re.MULTILINE)
        assert line is not None
        named = [cell.strip(" *") for cell in line[1].split("|")]
        assert named == [f"{100 * row[limit]:.1f}" for limit in ("1", "4", "9", "16")]
