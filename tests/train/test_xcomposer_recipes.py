"""The XComposer line's recipes: the papers' values, and each recipe from start to end at a size of seconds."""

from __future__ import annotations

import dataclasses
import json
import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import small_internlm2
import small_runs
import tiny_xcomposer
import tiny_xcomposer2
from vedere.cli import main, train
from vedere.cli.plan import in_bytes, in_millions
from vedere.errors import CheckpointError, ConfigError
from vedere.infer.session import load
from vedere.models.checkpoints import key_map, load_model, read_config
from vedere.models.low_rank import LowRank
from vedere.models.releases import RELEASES
from vedere.models.xcomposer2 import XComposer2
from vedere.plan import HDPolicy
from vedere.recipes import get_recipe
from vedere.recipes.xcomposer import SOURCES
from vedere.train.loop import Interrupted, Trainer
from vedere.train.optim import Optimizer
from vedere.train.provenance import plan
from vedere.train.run import ModelSource, RunConfig, build_model
from vedere.train.stages import layer_decay, set_trainable
from vedere.train.state import MODEL, checkpoint_steps
from vedere.train.xcomposer2 import resized_positions

PIECES = 600  # enough reserved ones that the turn markers, numbers 145 and 146, are among them
TILE, TOWER_TILE = 28, 56  # of the run; of CLIP's files, whose position table is shrunk
UNUSED = ("layers.1.attention.partial.out", "layers.1.ffn.partial")  # of rows that predict nothing: image positions
STAGES = ("pretrain", "sft", "finetune", "multitask", "instruction", "heldout")


def silent(text: str) -> None:
    pass


def clip(folder: Path) -> Path:
    """CLIP as transformers writes it: the tower, its unused final norm, and a text half that nobody wants."""
    model = tiny_xcomposer2.model(tiny_xcomposer2.shape())
    foreign = key_map(model.config, "original").to_foreign(model.state_dict())
    tensors = {n.removeprefix("vit.vision_tower."): t for n, t in foreign.items() if n.startswith("vit.")}
    tensors |= {
        "vision_model.post_layernorm.weight": torch.ones(32),
        "text_model.final_layer_norm.weight": torch.ones(8),
    }
    folder.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("xcomposer")
    small_internlm2.write(root / "lm", rope_scaling="none", vocab_size=PIECES)
    clip(root / "clip")
    for name in STAGES:
        small_runs.corpus(root / "data" / name, text_only=False)
        entries = {part: {"root": ".", "annotation": "colours.jsonl"} for part in ("colours", "docvqa-train")}
        entries["twice"] = {"root": ".", "annotation": "twice.jsonl"}
        (root / "data" / name / "meta.json").write_text(json.dumps(entries))
    return root


