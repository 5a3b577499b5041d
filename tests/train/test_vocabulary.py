"""New tokens: the published ids, rows as the released code starts them, and nothing else that moves."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import small_internlm2
import small_runs
from vedere.errors import CheckpointError, ConfigError
from vedere.models.checkpoints import load_model
from vedere.models.decoder import Decoder, DecoderConfig
from vedere.models.delta import tensors_sha256
from vedere.recipes import get_recipe
from vedere.text.chat import TEMPLATES, get_template
from vedere.text.tokenizer import Tokenizer
from vedere.train.export import TrainedModel, export_delta, export_model
from vedere.train.run import ModelSource, RunConfig, build_model, open_words
from vedere.train.vocabulary import grow_vocabulary

PUBLISHED = dict(zip(small_internlm2.NEW, range(92544, 92553), strict=True)) | {
    "<|plugin|>": 92538,
    "<|interpreter|>": 92539,
    "<|action_end|>": 92540,
    "<|action_start|>": 92541,
    "<|im_end|>": 92542,
    "<|im_start|>": 92543,
}


def silent(text: str) -> None:
    pass


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VEDERE_CACHE", str(tmp_path / "cache"))


# --- ids ---------------------------------------------------------------------------------------------------------------


def test_ids_on_a_vocabulary_of_internlm2s_size_are_the_published_ones(tmp_path: Path) -> None:
    base = Tokenizer.load(small_internlm2.write_tokenizer(tmp_path / "base", 92544))
    template = get_template("internlm2-chat")
    new = base.lacks(template.new_tokens)
    assert base.vocab_size == 92544
    assert new == small_internlm2.NEW
    grown = base.with_tokens(new)
    assert grown.vocab_size == 92553
    assert {text: grown.token_id(text) for text in PUBLISHED} == PUBLISHED
    assert grown.encode("<img><IMG_CONTEXT></img>") == [92544, 92546, 92545]
    grown.save(tmp_path / "saved")
    again = Tokenizer.load(tmp_path / "saved")
    assert {text: again.token_id(text) for text in PUBLISHED} == PUBLISHED
    assert again.special_ids == grown.special_ids >= set(PUBLISHED.values())
    assert again.lacks(template.new_tokens) == ()
    kept = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert kept["tokenizer_class"] == "InternLM2Tokenizer"


def test_templates_of_the_same_markers_add_the_same_tokens() -> None:
    for template in TEMPLATES.values():
        expected = small_internlm2.NEW if template.image_context == "<IMG_CONTEXT>" else ()
        assert template.new_tokens == expected, template.name


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[Tokenizer]:
    """A sentencepiece and a byte-level vocabulary."""
    root = tmp_path_factory.mktemp("both")
    small_runs.language_model(root / "bytes")
    return [Tokenizer.load(small_internlm2.write_tokenizer(root / "pieces")), Tokenizer.load(root / "bytes")]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.from_regex(r"<[a-z_]{1,9}>", fullmatch=True), max_size=5, unique=True), st.text(max_size=30))
def test_old_ids_stay_and_new_ones_follow(both: list[Tokenizer], new: list[str], text: str) -> None:
    for base in both:
        size, lacking = base.vocab_size, base.lacks(new)
        grown = base.with_tokens(lacking)
        assert [grown.token_id(each) for each in lacking] == list(range(size, size + len(lacking)))
        assert base.vocab_size == size, "the old one is as it was"
        if not any(each in text for each in new):
            assert grown.encode(text) == base.encode(text)
        for each in lacking:
            assert grown.encode(f"a{each}b") == [*base.encode("a"), grown.token_id(each), *base.encode("b")]
            assert grown.decode([grown.token_id(each)]) == ""


# --- rows --------------------------------------------------------------------------------------------------------------


def small(rows: int, tied: bool, seed: int = 0) -> tuple[DecoderConfig, dict[str, Tensor]]:
    torch.manual_seed(seed)
    config = small_internlm2.shape(vocab_size=rows, tied_head=tied, layers=1)
    return config, dict(Decoder(config).state_dict())


def test_old_rows_stay_and_new_ones_are_those_of_the_released_code() -> None:
    config, state = small(300, tied=False)
    grown, tensors = grow_vocabulary(config, state, 309, 9, seed=3)
    assert grown == replace(config, vocab_size=309)
    assert tensors.keys() == state.keys()
    for name in state.keys() - {"embed.weight", "head.weight"}:
        assert tensors[name] is state[name]
    for name in ("embed.weight", "head.weight"):
        assert torch.equal(tensors[name][:300], state[name])
        assert tensors[name].shape == (309, 32)
    mean = state["head.weight"].mean(0)
    assert all(torch.equal(row, mean) for row in tensors["head.weight"][300:])
    drawn = tensors["embed.weight"][300:]
    assert len(drawn.unique(dim=0)) == 9
    assert 0.018 < float(drawn.std()) < 0.022
    assert abs(float(drawn.mean())) < 0.004
    Decoder(grown).load_state_dict(tensors)


def test_new_rows_are_a_function_of_the_seed_alone() -> None:
    config, state = small(300, tied=False)
    first = grow_vocabulary(config, state, 309, 9, seed=3)[1]["embed.weight"]
    torch.rand(5)
    before = torch.get_rng_state()
    assert torch.equal(grow_vocabulary(config, state, 309, 9, seed=3)[1]["embed.weight"], first)
    assert torch.equal(torch.get_rng_state(), before), "what is drawn afterwards does not move"
    assert not torch.equal(grow_vocabulary(config, state, 309, 9, seed=4)[1]["embed.weight"], first)


def test_a_tied_table_gets_the_mean() -> None:
    config, state = small(300, tied=True)
    tensors = grow_vocabulary(config, state, 303, 3, seed=0)[1]
    assert "head.weight" not in tensors
    assert torch.equal(tensors["embed.weight"][:300], state["embed.weight"])
    assert all(torch.equal(row, state["embed.weight"].mean(0)) for row in tensors["embed.weight"][300:])


@pytest.mark.parametrize("tied", [False, True])
def test_rows_of_padding_are_taken_over_or_cut_off(tied: bool) -> None:
    """Qwen2.5: 151,936 rows, 151,665 tokens; 151,674 rows with the new ones."""
    config, state = small(340, tied)
    grown, tensors = grow_vocabulary(config, state, 309, 9, seed=0)
    assert grown.vocab_size == 309
    known = state["embed.weight" if tied else "head.weight"][:300]
    head = tensors["embed.weight" if tied else "head.weight"]
    assert torch.equal(head[:300], known)
    assert all(torch.equal(row, known.mean(0)) for row in head[300:])
    if not tied:
        assert torch.equal(tensors["embed.weight"], state["embed.weight"][:309])


# --- the whole step ----------------------------------------------------------------------------------------------------


def source(folder: Path, **changes: object) -> ModelSource:
    base = ModelSource(language_model=str(folder), template="internlm2-chat", patch_width=16, patch=7, tile=28)
    return replace(base, visual_attention=False, **changes)  # type: ignore[arg-type]


def test_a_model_on_internlm2_has_new_rows_and_all_old_numbers(tmp_path: Path) -> None:
    folder = small_internlm2.write(tmp_path / "lm")
    said: list[str] = []
    model, words = build_model(source(folder), 7, said.append)
    assert words.new == small_internlm2.NEW
    assert said[-1] == (
        "adding 9 tokens to the 400 rows of the language model: <img> </img> <IMG_CONTEXT> <quad> </quad> <ref> </ref> "
        "<box> </box>"
    )
    assert model.config.decoder.vocab_size == words.tokenizer.vocab_size == 409
    base = load_model(folder, torch.float32).state_dict()
    own = model.decoder.state_dict()
    for name, tensor in base.items():
        assert torch.equal(own[name][: len(tensor)], tensor), name
    ids = torch.tensor(words.tokenizer.encode("<|im_start|>user\nIs it red?<|im_end|>"))
    places, bare = torch.arange(len(ids)), load_model(folder, torch.float32)
    assert isinstance(bare, Decoder)
    with torch.no_grad():
        expected = bare(bare.embed(ids), places, [0, len(ids)])
        assert torch.equal(model(ids, places, [0, len(ids)]), expected)
    again = build_model(source(folder), 7, silent)[0].state_dict()
    assert tensors_sha256(again) == tensors_sha256(model.state_dict())


def test_a_vocabulary_that_has_the_tokens_gets_none(tmp_path: Path) -> None:
    small_runs.language_model(tmp_path / "lm")
    words = open_words(replace(source(tmp_path / "lm"), template="smollm2"), silent)
    assert words.new == ()
    assert words.tokenizer.vocab_size == Tokenizer.load(tmp_path / "lm").vocab_size
    grown = Tokenizer.load(small_internlm2.write(tmp_path / "grown", vocab_size=409))
    grown.with_tokens(small_internlm2.NEW[2:]).save(tmp_path / "grown")
    assert open_words(source(tmp_path / "grown"), silent).new == small_internlm2.NEW[:2]


def test_chat_markers_are_never_added(tmp_path: Path) -> None:
    """A base model, or a tokenizer without its side file: the rows of its markers would be noise."""
    folder = small_internlm2.write(tmp_path / "lm")
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(
        ConfigError,
        match=r"'internlm2-chat' writes <\|im_start\|>, <\|im_end\|>, which this vocabulary of 409 tokens splits",
    ):
        build_model(source(folder), 0, silent)
    with pytest.raises(ConfigError, match=r"template 'smollm2' writes <repo_name>, .*choose the template that belongs"):
        build_model(replace(source(small_internlm2.write(tmp_path / "two")), template="smollm2"), 0, silent)


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path: Path) -> None:
    folder = small_internlm2.write(tmp_path / "lm")
    config = json.loads((folder / "config.json").read_text())
    small_internlm2.write(tmp_path / "small", vocab_size=380)
    (tmp_path / "small" / "tokenizer.model").write_bytes((folder / "tokenizer.model").read_bytes())
    tokenizer = Tokenizer.load(folder).with_tokens(small_internlm2.NEW)
    tokenizer.save(tmp_path / "small")
    assert config["vocab_size"] == 400
    with pytest.raises(CheckpointError, match=r"the tokenizer has 409 tokens, the model only 380 rows"):
        build_model(source(tmp_path / "small"), 0, silent)


# --- going on from a whole model ---------------------------------------------------------------------------------------


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A whole model as a run exports it."""
    config = replace(get_recipe("mono"), model=source(small_internlm2.write(tmp_path / "lm")))
    export_model(trained(config), tmp_path / "whole", torch.float32)
    return tmp_path / "whole"


