"""The paper's recipe from a bare InternLM2 to a folder in the released form, at a size of seconds: all four stages."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

import small_internlm2
import small_runs
from vedere.cli import main, train
from vedere.cli.plan import in_bytes, in_millions
from vedere.errors import ConfigError
from vedere.infer.session import load
from vedere.models.checkpoints import load_model, read_config
from vedere.models.decoder import DecoderConfig
from vedere.models.mono_internvl import MonoInternVL, MonoInternVLConfig
from vedere.models.patches import PatchConfig
from vedere.models.published import parse_config
from vedere.models.releases import MONO_INTERNVL_2B
from vedere.models.shards import read_tensors
from vedere.recipes import get_recipe
from vedere.text.tokenizer import Tokenizer
from vedere.train.loop import Interrupted, Trainer
from vedere.train.provenance import plan
from vedere.train.run import RunConfig, build_model
from vedere.train.state import MODEL, OPTIMIZER, checkpoint_steps

STAGES = ("concept", "semantic", "alignment", "instruction")
STEPS = 2  # of each stage
# In the released files, read by nothing; the visual expert of the last layer would read rows that predict nothing.
UNUSED = {"vision.cls", *(f"decoder.layers.1.ffn.visual.{map}.weight" for map in ("gate_up", "down"))}


def options(root: Path) -> list[str]:
    """What makes the recipe small; what it trains, and how, stays as it is."""
    given = {"data": root / "data", "workers": 0, "keep": 9, "eval-every": 0, "eval-samples": 2}
    given |= {"model.language-model": root / "lm", "model.patch-width": 16, "model.patch": 7, "model.tile": 28}
    for number in range(len(STAGES)):
        stage = {"steps": STEPS, "tokens-per-step": 600, "pack-tokens": 1400, "optim.lr": 0.02, "optim.warmup": 1}
        given |= {f"stages.{number}.{name}": value for name, value in stage.items()}
    return [word for name, value in given.items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mono")
    small_internlm2.write(root / "lm")
    for name in (*STAGES, "heldout"):
        small_runs.corpus(root / "data" / name)
        Image.new("RGB", (84, 56), (220, 30, 30)).save(root / "data" / name / "red.png")  # 6 tiles where allowed
    return root


@pytest.fixture(scope="module", autouse=True)
def quick(root: Path) -> Iterator[None]:
    """A cache of its own; no measuring of the machine, TensorBoard and matplotlib."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VEDERE_CACHE", str(root / "cache"))
        small_runs.bare(patch)
        yield


@pytest.fixture(scope="module")
def run(root: Path, quick: None) -> Path:
    """The command line, from start to end."""
    assert main(["train", "mono", *options(root), "--out", str(root / "run"), "--pages", "2"]) == 0
    return root / "run"


def config_of(root: Path, *more: str) -> RunConfig:
    return train.parse("mono", [*options(root), *more], get_recipe("mono"))[1]


def silent(text: str) -> None:
    pass


def weights_after(run: Path, stage: int) -> dict[str, Tensor]:
    return load_file(run / "checkpoints" / f"step-{stage * STEPS:08d}" / MODEL)


def masters_after(run: Path, stage: int) -> dict[str, Tensor]:
    kept = load_file(run / "checkpoints" / f"step-{stage * STEPS:08d}" / OPTIMIZER)
    return {name.removeprefix("master."): tensor for name, tensor in kept.items() if name.startswith("master.")}


@pytest.fixture(scope="module")
def begun(root: Path, run: Path) -> dict[str, Tensor]:
    """The weights before the first step, as the run holds them."""
    config = config_of(root)
    return dict(build_model(config.model, config.seed, silent)[0].bfloat16().state_dict())


# --- what learns -------------------------------------------------------------------------------------------------------


def part(name: str) -> str:
    if ".visual." in name or not name.startswith("decoder."):
        return "visual"
    return "attention" if ".attention.text." in name else "text"


@pytest.mark.parametrize(
    ("stage", "learns"),
    [(1, {"visual"}), (2, {"visual"}), (3, {"visual", "attention"}), (4, {"visual", "attention", "text"})],
)
def test_a_stage_changes_exactly_what_the_paper_says(
    run: Path, begun: dict[str, Tensor], stage: int, learns: set[str]
) -> None:
    """S1.1, S1.2: patches, projector, visual feed-forward; S1.3: and attention; S2: everything."""
    before = weights_after(run, stage - 1) if stage > 1 else begun
    after, masters = weights_after(run, stage), masters_after(run, stage)
    assert after.keys() == before.keys()
    declared = {name for name in after if part(name) in learns} - UNUSED
    assert {name for name in after if not torch.equal(after[name], before[name])} == declared
    assert {name for name in masters if not torch.equal(masters[name], before[name].float())} == declared


