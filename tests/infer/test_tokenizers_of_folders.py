"""Tokenizer and model of one folder: what fits, what does not, and where answers stop."""

import json
import shutil
from pathlib import Path

import pytest

import tiny_internvl
from tiny_models import tiny_shipped
from vedere.errors import CheckpointError
from vedere.infer import loading
from vedere.infer.prompts import Question
from vedere.infer.session import load
from vedere.models import sources
from vedere.models.checkpoints import key_map, save_model
from vedere.models.decoder import Decoder
from vedere.models.language_configs import write_language
from vedere.models.shards import json_writer, write_tensors
from vedere.text.chat import get_template
from vedere.text.tokenizer import Tokenizer

VOCABULARIES = Path(__file__).resolve().parent.parent / "text" / "vocabularies"


def folder_of(path, form, template, rows=None):
    """A tiny model with one of the small vocabularies."""
    rows = rows or Tokenizer.load(VOCABULARIES / form).vocab_size
    shape = tiny_internvl.config(vocab_size=rows, qkv_bias=False)
    save_model(tiny_internvl.model(shape), path, extras={"template": template})
    for file in (VOCABULARIES / form).iterdir():
        shutil.copyfile(file, path / file.name)
    return path


@pytest.mark.parametrize("form", ["qwen2", "internlm2"])
def test_a_vocabulary_larger_than_the_model_s_rows_is_refused(tmp_path, form):
    size = Tokenizer.load(VOCABULARIES / form).vocab_size
    template = "internlm2-chat" if form == "internlm2" else "internvl2_5"
    with pytest.raises(
        CheckpointError,
        match=rf"tokenizer in .*few has {size} tokens, the model only {size - 1} rows; .*: fetch the tokenizer's files",
    ):
        load(folder_of(tmp_path / "few", form, template, size - 1), device="cpu")
    more = load(folder_of(tmp_path / "more", form, template, size + 7), device="cpu")  # padded to a round number
    assert more.model.decoder.config.vocab_size == size + 7
    assert more.chat("What?", max_new_tokens=3).answer_tokens > 0


@pytest.mark.parametrize(
    ("form", "template", "stops", "goes_on"),
    [
        ("phi3", "phi3-chat", ("<|end|>", "<|endoftext|>"), ("<|user|>", "</s>")),
        ("internlm2", "internlm2-chat", ("<|im_end|>", "<|im_start|>", "</s>"), ("<|action_end|>",)),
        ("qwen2", "internvl2_5", ("<|im_end|>",), ("<|endoftext|>", "<|im_start|>")),
        ("qwen2", "Hermes-2", ("<|im_end|>",), ("<|endoftext|>",)),
    ],
)
def test_answers_stop_at_the_template_s_tokens(tmp_path, form, template, stops, goes_on):
    session = load(folder_of(tmp_path / "own", form, template), device="cpu")
    words = session.prompts.tokenizer
    assert get_template(template).stop_ids(words) == tuple(words.token_id(word) for word in stops)
    asked = session.prompts.make(Question(text="What is it?")).request.sampling.stop_ids
    assert set(asked) == {words.token_id(word) for word in stops}
    assert not set(asked) & {words.token_id(word) for word in goes_on}


def test_a_native_folder_ends_answers_where_its_generation_config_says(tmp_path):
    """transformers' `generate` reads that file; the originals' `chat` ends at the template's token alone."""
    from vedere.cli.convert import main as convert

    source, native = tiny_internvl.folder(tmp_path / "own", "original"), tmp_path / "hf"
    assert convert([str(source), str(native), "--layout", "hf"]) == 0
    words = Tokenizer.load(native)
    turn, text = words.token_id("<|im_end|>"), words.token_id("<|endoftext|>")
    for said, expected in ((turn, {turn}), ([turn, text], {turn, text}), ([text], {turn, text}), (None, {turn})):
        for folder in (source, native):
            (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": said}))
            asked = load(folder, device="cpu").prompts.make(Question(text="what")).request.sampling.stop_ids
            assert set(asked) == (expected if folder == native else {turn})
    for said in ("x", [turn, -1], [10**6], [True]):
        (native / "generation_config.json").write_text(json.dumps({"eos_token_id": said}))
        with pytest.raises(CheckpointError, match=r"generation_config\.json: 'eos_token_id' is .*; expected ids below"):
            load(native, device="cpu")


def llama_words(folder):
    """``tokenizer.json`` in Llama 3's manner: no ``</s>``, chat markers among reserved tokens, bos put in front."""
    from tokenizers import AddedToken, processors
    from tokenizers import Tokenizer as Inner

    tiny_internvl.tokenizer(folder)
    path = str(folder / "tokenizer.json")
    inner = Inner.from_file(path)
    inner.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for text in ("<|begin_of_text|>", "<|eot_id|>")]
    )
    bos = inner.token_to_id("<|begin_of_text|>")
    inner.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", bos)]
    )
    inner.save(path)


