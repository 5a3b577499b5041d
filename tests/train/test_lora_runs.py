"""LoRA that a run attaches: it alone moves, resumes bit for bit, leaves as a folder, and comes back in one call."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import small_runs
import tiny_xcomposer
import tiny_xcomposer2
from vedere.cli import main, train
from vedere.cli.convert import convert
from vedere.errors import CheckpointError, ConfigError
from vedere.infer.session import load
from vedere.models.adapters import LoRA, attach, load_adapter, merge_lora
from vedere.models.checkpoints import load_model
from vedere.models.low_rank import LoRALinear
from vedere.recipes import get_recipe
from vedere.train.export import load_run
from vedere.train.flops import training_flops
from vedere.train.loop import Interrupted, Trainer
from vedere.train.run import RunConfig, build_model
from vedere.train.stages import EVERYTHING, LORA
from vedere.train.state import MODEL, checkpoint_steps

TARGETS = {"attention.wqkv", "attention.wo", "feed_forward.w1", "feed_forward.w2", "feed_forward.w3"}


def silent(text: str) -> None:
    pass


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vedere.train.loop.matmul_limit", lambda *_: 1e9)
        for name in ("torch.utils.tensorboard", "matplotlib"):
            patch.setitem(__import__("sys").modules, name, None)  # type: ignore[arg-type]
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lora")
    tiny_xcomposer2.folder(root / "start", vocab_size=600)
    small_runs.corpus(root / "data" / "finetune")
    return root


def config_of(root: Path, **changes: Any) -> RunConfig:
    """The recipe made small; what it trains, and how, stays as it is."""
    given = {"data": root / "data", "workers": 0, "model.start": root / "start", "model.tile": 56, "save-every": 2}
    given |= {
        "stages.0.steps": 4,
        "stages.0.samples-per-step": 3,
        "stages.0.pack-tokens": 700,
        "stages.0.optim.lr": 0.02,
    }
    given |= {"model.lora.rank": 4, "model.lora.alpha": 8, "precision": "fp32"} | changes
    argv = [word for key, value in given.items() for word in (f"--{key}", *str(value).split())]
    return train.parse("xcomposer2-4khd-lora", argv, get_recipe("xcomposer2-4khd-lora"))[1]


@pytest.fixture(scope="module")
def run(root: Path, quick: None) -> Path:
    Trainer(config_of(root), root / "run", say=silent).train()
    return root / "run"


def weights(run: Path) -> dict[str, Tensor]:
    newest = checkpoint_steps(run / "checkpoints")[-1]
    return load_file(run / "checkpoints" / f"step-{newest:08d}" / MODEL)


def test_the_released_scripts_values() -> None:
    config = get_recipe("xcomposer2-4khd-lora")
    (stage,) = config.stages
    lora = config.model.lora
    assert (lora.rank, lora.alpha, lora.dropout, set(lora.targets)) == (64, 64, 0.05, TARGETS)
    assert (stage.trains, stage.max_tiles, stage.samples_per_step) == (LORA, 16, 8)
    optim = stage.optim
    assert (optim.lr, optim.warmup, optim.weight_decay, optim.beta2, optim.schedule) == (
        5e-5,
        0.01,
        0.1,
        0.95,
        "cosine",
    )


def test_the_adapter_alone_moves_and_is_all_that_is_saved(root: Path, run: Path) -> None:
    begun = build_model(config_of(root).model, 0, silent)[0].state_dict()
    saved = weights(run)
    assert set(saved) == {name for name in begun if ".low.lora_" in name}
    assert all(not torch.equal(saved[name], begun[name]) for name in saved)
    trained = load_run(run, silent).model.state_dict()
    base = load_model(root / "start", torch.float32).state_dict()
    assert all(torch.equal(trained[name], tensor) for name, tensor in base.items())
    partial = [name for name in base if ".partial." in name]
    assert partial  # stands beside, frozen
    losses = [line["loss"] for line in small_runs.numbers(run) if "loss" in line]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("when", [1, 3])
def test_a_run_resumes_bit_for_bit_with_dropout(root: Path, run: Path, tmp_path: Path, when: int) -> None:
    assert config_of(root).model.lora.dropout == 0.05

    def interrupt(values: dict[str, Any]) -> None:
        if values["step"] == when:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        Trainer(config_of(root), tmp_path, say=silent, progress=interrupt).train()
    assert checkpoint_steps(tmp_path / "checkpoints")[-1] == when
    Trainer(config_of(root), tmp_path, resume=True, say=silent).train()
    assert small_runs.numbers(tmp_path) == small_runs.numbers(run)
    kept, found = weights(run), weights(tmp_path)
    assert kept.keys() == found.keys()
    assert all(torch.equal(kept[name], found[name]) for name in kept)


def test_without_dropout_it_is_another_run(root: Path, run: Path, tmp_path: Path) -> None:
    Trainer(config_of(root, **{"model.lora.dropout": 0.0}), tmp_path, say=silent).train()
    assert small_runs.numbers(tmp_path) != small_runs.numbers(run)


def test_the_folder_loads_with_one_call(root: Path, run: Path, tmp_path: Path) -> None:
    assert main(["convert", str(run), str(tmp_path / "adapter"), "--layout", "adapter"]) == 0
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 4, 8)
    assert set(config["target_modules"]) == TARGETS
    assert config["base_model_name_or_path"] == str(root / "start")
    trained = load_run(run, silent).model
    model = load_model(root / "start", torch.float32)
    load_adapter(model, tmp_path / "adapter")
    own = trained.state_dict()
    assert own.keys() == model.state_dict().keys()
    assert all(torch.equal(own[name], tensor) for name, tensor in model.state_dict().items())

    assert main(["convert", str(root / "start"), str(tmp_path / "own"), "--dtype", "fp32"]) == 0
    (mapped,) = (tmp_path / "own").glob("*.safetensors")
    before = hashlib.sha256(mapped.read_bytes()).hexdigest()
    session = load(tmp_path / "own", device="cpu", hd_num=4, adapter=tmp_path / "adapter")
    plain = load(tmp_path / "own", device="cpu", hd_num=4)
    assert not any(isinstance(module, LoRALinear) for module in session.model.modules())
    merged = merge_lora(trained).state_dict()
    found = session.model.state_dict()
    assert all(torch.equal(merged[name], found[name]) for name in merged)
    assert any(not torch.equal(tensor, found[name]) for name, tensor in plain.model.state_dict().items())
    assert hashlib.sha256(mapped.read_bytes()).hexdigest() == before
    picture = root / "data" / "finetune" / "red.png"
    whole = tmp_path / "whole"
    assert main(["convert", str(run), str(whole), "--dtype", "fp32"]) == 0  # merged
    replies = [
        one.chat("What colour is it?", [picture], max_new_tokens=4)
        for one in (session, load(whole, device="cpu", hd_num=4), plain)
    ]
    assert replies[0].text == replies[1].text
    assert replies[0].logprobs == replies[1].logprobs
    assert replies[0].logprobs != replies[2].logprobs


def test_targets_are_patterns() -> None:
    model = tiny_xcomposer2.model(tiny_xcomposer2.shape())
    names = attach(model, LoRA(rank=2, alpha=2, targets=("*.layers.1.attention.*", "feed_forward.w[13]")))
    leaves = sorted(".".join(name.split(".")[-3:]) for name in names)
    assert leaves == sorted(
        ["1.attention.wqkv", "1.attention.wo", *(f"{layer}.feed_forward.w{k}" for layer in (0, 1) for k in (1, 3))]
    )
    with pytest.raises(ConfigError, match=r"no linear map is called w\[45\]; the model's are attention\.wo"):
        attach(tiny_xcomposer2.model(tiny_xcomposer2.shape()), LoRA(rank=2, targets=("w[45]",)))


def test_the_work_of_the_adapter_is_counted(root: Path) -> None:
    config = config_of(root)
    model, _ = build_model(config.model, 0, silent)
    bare, _ = build_model(replace(config.model, lora=LoRA(rank=0)), 0, silent)
    for one in (model, bare):
        one.requires_grad_(False)
    factors = sum(tensor.numel() for name, tensor in model.named_parameters() if ".low.lora_" in name)
    more = training_flops(model.decoder, [0, 10], 4, 3) - training_flops(bare.decoder, [0, 10], 4, 3)
    assert more == 10 * factors * 4  # forward, and the gradient of what goes in


def test_what_does_not_fit_is_refused(root: Path, run: Path, tmp_path: Path) -> None:
    config = config_of(root)
    with pytest.raises(
        ConfigError, match=r"model\.lora\.rank is 4, but no stage trains the LoRA; set a stage's trains to dec"
    ):
        Trainer(small_runs.one_stage(config, trains=("projector.*",)), tmp_path / "a", say=silent)
    with pytest.raises(ConfigError, match=r"pattern 'decoder\.layers\.\*\.low\.\*' matches no parameter"):
        Trainer(replace(config, model=replace(config.model, lora=LoRA(rank=0))), tmp_path / "b", say=silent)
    with pytest.raises(ConfigError, match=r"rank -1, alpha 64\.0, dropout 0\.0: expected a rank >= 1"):
        build_model(replace(config.model, lora=LoRA(rank=-1)), 0, silent)
    with pytest.raises(
        CheckpointError, match=r"LoRA, which changes the language model, so a delta cannot hold it; save the"
    ):
        convert(run, tmp_path / "out", layout="delta")
    with pytest.raises(ConfigError, match=r"is no run directory; an adapter is made from a run"):
        convert(root / "start", tmp_path / "out", layout="adapter")
    with pytest.raises(
        CheckpointError, match=r"adapter_config\.json cannot be read .*; expected a folder of an adapter"
    ):
        load(root / "start", device="cpu", adapter=tmp_path / "nothing")


def test_an_adapter_is_refused_where_it_is_not_all(root: Path, run: Path, tmp_path: Path) -> None:
    for number, (changes, message) in enumerate(
        [
            ({"trains": EVERYTHING}, r"the run trained \d+ other tensors, first '.*', which an adapter does not hold"),
            ({}, r"the run has no LoRA \(model\.lora\.rank is 0\)"),
        ]
    ):
        config = small_runs.one_stage(config_of(root), steps=1, **changes)
        if not changes:
            config = small_runs.one_stage(config, trains=("projector.*",))
            config = replace(config, model=replace(config.model, lora=LoRA(rank=0)))
        Trainer(config, tmp_path / str(number), say=silent).train()
        with pytest.raises(CheckpointError, match=message):
            convert(tmp_path / str(number), tmp_path / "out", layout="adapter")


def test_the_first_xcomposers_script_stands_around_the_releases_own(root: Path, tmp_path: Path) -> None:
    """The release's LoRA is merged, the new one alone moves, and its folder goes onto the release as it lies on the hub."""
    recipe = get_recipe("xcomposer-lora")
    lora, optim = recipe.model.lora, recipe.stages[0].optim
    assert (lora.rank, lora.alpha, lora.dropout, len(lora.targets), optim.lr) == (64, 64, 0.05, 7, 5e-5)
    start = tiny_xcomposer.folder(tmp_path / "start")
    given = {"data": root / "data", "workers": 0, "model.start": start, "model.tile": 56, "model.patch-width": 48}
    given |= {"model.tower.sampled": tiny_xcomposer.TOKENS, "model.lora.rank": 4, "model.lora.alpha": 8}
    given |= {
        "stages.0.steps": 3,
        "stages.0.samples-per-step": 3,
        "stages.0.pack-tokens": 700,
        "stages.0.optim.lr": 0.02,
    }
    argv = [word for key, value in (given | {"precision": "fp32"}).items() for word in (f"--{key}", str(value))]
    config = train.parse("xcomposer-lora", argv, recipe)[1]
    begun = merge_lora(load_model(start, torch.float32)).state_dict()
    Trainer(config, tmp_path / "run", say=silent).train()
    assert all(".low.lora_" in name for name in weights(tmp_path / "run"))
    trained = load_run(tmp_path / "run", silent).model.state_dict()
    assert all(torch.equal(trained[name], tensor) for name, tensor in begun.items())
    convert(tmp_path / "run", tmp_path / "adapter", layout="adapter")
    convert(tmp_path / "run", tmp_path / "whole", dtype="fp32")
    picture = root / "data" / "finetune" / "red.png"
    asked = {"max_new_tokens": 4}
    plain = load(start, device="cpu").chat("What colour is it?", [picture], **asked)
    around = load(start, device="cpu", adapter=tmp_path / "adapter").chat("What colour is it?", [picture], **asked)
    whole = load(tmp_path / "whole", device="cpu").chat("What colour is it?", [picture], **asked)
    assert around.text == whole.text
    assert around.logprobs == pytest.approx(whole.logprobs, abs=1e-4)
    assert around.logprobs != pytest.approx(plain.logprobs, abs=1e-4)