@pytest.fixture(scope="module", autouse=True)
def quick(root: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VEDERE_CACHE", str(root / "cache"))
        small_runs.bare(patch)
        yield


def config_of(root: Path, name: str, *more: str, **model: Any) -> RunConfig:
    """A recipe made small; what it trains, and how, stays as it is."""
    recipe = get_recipe(name)
    given: dict[str, Any] = {"data": root / "data", "workers": 0, "keep": 9, "eval-every": 0, "eval-samples": 2}
    given |= {f"model.{key}": value for key, value in model.items()}
    for number in range(len(recipe.stages)):
        stage = {"steps": 2, "samples-per-step": 6, "tokens-per-step": 1, "pack-tokens": 700, "optim.lr": 0.02}
        given |= {f"stages.{number}.{key}": value for key, value in stage.items()}
    argv = [word for key, value in given.items() for word in (f"--{key}", str(value))]
    return train.parse(name, [*argv, *more], recipe)[1]


def new(root: Path, name: str = "xcomposer2-4khd", more: Sequence[str] = (), **changes: Any) -> RunConfig:
    """From a language model and CLIP."""
    tower = {"tower.folder": root / "clip", "tower.layers": 2, "tower.heads": 4, "tower.ffn-size": 64}
    partial = {"partial.rank": 4, "partial.alpha": 4, "patch-width": 32}
    return config_of(root, name, *more, **{"language-model": root / "lm", "tile": TILE, **tower, **partial, **changes})


def weights_after(run: Path, step: int) -> dict[str, Tensor]:
    return {
        name: tensor.float() for name, tensor in load_file(run / "checkpoints" / f"step-{step:08d}" / MODEL).items()
    }


@pytest.fixture(scope="module")
def run(root: Path, quick: None) -> Path:
    Trainer(new(root), root / "run", say=silent).train()
    return root / "run"


# --- the papers' values ------------------------------------------------------------------------------------------------


def test_4khds_tables() -> None:
    config = get_recipe("xcomposer2-4khd")
    pretraining, supervised = config.stages
    assert (pretraining.samples_per_step, supervised.samples_per_step) == (4096, 2048)
    assert supervised.steps == 3500
    assert (pretraining.optim.lr, supervised.optim.lr) == (2e-4, 5e-5)
    for stage in config.stages:
        assert (stage.optim.schedule, stage.optim.final, stage.optim.warmup) == ("cosine", 0.0, 0.01)
    assert (pretraining.max_tiles, pretraining.limits, pretraining.random_resolution) == (25, (), False)
    assert (supervised.max_tiles, supervised.random_resolution) == (25, True)
    assert dict(supervised.limits) == {"infovqa*": 55, "docvqa*": 55}
    assert (config.model.partial.rank, config.model.partial.alpha, config.model.partial.dropout) == (256, 256, 0.05)
    assert (config.model.tile, config.model.patch, config.model.patch_width) == (336, 14, 1024)
    assert config.precision == "bf16"
    assert SOURCES["sft"]["HD-OCR"] == "InfoVQA, DocVQA"
    assert len(SOURCES["sft"]) == 9


def test_rates_of_4khds_parts() -> None:
    """0.9 a layer of the tower, a fifth for the language model, in full for projector, vectors and partial LoRA."""
    supervised = get_recipe("xcomposer2-4khd").stages[1]
    with torch.device("meta"):
        model = XComposer2(RELEASES["internlm-xcomposer2-4khd-7b"].model)  # type: ignore[arg-type]
    set_trainable(model, supervised.trains)
    optimizer = Optimizer(model, supervised.optim, 10)
    names = {id(tensor): name for name, tensor in optimizer.masters.items()}
    rates = {names[id(p)]: group["scale"] for group in optimizer.adamw.param_groups for p in group["params"]}
    assert rates["vision.layers.23.ffn.fc1.weight"] == 1
    assert rates["vision.layers.22.ffn.fc1.weight"] == pytest.approx(0.9)
    assert rates["vision.layers.0.norm1.weight"] == pytest.approx(0.9**23)
    assert rates["vision.patch.weight"] == rates["vision.positions"] == pytest.approx(0.9**24)
    assert rates["decoder.layers.7.attention.partial.qkv.lora_A"] == 1
    assert rates["decoder.layers.7.attention.text.qkv.weight"] == rates["decoder.embed.weight"] == 0.2
    assert rates["projector.fc1.weight"] == rates["row_end"] == rates["separator"] == 1
    assert len(rates) == len(dict(model.named_parameters()))


def test_the_order_of_decay_does_not_depend_on_the_number_of_digits() -> None:
    """``layers.1.*`` must not catch layers 10 to 19."""
    names = [f"vision.layers.{n}.norm1.weight" for n in range(12)]
    import fnmatch

    table = layer_decay(12, 0.5)
    found = [next(f for pattern, f in table if fnmatch.fnmatchcase(name, pattern)) for name in names]
    assert found == [0.5 ** (11 - n) for n in range(12)]


def test_the_other_recipes_values() -> None:
    square = get_recipe("xcomposer2-vl")
    assert (square.model.tile, square.model.tower.square) == (490, True)
    assert [stage.optim.lr for stage in square.stages] == [2e-4, 5e-5]
    assert all(stage.pack_tokens >= 1225 * stage.pack_tiles for stage in square.stages)
    finetune = get_recipe("xcomposer2-4khd-finetune").stages[0]
    assert (finetune.optim.lr, finetune.optim.weight_decay, finetune.optim.beta2) == (1e-5, 0.1, 0.95)
    assert (finetune.max_tiles, finetune.samples_per_step, finetune.optim.warmup) == (16, 8, 0.01)
    pretraining, multitask, instruction = get_recipe("xcomposer").stages
    assert (pretraining.steps, pretraining.tokens_per_step, pretraining.optim.warmup) == (8000, 15_700_000, 200)
    assert pretraining.optim.lr * dict(pretraining.optim.lr_scale)["decoder.*"] == pytest.approx(4e-5)
    assert pretraining.optim.lr * pretraining.optim.final == pytest.approx(1e-5)
    assert multitask.trains == instruction.trains
    assert not any(pattern.startswith("vision") for stage in (pretraining, multitask) for pattern in stage.trains)
    (script,) = get_recipe("xcomposer-finetune").stages
    assert script.optim == finetune.optim
    assert (script.optim.lr, script.optim.warmup, script.samples_per_step, script.pack_tokens) == (1e-5, 0.01, 32, 2048)


def test_the_memory_that_the_page_names_is_what_a_run_estimates() -> None:
    with torch.device("meta"):
        model = XComposer2(RELEASES["internlm-xcomposer2-4khd-7b"].model)  # type: ignore[arg-type]
    page = (Path(__file__).parents[2] / "docs" / "xcomposer2-4khd.md").read_text(encoding="utf-8")
    for name, stage in plan(model, get_recipe("xcomposer2-4khd"), torch.bfloat16).items():
        keys = ("weights_bytes", "optimizer_bytes", "activations_bytes", "total_bytes")
        row = [name, in_millions(stage["learning"]), *(in_bytes(stage[key]) for key in keys)]
        assert f"| {' | '.join(row)} |" in page


def test_the_small_mixed_resolution_recipe_shows_documents_high() -> None:
    base, mixed = get_recipe("mono-mini"), get_recipe("mono-mini-hd")
    assert mixed.stages[:-1] == base.stages
    assert mixed.stages[-1].max_tiles == 1
    assert dict(mixed.stages[-1].limits) == {"documents*": 4, "charts*": 4}


# --- 4KHD from its parts -----------------------------------------------------------------------------------------------


def test_the_start_is_the_language_model_and_clip(root: Path) -> None:
    config = new(root)
    model, words = build_model(config.model, 0, silent)
    assert isinstance(model, XComposer2)
    assert words.tokenizer.vocab_size == model.config.decoder.vocab_size == PIECES
    language = load_model(root / "lm", torch.float32).state_dict()
    state = model.state_dict()
    assert all(torch.equal(state[f"decoder.{name}"], tensor) for name, tensor in language.items())
    tower = tiny_xcomposer2.model(tiny_xcomposer2.shape()).state_dict()
    moved = {n for n in state if n.startswith("vision.") and not torch.equal(state[n], tower[n])}
    assert moved == {"vision.positions"}
    assert torch.equal(state["vision.positions"][0], tower["vision.positions"][0])
    lows = [part for part in model.modules() if isinstance(part, LowRank)]
    assert {low.dropout for low in lows} == {0.05}
    assert not any(low.lora_B.any() for low in lows)


@pytest.mark.parametrize(("step", "language"), [(2, False), (4, True)])
def test_stages_change_what_the_paper_says(root: Path, run: Path, step: int, language: bool) -> None:
    config = new(root)
    begun = {n: t.bfloat16().float() for n, t in build_model(config.model, config.seed, silent)[0].state_dict().items()}
    after = weights_after(run, step)
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, begun[name])}
    seeing = {n for n in after if not n.startswith("decoder.") or ".partial." in n} - {"vision.cls"}
    seeing = {n for n in seeing if not any(unused in n for unused in UNUSED)}
    assert changed & seeing >= {
        n for n in seeing if "norm" not in n and "bias" not in n
    }  # bf16 may round small steps away
    text = {n for n in changed if n.startswith("decoder.") and ".partial." not in n}
    assert bool(text) == language


