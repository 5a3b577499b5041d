"""Metrics files, curves and pages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vedere.errors import TrainingError
from vedere.train.monitor import Metrics, Shown, draw_curves, read_metrics, sample_page


def line(step: int, **more: Any) -> dict[str, Any]:
    return {"step": step, "stage": "one" if step < 3 else "two", "loss": 1 / step, "tokens": 100 * step, **more}


def test_a_resumed_run_drops_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, tensorboard=False)
    for step in (1, 2, 3, 4):
        metrics.write(line(step))
    metrics.close()
    with metrics.path.open("a") as file:
        file.write('{"step": 5, "lo')  # cut by a kill
    assert [entry["step"] for entry in read_metrics(metrics.path)] == [1, 2, 3, 4]
    again = Metrics(tmp_path, 2, tensorboard=False)
    again.write(line(3, second=True))
    assert [(entry["step"], "second" in entry) for entry in read_metrics(again.path)] == [
        (1, False),
        (2, False),
        (3, True),
    ]
    Metrics(tmp_path, 0, tensorboard=False)
    assert read_metrics(again.path) == []


def test_numbers_reach_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    metrics = Metrics(tmp_path)
    metrics.write(line(1))
    metrics.write(line(2))
    metrics.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 1.0), (2, 0.5)]
    assert set(events.Tags()["scalars"]) == {"loss", "tokens"}


def test_a_disk_that_cannot_be_written_stops_with_a_message(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, tensorboard=False)
    metrics.path.unlink()
    metrics.path.mkdir()
    with pytest.raises(TrainingError, match=r"cannot write .*metrics.jsonl: .*free space, then --resume"):
        metrics.write(line(1))


def test_curves_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    held = {"step": 2, "tokens": 200, "held_out": {"colours": {"loss": 1.0, "exact": 0.5, "samples": 4}}}
    later = {"step": 4, "tokens": 400, "held_out": {"shapes": {"loss": 1.0, "exact": 0.25, "samples": 4}}}
    draw_curves([line(1), line(2), held, line(3), line(4), later], tmp_path / "curve.png", "small")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_pages_show_text_as_text(tmp_path: Path) -> None:
    rows = [
        Shown(image=b"\x89PNG...", prompt="<script>alert(1)</script>", answer="A & B", target="a & b ", note="<i>"),
        Shown(image=b"\xff\xd8...", prompt="What?", answer="no", target="yes"),
        Shown(image=None, prompt="Hello", answer="Hi"),
    ]
    sample_page(rows, tmp_path / "page.html", "run <1>")
    page = (tmp_path / "page.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<title>run &lt;1&gt;</title>" in page
    assert page.count("<figure>") == 3
    assert page.count('class="good"') == 1
    assert page.count('class="bad"') == 1
    assert "data:image/png;base64," in page
    assert "data:image/jpeg;base64," in page
    assert json.dumps("expected: yes").strip('"') in page


@pytest.mark.parametrize("held_out", [None, {}, {"colours": {"loss": 1.0, "exact": 0.5, "samples": 4}}])
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_curves_of_few_steps_are_drawn_without_a_warning(
    tmp_path: Path, steps: int, held_out: dict[str, Any] | None, recwarn: pytest.WarningsRecorder
) -> None:
    pytest.importorskip("matplotlib")
    lines = [line(step, stage="S1.1" if step == 1 else "a stage of a long name, " * 8) for step in range(1, steps + 1)]
    lines += [] if held_out is None else [{"step": steps, "tokens": 100 * steps, "held_out": held_out}]
    draw_curves(lines, tmp_path / "curve.png", "small")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert [str(warning.message) for warning in recwarn] == []