def test_rows_of_new_tokens_wait_for_the_last_stage(run: Path, begun: dict[str, Tensor]) -> None:
    """As in the released code, which freezes the embedding with the rest of the language model: <img> stays as it was drawn."""
    for name in ("decoder.embed.weight", "decoder.head.weight"):
        rows = [begun, *(weights_after(run, stage) for stage in (1, 2, 3, 4))]
        new = [weights[name][small_internlm2.PIECES :] for weights in rows]
        assert all(torch.equal(new[0], each) for each in new[1:4]), name
        assert not torch.equal(new[0], new[4])
    assert len(new[0]) == len(small_internlm2.NEW)


def test_what_a_run_says_of_itself(run: Path) -> None:
    lines = small_runs.numbers(run)
    assert [line["stage"] for line in lines if "loss" in line] == [
        stage.name for stage in get_recipe("mono").stages for _ in range(STEPS)
    ]
    assert all(line["visual_share"] > 0 for line in lines if "loss" in line)
    (facts,) = json.loads((run / "run.json").read_text())["starts"]
    assert facts["dtype"] == "bfloat16"
    assert facts["language_model"]["variant"] == "path"
    assert facts["language_model"]["source"].endswith("lm")
    assert len(list((run / "samples").glob("*.html"))) == len(STAGES)


# --- number formats ----------------------------------------------------------------------------------------------------


def test_weights_are_the_rounded_masters_of_what_learns(run: Path) -> None:
    learning = {1: {"visual"}, 3: {"visual", "attention"}, 4: {"visual", "attention", "text"}}
    for stage, parts in learning.items():
        weights, masters = weights_after(run, stage), masters_after(run, stage)
        assert masters.keys() == {name for name in weights if part(name) in parts}
        finer = 0
        for name, master in masters.items():
            assert (master.dtype, weights[name].dtype) == (torch.float32, torch.bfloat16)
            assert torch.equal(master.bfloat16(), weights[name]), name
            finer += int((master != weights[name].float()).sum())
        assert finer > 1000, "masters hold what bfloat16 cannot"


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in small_runs.numbers(run) if "loss" in line]


def test_recomputed_layers_change_no_bit(root: Path, run: Path, tmp_path: Path) -> None:
    """The recipe recomputes; without, the same numbers, in the stage that learns everything too."""
    config = config_of(root)
    assert config.checkpoint_layers
    assert config.precision == "bf16"
    Trainer(replace(config, checkpoint_layers=False), tmp_path, say=silent).train()
    assert losses(tmp_path) == losses(run)
    kept, found = weights_after(run, 4), weights_after(tmp_path, 4)
    assert all(torch.equal(kept[name], found[name]) for name in kept)


@pytest.mark.parametrize("stop", [3, 6])
def test_a_resumed_run_is_the_same_run(root: Path, run: Path, tmp_path: Path, stop: int) -> None:
    """Within a stage, and at the border of two: masters, new rows and order come back."""

    def interrupt(values: dict[str, Any]) -> None:
        if values["step"] == stop:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        Trainer(config_of(root), tmp_path, say=silent, progress=interrupt).train()
    assert checkpoint_steps(tmp_path / "checkpoints")[-1] == stop
    Trainer(config_of(root), tmp_path, resume=True, say=silent).train()
    assert small_runs.numbers(tmp_path) == small_runs.numbers(run)
    kept, found = weights_after(run, 4), weights_after(tmp_path, 4)
    assert all(torch.equal(kept[name], found[name]) for name in kept)


def test_another_seed_draws_other_rows(root: Path, begun: dict[str, Tensor]) -> None:
    config = config_of(root, "--seed", "1")
    other = build_model(config.model, config.seed, silent)[0].bfloat16().state_dict()
    old = small_internlm2.PIECES
    assert torch.equal(other["decoder.embed.weight"][:old], begun["decoder.embed.weight"][:old])
    assert not torch.equal(other["decoder.embed.weight"][old:], begun["decoder.embed.weight"][old:])


# --- what comes out ----------------------------------------------------------------------------------------------------


def released_names(layers: int) -> set[str]:
    """The key list of the release (spec, section 4), written out."""
    names = {f"vision_model.embeddings.{name}" for name in ("class_embedding", "position_embedding")}
    names |= {f"vision_model.embeddings.patch_embedding.{leaf}" for leaf in ("weight", "bias")}
    names |= {f"mlp1.{number}.{leaf}" for number in (0, 1, 3) for leaf in ("weight", "bias")}
    names |= {f"language_model.{name}.weight" for name in ("model.tok_embeddings", "model.norm", "output")}
    inside = ("attention.wqkv", "attention.wo", "attention_norm", "ffn_norm")
    inside += tuple(f"{expert}.{map}" for expert in ("feed_forward", "feed_forward_ve") for map in ("w1", "w2", "w3"))
    return names | {f"language_model.model.layers.{n}.{name}.weight" for n in range(layers) for name in inside}


@pytest.fixture(scope="module")
def original(run: Path, root: Path) -> Path:
    assert main(["convert", str(run), str(root / "original"), "--layout", "original"]) == 0
    return root / "original"