def test_llama_s_vocabulary_has_fewer_of_the_stops_and_stops_there(tmp_path):
    llama_words(tmp_path)
    words = Tokenizer.load(tmp_path)
    shape = tiny_internvl.config(vocab_size=words.vocab_size, qkv_bias=False)
    save_model(tiny_internvl.model(shape), tmp_path, extras={"template": "internlm2-chat"})  # as InternVL2-Llama3-76B
    session = load(tmp_path, device="cpu")
    request = session.prompts.make(Question(text="What is it?")).request
    expected = {words.token_id("<|im_end|>"), words.token_id("<|im_start|>")}
    assert set(request.sampling.stop_ids) == expected
    assert words.token_id("<|eot_id|>") not in expected
    assert request.ids[0] == words.token_id("<|begin_of_text|>")


@pytest.mark.parametrize("named", ["added_tokens.json", "tokenizer_config.json"])
def test_a_converted_language_model_keeps_tokens_that_only_side_files_name(tmp_path, monkeypatch, named):
    monkeypatch.setenv("VEDERE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "hub"
    tiny_internvl.tokenizer(folder)
    size = Tokenizer.load(folder).vocab_size
    token = {"content": "<new>", "special": True, "normalized": False}
    files = {
        "added_tokens.json": {"<new>": size},
        "tokenizer_config.json": {"added_tokens_decoder": {str(size): token}},
    }
    (folder / named).write_text(json.dumps(files[named]))
    shape = tiny_internvl.config(vocab_size=size + 1, qkv_bias=False).decoder
    own = {f"decoder.{name}": tensor for name, tensor in Decoder(shape).state_dict().items()}
    text = json_writer(write_language(shape, {}, only="llama"))
    write_tensors(folder, key_map(shape, "llama").to_foreign(own), beside={"config.json": text})
    made = sources.language_model(folder, lambda text: None)
    assert made != folder
    assert Tokenizer.load(made).encode("a<new>") == Tokenizer.load(folder).encode("a<new>")
    assert Tokenizer.load(made).token_id("<new>") == size


@pytest.mark.parametrize("words", ["delta", "language-model"])
def test_the_joined_folder_keeps_the_tokens_of_side_files(tmp_path, monkeypatch, words):
    delta, language_model = tiny_shipped(tmp_path, vocab_size=304)
    cache = tmp_path / "cache"
    monkeypatch.setenv("VEDERE_CACHE", str(cache))
    monkeypatch.setattr(loading, "shipped_directory", lambda name: delta)
    monkeypatch.setattr("vedere.models.sources.language_model", lambda *_, **__: language_model)
    folder = delta if words == "delta" else language_model
    if words == "delta":
        shutil.copyfile(language_model / "tokenizer.json", delta / "tokenizer.json")
    size = load("mini", say=lambda _: None, device="cpu").prompts.tokenizer.vocab_size
    (folder / "added_tokens.json").write_text(json.dumps({"<late>": size}))
    earlier = set(cache.iterdir())
    monkeypatch.setattr("vedere.infer.loading.VOCABULARY_VERSION", b"another")  # an earlier vedere made that one
    for _ in range(2):  # joined, then from the cache
        assert load("mini", say=lambda _: None, device="cpu").prompts.tokenizer.token_id("<late>") == size
    (joined,) = set(cache.iterdir()) - earlier
    assert Tokenizer.load(joined).vocab_size == size + 1
