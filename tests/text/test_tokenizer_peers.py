"""Ids equal to those of transformers' own classes, live, on small vocabularies in the official file forms and on real ones."""

import itertools
import json
import shutil
from pathlib import Path

import pytest
from corpus import LINES, TEXT
from hypothesis import given, settings
from published_vocabularies import mistral_from_wheel, qwen_from_wheel

from vedere.text.tokenizer import Tokenizer

pytestmark = pytest.mark.peer
VOCABULARIES = Path(__file__).parent / "vocabularies"
MANY = settings(max_examples=400, deadline=None)


def ids_of(peer, text):
    return peer.encode(text, add_special_tokens=False)


def check_lines(ours, peer):
    for line in (*LINES, "".join(LINES), *(a + b for a, b in itertools.pairwise(LINES))):
        assert ours.encode(line) == ids_of(peer, line), line


@pytest.fixture(scope="module", params=["qwen2", "qwen2-fast"])
def qwen2(request):
    from transformers import Qwen2Tokenizer

    folder = VOCABULARIES / request.param
    return Tokenizer.load(folder), Qwen2Tokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def internlm2():
    from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

    folder = VOCABULARIES / "internlm2"
    return Tokenizer.load(folder), SentencePieceBackend.from_pretrained(folder)


@pytest.fixture(scope="module")
def phi3():
    from transformers import LlamaTokenizer
    from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

    folder = VOCABULARIES / "phi3"
    backend = SentencePieceBackend.from_pretrained(folder, legacy=False)
    return Tokenizer.load(folder), backend, LlamaTokenizer.from_pretrained(folder)


def llama_ids(backend, text):
    """The rule of transformers 4's slow Llama class, which stood in front of today's sentencepiece class."""
    tokens = backend.tokenize("▁" + text.replace("▁", " ")) if text else []
    if len(tokens) > 1 and tokens[0] == "▁" and tokens[1] in backend.all_special_tokens:
        tokens = tokens[1:]
    return backend.convert_tokens_to_ids(tokens)


def test_qwen2_classes(qwen2):
    ours, peer = qwen2
    check_lines(ours, peer)
    assert len(peer) == ours.vocab_size
    assert peer.added_tokens_encoder == ours._vocabulary.added
    assert set(peer.all_special_ids) == ours.special_ids


@MANY
@given(text=TEXT)
def test_qwen2_classes_on_any_text(qwen2, text):
    ours, peer = qwen2
    ids = ours.encode(text)
    assert ids == ids_of(peer, text)
    assert ours.decode(ids, skip_special=False) == peer.decode(ids)
    assert ours.decode(ids) == peer.decode(ids, skip_special_tokens=True)


def test_internlm2_against_the_slow_class(internlm2):
    ours, peer = internlm2
    check_lines(ours, peer)
    assert len(peer) == ours.vocab_size


@MANY
@given(text=TEXT)
def test_internlm2_against_the_slow_class_on_any_text(internlm2, text):
    ours, peer = internlm2
    assert ours.encode(text) == ids_of(peer, text)


def test_phi3_against_the_slow_class(phi3):
    ours, backend, _ = phi3
    for line in (*LINES, "".join(LINES)):
        assert ours.encode(line) == llama_ids(backend, line), line


@MANY
@given(text=TEXT)
def test_phi3_against_the_slow_class_on_any_text(phi3, text):
    ours, backend, _ = phi3
    assert ours.encode(text) == llama_ids(backend, text)


def test_internlm3_s_class_encodes_each_run_as_the_file_says(tmp_path):
    """InternVL3-9B. A dummy prefix is then put before each run, whatever ``legacy`` says: the class does not look at it."""
    from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

    folder = Path(shutil.copytree(VOCABULARIES / "phi3", tmp_path / "internlm3"))
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    assert config["legacy"] is False
    config["tokenizer_class"] = "InternLM3Tokenizer"
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    ours, peer = Tokenizer.load(folder), SentencePieceBackend.from_pretrained(folder, legacy=True)
    check_lines(ours, peer)
    assert ours.encode("<img>a") != Tokenizer.load(VOCABULARIES / "phi3").encode("<img>a")


@MANY
@given(text=TEXT)
def test_phi3_against_llama_s_class_of_today(phi3, text):
    """It was rewritten on the `tokenizers` library: no prefix before a space that is there, or before any added token."""
    ours, _, peer = phi3
    text = "a" + text.translate(dict.fromkeys(range(0x1C, 0x20)))  # white space to Python alone
    assert ours.encode(text) == ids_of(peer, text)


def test_the_published_qwen_vocabulary(tmp_path):
    from transformers import Qwen2Tokenizer

    qwen_from_wheel(tmp_path)
    ours, peer = Tokenizer.load(tmp_path), Qwen2Tokenizer.from_pretrained(tmp_path)
    assert ours.vocab_size == 151646
    assert ours.encode("Hello world") == [9707, 1879]  # as Qwen2.5 has them
    check_lines(ours, peer)
    grown = ours.with_tokens(["<img>", "</img>", "<IMG_CONTEXT>"])  # InternVL2-1B
    assert [grown.token_id(text) for text in ("<img>", "</img>", "<IMG_CONTEXT>")] == [151646, 151647, 151648]


def test_a_published_sentencepiece_vocabulary(tmp_path):
    # Today's LlamaTokenizer is no peer here: it ranks merges by id, and this vocabulary's runs of spaces rank last.
    from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

    mistral_from_wheel(tmp_path, legacy=True)
    check_lines(Tokenizer.load(tmp_path), SentencePieceBackend.from_pretrained(tmp_path))
    mistral_from_wheel(tmp_path, legacy=False)
    ours, backend = Tokenizer.load(tmp_path), SentencePieceBackend.from_pretrained(tmp_path)
    for line in (*LINES, "".join(LINES)):
        assert ours.encode(line) == llama_ids(backend, line), line


def test_smollm2_against_transformers(tmp_path):
    from transformers import PreTrainedTokenizerFast

    from vedere.models.sources import language_model

    folder = language_model(variant="any")
    check_lines(Tokenizer.load(folder), PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json")))