def test_documents_are_seen_at_55_and_the_rest_below_25(root: Path, run: Path) -> None:
    from vedere.data.loader import Loader, LoaderConfig
    from vedere.data.packing import PackLimits
    from vedere.train.run import open_data, preparer

    config = new(root)
    _, words = build_model(config.model, 0, silent)
    stage = config.stages[1]
    loader = Loader(
        LoaderConfig(limits=PackLimits(tokens=700, tiles=128), epochs=1, shuffle=False),
        open_data(config, "sft"),
        preparer(config, stage, words.tokenizer),
    )
    seen: dict[bool, set[tuple[int, int]]] = {True: set(), False: set()}
    for loaded in loader:
        if len(loaded.pack.names) == len(loaded.pack.grids):  # one picture a sample
            for name, grid in zip(loaded.pack.names, loaded.pack.grids, strict=True):
                seen[name.startswith("docvqa")].add(grid)
        assert len(loaded.pack.tiles) == sum(columns * rows for columns, rows in loaded.pack.grids)
    assert seen[True] <= {(7, 7)}
    assert all(columns <= 5 and rows <= 5 for columns, rows in seen[False])


def test_a_run_resumes_bit_for_bit_with_dropout_and_drawn_sizes(root: Path, run: Path, tmp_path: Path) -> None:
    def interrupt(values: dict[str, Any]) -> None:
        if values["step"] == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        Trainer(new(root), tmp_path, say=silent, progress=interrupt).train()
    assert checkpoint_steps(tmp_path / "checkpoints")[-1] == 3
    Trainer(new(root), tmp_path, resume=True, say=silent).train()
    assert small_runs.numbers(tmp_path) == small_runs.numbers(run)
    kept, found = weights_after(run, 4), weights_after(tmp_path, 4)
    assert all(torch.equal(kept[name], found[name]) for name in kept)


