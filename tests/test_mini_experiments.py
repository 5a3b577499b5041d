"""The experiments on vedere-mini's recipe, each at a size of seconds."""

from __future__ import annotations

import fnmatch
import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import small_runs
from vedere.errors import ConfigError
from vedere.train.run import RunConfig, build_model
from vedere.train.stages import VISUAL_ATTENTION, VISUAL_PARTS, set_trainable

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NAMES = ("S1.1-concept", "S1.2-semantic", "S1.3-alignment", "S2-instruction")


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr("vedere.train.loop.matmul_limit", lambda *_: 1e9)
    monkeypatch.setattr("vedere.train.loop.draw_curves", lambda *_: None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    module = importlib.import_module("mini_experiments")
    monkeypatch.setattr(importlib.import_module("experiment_figures"), "FIGURES", tmp_path / "docs")
    monkeypatch.setattr(importlib.import_module("harness"), "RESULTS", tmp_path / "results")
    return module


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ground")
    small_runs.language_model(root / "lm")
    small_runs.corpus(root / "data")
    return root


def base(ground: Path, **model: Any) -> RunConfig:
    config = small_runs.recipe(ground)
    visual = VISUAL_PARTS + VISUAL_ATTENTION
    stages = tuple(
        replace(config.stages[0], name=name, steps=steps, trains=visual if number > 1 else VISUAL_PARTS)
        for number, (name, steps) in enumerate(zip(NAMES, (4, 3, 2, 9), strict=True))
    )
    return replace(config, stages=stages, model=replace(config.model, **model))


def run(tool: ModuleType, ground: Path, tmp_path: Path, name: str, *more: str, **model: Any) -> dict[str, Any]:
    argv = [name, "--data", str(ground / "data"), "--minutes", "5", "--samples", "4", "--out", str(tmp_path / "runs")]
    tool.main([*argv, "--steps", "4", *more], base(ground, **model))
    stored: dict[str, Any] = json.loads((tmp_path / "results" / f"mini_{name}.json").read_text())
    assert (tmp_path / "docs" / f"mini-{name}.png").stat().st_size > 5000
    return stored


def test_delta_tuning_keeps_the_text_bit_by_bit_and_full_tuning_does_not(
    tool: ModuleType, ground: Path, tmp_path: Path
) -> None:
    found = run(tool, ground, tmp_path, "text", "--windows", "2")
    bare, delta, full = (found["text"][name] for name in ("bare", "delta", "full"))
    assert delta["bit_identical"] is True
    assert full["bit_identical"] is False
    assert delta["perplexity"] == bare["perplexity"] != full["perplexity"]
    assert delta["answers"] == bare["answers"]
    assert list(bare["answers"]) == list(tool.QUESTIONS)
    assert len({facts["samples"] for facts in found["variants"].values()}) == 1
    # Text embedding, head and FFN open in the paper's last stage, so its text changes too.
    assert found["text"]["paper"]["bit_identical"] is False
    gently, paper = (found["text"][name] for name in ("paper, text gently", "paper"))
    assert gently["perplexity"] != paper["perplexity"]
    assert abs(gently["perplexity"] / bare["perplexity"] - 1) < abs(paper["perplexity"] / bare["perplexity"] - 1)


def test_the_papers_stages_open_attention_then_everything(tool: ModuleType, ground: Path) -> None:
    variants = tool.text_variants(base(ground), 18)
    paper, gently = variants["paper"], variants["paper, text gently"]
    assert paper.model.visual_attention is False
    opened = []
    for stage in paper.stages:
        model, _ = build_model(paper.model, paper.seed, lambda _: None)
        set_trainable(model, stage.trains)
        opened.append({name for name, weight in model.named_parameters() if weight.requires_grad})
    assert opened[0] == opened[1] < opened[2] < opened[3]
    added = opened[2] - opened[1]
    assert added
    assert all(".attention." in name for name in added)
    assert any("embed" in name for name in opened[3] - opened[2])
    rates = gently.stages[-1].optim.lr_scale
    first = {
        name: next((factor for pattern, factor in rates if fnmatch.fnmatchcase(name, pattern)), 1.0)
        for name in opened[3]
    }
    assert {first[name] for name in added} == {0.1}
    assert {factor for name, factor in first.items() if ".ffn.visual." in name} == {1.0}


def test_each_stage_is_left_out_at_equal_steps(tool: ModuleType, ground: Path, tmp_path: Path) -> None:
    found = run(tool, ground, tmp_path, "stages")
    assert list(found["variants"]) == ["all stages", "without S1.1", "without S1.2", "without S1.3"]
    assert {facts["steps"] for facts in found["variants"].values()} == {4}
    assert found["unfinished"] == []
    lines = (tmp_path / "runs" / "stages" / "without-S1-2" / "metrics.jsonl").read_text()
    assert "S1.1-concept" in lines
    assert "S1.2-semantic" not in lines
    losses = {facts["mean_loss"] for facts in found["variants"].values()}
    assert len(losses) == 4


def test_resolutions_change_the_tokens_of_a_picture(tool: ModuleType, ground: Path, tmp_path: Path) -> None:
    found = run(tool, ground, tmp_path, "resolution", "--sides", "14", "28", "42")
    assert [facts["picture_tokens"] for facts in found["variants"].values()] == [1, 4, 9]
    config = base(ground)
    shares = [variant.stages[0].tokens_per_step for variant in tool.resolution_variants(config, 4, (14, 28)).values()]
    assert shares[0] < shares[1] == config.stages[0].tokens_per_step


def test_helps_are_switched_on_and_off(
    tool: ModuleType, ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vedere.train.run.load_stem", lambda *_: None)  # the published weights would be fetched
    chosen = {name: tool.HELP[name] for name in ("nothing", "reader", "lite0 and names", "lite0, reader, transcript")}
    monkeypatch.setattr(tool, "HELP", chosen)
    found = run(tool, ground, tmp_path, "help", tile=64, patch=16)
    assert list(found["variants"]) == list(chosen)
    configs = {
        n: json.loads((tmp_path / "runs" / "help" / n / "config.json").read_text()) for n in ("nothing", "reader")
    }
    assert configs["nothing"]["model"]["stem"] == []
    assert configs["reader"]["model"]["stem"] == ["reader"]
    assert len({facts["samples"] for facts in found["variants"].values()}) == 1


def test_a_variant_that_ran_out_of_time_goes_on_and_ends_the_same(
    tool: ModuleType, ground: Path, tmp_path: Path
) -> None:
    config = replace(base(ground), eval_every=0, keep=1)
    variants = tool.stage_variants(config, 6)
    said: list[str] = []
    place, tries = tmp_path / "cut", 0
    finished: dict[str, Path] = {}
    while len(finished) < len(variants):
        finished = tool.train_all(variants, place, 1e-9 if tries < 2 else 5.0, said.append)
        assert len(finished) <= max(0, tries - 1) * len(variants)
        tries += 1
    assert tries == 3
    assert any("no time left" in line for line in said)
    before = (place / "all-stages" / "metrics.jsonl").read_bytes()
    assert tool.train_all(variants, place, 5.0, said.append) == finished  # nothing is trained again
    assert (place / "all-stages" / "metrics.jsonl").read_bytes() == before
    whole = tool.train_all(variants, tmp_path / "whole", 5.0, said.append)
    for name, folder in whole.items():
        assert small_runs.numbers(folder) == small_runs.numbers(finished[name])
    with pytest.raises(ConfigError, match="holds a run with other settings"):
        tool.train_all(tool.stage_variants(config, 7), place, 5.0, said.append)


def test_steps_are_shared_in_proportion(tool: ModuleType, ground: Path) -> None:
    config = base(ground)
    for steps in (4, 5, 18, 180, 1001):
        lengths = [stage.steps for stage in tool.at_steps(config, steps).stages]
        assert sum(lengths) == steps
        assert min(lengths) >= 1
    assert [stage.steps for stage in tool.at_steps(config, 1800).stages] == pytest.approx([400, 300, 200, 900], abs=4)
    with pytest.raises(ConfigError, match="--steps 3 for 4 stages"):
        tool.at_steps(config, 3)


def metrics(path: Path, points: dict[int, tuple[float, float]]) -> Path:
    """A run with a step of 100 samples each, and held-out figures after some of them."""
    lines: list[dict[str, Any]] = []
    for step in range(1, max(points) + 1):
        lines.append({"step": step, "loss": 1.0, "samples": 100, "tokens": 1000 * step})
        if step in points:
            exact, loss = points[step]
            held = {"scenes": {"exact": exact, "loss": loss, "samples": 200}}
            lines.append({"step": step, "tokens": 1000 * step, "held_out": held})
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path.parent


def test_skills_over_samples_join_runs_and_are_extrapolated(tool: ModuleType, tmp_path: Path) -> None:
    def truth(n: float) -> tuple[float, float]:
        return 1 / (1 + np.exp(-(-6.0 + 1.5 * np.log10(n)))), 0.5 + 8.0 * n**-0.3

    first = metrics(tmp_path / "one" / "metrics.jsonl", {step: truth(100 * step) for step in (5, 10, 20)})
    second = metrics(tmp_path / "two" / "metrics.jsonl", {step: truth(2000 + 100 * step) for step in (10, 40, 80)})
    tool.main(["samples", "--runs", str(first), str(second / "metrics.jsonl")])
    stored = json.loads((tmp_path / "results" / "mini_samples.json").read_text())
    assert [weights["weights"] for weights in stored["shipped"]] == ["second", "third", "fourth"]
    assert all(0 < weights["exact"]["scenes"] < 1 for weights in stored["shipped"])
    found = stored["kinds"]["scenes"]
    assert found["points"]["samples"] == [500, 1000, 2000, 3000, 6000, 10000]
    assert found["points"]["tokens"][-1] == 100_000
    assert found["exact"]["parameters"]["b"]["value"] == pytest.approx(1.5, abs=0.01)
    assert found["loss"]["parameters"]["alpha"]["value"] == pytest.approx(0.3, abs=0.03)
    curve = found["exact"]["curve"]
    assert curve["samples"][-1] == pytest.approx(100_000)
    assert curve["value"][-1] == pytest.approx(truth(100_000)[0], abs=0.01)
    assert (tmp_path / "docs" / "mini-samples.png").is_file()
    with pytest.raises(ConfigError, match="holds no metrics"):
        tool.main(["samples", "--runs", str(tmp_path)])


def test_the_last_stage_is_measured_on_its_way(tool: ModuleType, ground: Path, tmp_path: Path) -> None:
    found = run(tool, ground, tmp_path, "samples", "--no-names")
    assert found["unfinished"] == []
    (points,) = [facts["points"] for facts in found["kinds"].values()]
    assert len(points["samples"]) == 4
    assert points["samples"] == sorted(set(points["samples"]))
    kept = json.loads((tmp_path / "runs" / "samples" / "curve" / "config.json").read_text())
    assert [stage["name"] for stage in kept["stages"]] == ["S2-instruction"]
    assert kept["stages"][0]["optim"]["schedule"] == "constant"
    assert kept["model"]["names"] is False
    with pytest.raises(ConfigError, match="with --data, or reads finished runs with --runs"):
        tool.main(["samples"], base(ground))


def test_samples_for_a_goal_follow_the_line_and_its_noise(tool: ModuleType) -> None:
    curves = importlib.import_module("curve_fits")
    n = [1_000.0, 10_000.0, 100_000.0]
    shares = [1 / (1 + np.exp(-(-6.0 + 1.2 * np.log10(x)))) for x in n]  # 0.5 at 100,000
    found = curves.samples_for(0.6, n, shares, [20_000] * 3)
    truth = 10 ** ((np.log(1.5) + 6.0) / 1.2)
    assert found["samples"][0] == pytest.approx(truth, rel=0.1)
    assert found["samples"][1] < truth < found["samples"][2]
    assert found["never"] == 0
    few = curves.samples_for(0.6, n, shares, [60] * 3)
    assert few["samples"][1] < found["samples"][1]
    flat = curves.samples_for(0.6, n, [0.5, 0.4, 0.3], [1_000] * 3)
    assert flat == {"goal": 0.6, "samples": [None] * 3, "never": 1.0}


def test_noise_widens_the_band_and_few_points_are_no_fit(tool: ModuleType) -> None:
    fit = importlib.import_module("curve_fits").fit
    n = np.geomspace(100, 10_000, 8)
    p = 1 / (1 + np.exp(-(-5.0 + 1.4 * np.log10(n))))
    noise = np.random.default_rng(1).normal(0, 0.04, len(n))
    widths = []
    for scale in (0.1, 1.0):
        found = fit(n, np.clip(p + scale * noise, 0.01, 0.99), [200] * len(n))
        low, high = found["parameters"]["b"]["interval"]
        assert low <= found["parameters"]["b"]["value"] <= high
        widths.append(found["curve"]["high"][-1] - found["curve"]["low"][-1])
    assert widths[0] < widths[1]
    assert fit([1, 2, 3], [0.1, 0.2, 0.3], [9] * 3)["reason"] == "3 points; at least 4 are needed"