def test_the_original_form_has_the_released_names_and_config(original: Path, run: Path) -> None:
    tensors = read_tensors(original)
    assert tensors.keys() == released_names(2)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert tensors["language_model.output.weight"].shape == (409, 32)
    assert tensors["vision_model.embeddings.position_embedding"].shape == (1, 17, 16)
    config = json.loads((original / "config.json").read_text())
    wanted = {
        "model_type": "internvl_chat",
        "template": "internlm2-chat",
        "ps_version": "v2",
        "force_image_size": 28,
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "use_thumbnail": True,
        "min_dynamic_patch": 1,
        "max_dynamic_patch": 24,
        "pad2square": False,
    }
    assert wanted.items() <= config.items()
    assert config["llm_config"]["architectures"] == ["InternLM2VEForCausalLM"]
    assert config["llm_config"]["vocab_size"] == 409
    model = load_model(original).state_dict()
    assert all(torch.equal(model[name], tensor) for name, tensor in weights_after(run, 4).items())


def test_both_forms_answer_the_same(original: Path, run: Path, root: Path, tmp_path: Path) -> None:
    """`vedere.load` finds template, tiling and grown tokenizer in either."""
    assert main(["convert", str(run), str(tmp_path / "own")]) == 0
    picture = root / "data" / "concept" / "red.png"
    replies = []
    for folder in (original, tmp_path / "own"):
        assert Tokenizer.load(folder).token_id("<IMG_CONTEXT>") == small_internlm2.PIECES + 2
        session = load(folder)
        with_picture = session.chat("What colour is it?", images=[picture], max_new_tokens=6)
        replies.append((with_picture, session.chat("Hello.", max_new_tokens=6)))
    assert replies[0][0].logprobs == replies[1][0].logprobs
    assert replies[0][1].logprobs == replies[1][1].logprobs
    assert read_config(tmp_path / "own").extras["max_dynamic_patch"] == 24


def test_a_release_is_a_start_for_the_next_run(original: Path, root: Path, tmp_path: Path) -> None:
    """Fine-tuning of released stages: the folder brings its tokenizer, no language model is named."""
    config = config_of(root, "--model.language-model", "", "--model.start", str(original))
    short = replace(config.stages[3], steps=1)
    Trainer(replace(config, stages=(short,), keep=2), tmp_path, say=silent).train()
    after = load_file(tmp_path / "checkpoints" / "step-00000001" / MODEL)
    start = load_model(original).state_dict()
    assert {name for name in after if not torch.equal(after[name], start[name])} == after.keys() - UNUSED
    assert json.loads((tmp_path / "run.json").read_text())["starts"][0]["language_model"] == {}


def test_a_start_without_fractional_positions_cannot_train_them(original: Path, root: Path, tmp_path: Path) -> None:
    """The config alone cannot know what the start is."""
    config = config_of(root, "--model.language-model", "", "--model.start", str(original))
    last = replace(config.stages[3], position_mode="v2pe_rnd")
    with pytest.raises(
        ConfigError, match=r"stage 'S2-instruction' has fractional positions, but the model of .*original is"
    ):
        Trainer(replace(config, stages=(*config.stages[:3], last)), tmp_path / "run", say=silent)


# --- the size of the paper ---------------------------------------------------------------------------------------------


def published_base() -> dict[str, Any]:
    """config.json of internlm2-chat-1_8b (spec, section 2)."""
    shape = small_internlm2.shape(
        hidden_size=2048,
        ffn_size=8192,
        layers=24,
        heads=16,
        kv_heads=8,
        head_dim=128,
        vocab_size=92544,
        max_positions=32768,
    )
    return small_internlm2.config_of(shape)


def test_the_recipe_makes_the_published_model() -> None:
    """From the base model's config to the shape that `vedere plan` knows by name."""
    base = parse_config(published_base()).model
    source = get_recipe("mono").model
    assert isinstance(base, DecoderConfig)
    rows = base.vocab_size + len(small_internlm2.NEW)
    decoder = replace(base, vocab_size=rows, visual_ffn=True, visual_attention=source.visual_attention)
    vision = PatchConfig(width=source.patch_width, patch=source.patch, tile=source.tile)
    assert MonoInternVLConfig(vision=vision, decoder=decoder) == MONO_INTERNVL_2B


def test_the_memory_that_the_page_names_is_what_a_run_estimates() -> None:
    with torch.device("meta"):
        model = MonoInternVL(MONO_INTERNVL_2B)
    stages = plan(model, get_recipe("mono"), torch.bfloat16)
    keys = ("weights_bytes", "optimizer_bytes", "activations_bytes", "total_bytes")
    rows = {
        name.split("-")[0]: [in_millions(stage["learning"]), *(in_bytes(stage[key]) for key in keys)]
        for name, stage in stages.items()
    }
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    for names in (("S1.1", "S1.2"), ("S1.3",), ("S2",)):
        for name in names:
            assert f"| {', '.join(names)} | {' | '.join(rows[name])} |" in page, rows[name]