def test_recomputed_layers_change_no_bit(root: Path, run: Path, tmp_path: Path) -> None:
    config = new(root)
    assert config.checkpoint_layers
    Trainer(replace(config, checkpoint_layers=False), tmp_path, say=silent).train()
    assert small_runs.numbers(tmp_path) == small_runs.numbers(run)


def test_the_released_form_answers_and_is_a_start(root: Path, run: Path, tmp_path: Path) -> None:
    assert main(["convert", str(run), str(tmp_path / "original"), "--layout", "original"]) == 0
    model = load_model(tmp_path / "original").state_dict()
    assert all(torch.equal(model[name].float(), tensor) for name, tensor in weights_after(run, 4).items())
    assert {"plora_sub_GN", "plora_glb_GN"} <= key_map(
        read_config(tmp_path / "original").model, "original"
    ).foreign_shapes.keys()
    session = load(tmp_path / "original", device="cpu")
    assert isinstance(session.prompts.policy, HDPolicy)
    assert (session.prompts.policy.limit, session.prompts.statistics) == (25, "clip")
    reply = session.chat("What colour is it?", [root / "data" / "sft" / "red.png"], max_new_tokens=3)
    assert reply.plans[0].grid == (5, 5)
    start = {"start": tmp_path / "original", "language-model": "", "tile": TILE}
    config = config_of(root, "xcomposer2-4khd-finetune", **start)
    Trainer(config, tmp_path / "run", say=silent).train()
    after = weights_after(tmp_path / "run", 2)
    assert sum(not torch.equal(after[name], model[name].float()) for name in after) > 20


def test_sample_pages_show_the_views(root: Path, run: Path, tmp_path: Path) -> None:
    from vedere.train.pages import SamplePages

    config = replace(new(root), held_out="heldout/meta.json")
    short = replace(config, stages=(replace(config.stages[0], steps=1),))
    Trainer(short, tmp_path, say=silent, on_evaluation=SamplePages(4, 3)).train()
    (page,) = (tmp_path / "samples").glob("*.html")
    assert "cannot be shown" not in page.read_text()
    held = [line for line in small_runs.numbers(tmp_path) if "held_out" in line]
    assert held[-1]["held_out"].keys() == {"colours", "docvqa-train", "twice"}


# --- the siblings ------------------------------------------------------------------------------------------------------


def test_the_square_sibling(root: Path, tmp_path: Path) -> None:
    config = new(root, "xcomposer2-vl")
    Trainer(config, tmp_path, say=silent).train()
    assert main(["convert", str(tmp_path), str(tmp_path / "own")]) == 0
    session = load(tmp_path / "own", device="cpu")
    reply = session.chat("What colour is it?", [root / "data" / "sft" / "red.png"], max_new_tokens=3)
    assert reply.plans[0].tokens == 4
    assert session.prompts.statistics == "clip"


def test_the_first_xcomposers_script_trains_all_but_the_flags(root: Path, tmp_path: Path) -> None:
    tiny_xcomposer.folder(tmp_path / "start")
    model = {"start": tmp_path / "start", "patch-width": 48, "tile": 56, "tower.sampled": tiny_xcomposer.TOKENS}
    Trainer(config_of(root, "xcomposer-finetune", **model), tmp_path / "run", say=silent).train()
    begun = {n: t.bfloat16().float() for n, t in load_model(tmp_path / "start").state_dict().items()}
    after = weights_after(tmp_path / "run", 2)
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, begun[name])}
    assert {name.split(".")[0] for name in changed} == {"vision", "sampler", "projector", "decoder"}
    assert any("lora" in name for name in changed)