def trained(config: RunConfig) -> TrainedModel:
    model, words = build_model(config.model, 7, silent)
    return TrainedModel(
        model=model, tokenizer=words.tokenizer, language_model=words.language_model, config=config, step=0, tokens=0
    )


def test_a_whole_model_brings_its_own_tokens(exported: Path, tmp_path: Path) -> None:
    """Neither the language model of the start nor any other is asked for."""
    start = source(Path(), language_model="", start=str(exported))
    model, words = build_model(start, 0, silent)
    assert words.language_model is None
    assert words.new == ()
    assert words.tokenizer.token_id("<img>") == 400
    assert tensors_sha256(model.state_dict()) == tensors_sha256(load_model(exported).state_dict())
    with pytest.raises(
        ConfigError, match=r"whole is made for tiles of 28 px and patches of 7, the run for 112 and 14; set"
    ):
        build_model(replace(start, tile=112, patch=14), 0, silent)
    with pytest.raises(ConfigError, match=r"template 'smollm2' writes <repo_name>"):
        build_model(replace(start, template="smollm2"), 0, silent)


def test_a_delta_has_no_place_for_new_tokens(tmp_path: Path) -> None:
    config = replace(get_recipe("mono"), model=source(small_internlm2.write(tmp_path / "lm")))
    with pytest.raises(
        CheckpointError, match=r"the model has 409 tokens, the language model in .* 400; a delta keeps .*whole"
    ):
        export_delta(trained(config), tmp_path / "delta")