def test_the_first_xcomposer_trains_sampler_and_adapters(root: Path, tmp_path: Path) -> None:
    tiny_xcomposer.folder(tmp_path / "start")
    model = {"start": tmp_path / "start", "patch-width": 48, "tile": 56, "tower.sampled": tiny_xcomposer.TOKENS}
    config = config_of(root, "xcomposer", **model)
    Trainer(config, tmp_path / "run", say=silent).train()
    begun = {n: t.bfloat16().float() for n, t in load_model(tmp_path / "start").state_dict().items()}
    two, six = (weights_after(tmp_path / "run", step) for step in (2, 6))
    pretrained = {name for name in two if not torch.equal(two[name], begun[name])}
    tuned = {name for name in two if not torch.equal(two[name], six[name])}
    assert not any("lora" in name or name.startswith(("vision.", "image_")) for name in pretrained)
    assert {"decoder.embed.weight", "decoder.layers.0.ffn.text.down.weight"} <= pretrained
    assert tuned
    assert all("lora" in name or name.startswith(("sampler.", "projector.")) for name in tuned)
    assert any("lora" in name for name in tuned)
    assert main(["convert", str(tmp_path / "run"), str(tmp_path / "original"), "--layout", "original"]) == 0
    session = load(tmp_path / "original", device="cpu")
    reply = session.chat("What colour is it?", [root / "data" / "sft" / "red.png"], max_new_tokens=3)
    assert reply.plans[0].tokens == tiny_xcomposer.TOKENS


# --- what is refused ---------------------------------------------------------------------------------------------------


def mix_of(root: Path, folder: Path) -> Path:
    """The corpus as the released script takes it: arrays with lists of pictures, and what is drawn of each."""
    pictures = root / "data" / "sft"
    one, two = [
        {"id": "0", "image": [str(pictures / "red.png")]},
        {"id": "1", "image": [str(pictures / "red.png"), str(pictures / "blue.png")]},
    ]
    turns = [("<ImageHere>What colour is it?", "red"), ("<ImageHere> <ImageHere>Same?", "no")]
    for name, record, (question, answer) in zip(("one.json", "two.json"), (one, two), turns, strict=True):
        said = [{"from": "user", "value": question}, {"from": "assistant", "value": answer}]
        (folder / name).write_text(json.dumps([record | {"conversations": said}] * 5))
    (folder / "data.txt").write_text("one.json 0.01\ntwo.json 0.02\n")
    return folder / "data.txt"


def test_the_released_mix_file_is_trained_on_and_checked(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mix = mix_of(root, tmp_path)
    more = [word for number in (0, 1) for word in (f"--stages.{number}.data", str(mix), f"--stages.{number}.given-num")]
    config = new(root, more=more)
    assert [stage.given_num for stage in config.stages] == [True, True]
    Trainer(config, tmp_path / "run", say=silent).train()
    assert (tmp_path / "run" / "checkpoints" / "step-00000004").is_dir()
    assert main(["data", "check", str(mix)]) == 2
    assert "(are the numbers thousands of samples? then set given_num)" in capsys.readouterr().err
    assert main(["data", "check", str(mix), "--given-num", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["records"] == 10


def test_refusals_name_the_field(root: Path) -> None:
    source = new(root).model
    with pytest.raises(ConfigError, match=r"stem, transcript, names and v2pe belong to mono-internvl.*xcomposer2"):
        replace(source, v2pe=True)
    with pytest.raises(
        ConfigError, match=r"XComposer goes on from a folder with its tower and sampler; set model.start"
    ):
        ModelSource(architecture="xcomposer")
    with pytest.raises(ConfigError, match=r"partial.dropout 1.0; expected 0 or more, below 1"):
        build_model(replace(source, partial=replace(source.partial, dropout=1.0)), 0, silent)
    with pytest.raises(
        CheckpointError, match=r"'vision_model.*' is .*; expected .*set model.tower and model.patch_width"
    ):
        build_model(replace(source, patch_width=16, tower=replace(source.tower, heads=2)), 0, silent)
    with pytest.raises(CheckpointError, match="a position table of 12 rows is no class row and a square"):
        resized_positions(torch.zeros(12, 4), 2)


def test_a_start_of_another_architecture_is_named(root: Path, tmp_path: Path) -> None:
    folder = tiny_xcomposer2.folder(tmp_path, vocab_size=PIECES)
    source = ModelSource(start=str(folder), template="ixc2", tile=TOWER_TILE)
    with pytest.raises(
        ConfigError, match=r"holds a XComposer2, the run trains mono-internvl; set model.architecture to xcomposer2"
    ):
        build_model(source, 0, silent)
    with pytest.raises(ConfigError, match=r"made for tiles of 56 px .* the run for 28"):
        build_model(replace(source, architecture="xcomposer2", tile=28), 0, silent)
    square = dataclasses.replace(source.tower, square=True)
    with pytest.raises(ConfigError, match=r"sees hd views; set model.tower.square to False"):
        build_model(replace(source, architecture="xcomposer2", tower=square), 0, silent)


def test_positions_of_the_same_grid_survive() -> None:
    table = torch.from_numpy(np.random.default_rng(0).normal(size=(17, 3)).astype(np.float32))
    torch.testing.assert_close(resized_positions(table, 4), table, rtol=0, atol=1e-6)
