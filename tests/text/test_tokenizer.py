"""Tokenizers: encode and decode against the libraries, streams against decode, refusals by their messages."""

import json
import pickle
import random
import struct

import pytest
import sentencepiece
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_vocabularies import train_pieces, write_gguf

from vedere.errors import CheckpointError, ConfigError
from vedere.text.gguf_header import read_gguf_header
from vedere.text.tokenizer import Tokenizer

LIMITS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = st.text(
    st.one_of(st.sampled_from(list("aeT 0129.\n\t'<|>🙂é猫\u00a0²")), st.characters(codec="utf-8")), max_size=40
)


@pytest.fixture(scope="session")
def from_gguf(raw, tmp_path_factory):
    return Tokenizer.from_gguf(write_gguf(tmp_path_factory.mktemp("gguf") / "model.gguf", raw))


@pytest.fixture(scope="session")
def pieces(piece_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pieces")
    (folder / "tokenizer.model").write_bytes(piece_model)
    (folder / "added_tokens.json").write_text(json.dumps({"<img>": 420, "</img>": 421, "<IMG_CONTEXT>": 422}))
    config = {
        "add_bos_token": True,
        "bos_token": "<s>",
        "added_tokens_decoder": {
            "423": {"content": "<|end|>", "special": True, "lstrip": False, "rstrip": True},
            "424": {"content": "<note>", "special": False},
        },
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return Tokenizer.load(folder)


@LIMITS
@given(text=TEXT)
def test_encode_equals_the_library(raw, tokenizer, from_gguf, text):
    marked = text + "<|im_end|>\n<repo_name>" + text + "<user-defined>"
    for string in (text, marked):
        expected = raw.encode(string, add_special_tokens=False).ids
        assert tokenizer.encode(string) == expected
        assert from_gguf.encode(string) == expected
        assert tokenizer.encode_array(string).tolist() == expected


@LIMITS
@given(data=st.data(), skip=st.booleans())
def test_decode_of_any_ids_equals_the_library(raw, from_gguf, data, skip):
    ids = data.draw(st.lists(st.integers(0, raw.get_vocab_size() - 1), max_size=25))
    assert from_gguf.decode(ids, skip) == raw.decode(ids, skip_special_tokens=skip)


@LIMITS
@given(text=TEXT)
def test_text_survives_encode_and_decode(tokenizer, pieces, text):
    assert tokenizer.decode(tokenizer.encode(text), skip_special=False) == text
    # The sentencepiece format cannot tell its own space sign and NUL from text.
    plain = text.replace("▁", " ").replace("\0", "")
    assert pieces.decode(pieces.encode(plain), skip_special=False) == plain


@LIMITS
@given(data=st.data(), skip=st.booleans())
def test_a_stream_joins_to_decode_of_all_ids(tokenizer, pieces, data, skip):
    for each in (tokenizer, pieces):
        ids = data.draw(st.lists(st.integers(0, each.vocab_size + 2), max_size=25))
        stream = each.stream(skip)
        parts = [stream.push(index) for index in ids]
        assert "".join(parts) + stream.flush() == each.decode(ids, skip)


def test_a_stream_holds_a_character_back_until_it_is_whole(tokenizer):
    ids = tokenizer.encode("🙂")
    assert len(ids) > 1
    stream = tokenizer.stream()
    assert [stream.push(index) for index in ids] == [""] * (len(ids) - 1) + ["🙂"]
    assert stream.flush() == ""
    assert stream.push(ids[0]) + stream.flush() == "\ufffd"


def test_special_strings_are_skipped_on_request_only(tokenizer):
    ids = tokenizer.encode("<|im_start|>Hi<user-defined><|im_end|>")
    assert tokenizer.decode(ids) == "Hi<user-defined>"
    assert tokenizer.decode(ids, skip_special=False) == "<|im_start|>Hi<user-defined><|im_end|>"


def test_digits_stand_alone_and_spaces_before_them_too(from_gguf):
    assert [from_gguf.decode([i]) for i in from_gguf.encode(" 40")] == [" ", "4", "0"]


def test_gpt2_pre_tokenizer_keeps_digits_together(raw, tmp_path):
    plain = Tokenizer.from_gguf(write_gguf(tmp_path / "m.gguf", raw, pre="gpt-2"))
    assert plain._vocabulary.inner.pre_tokenizer.pre_tokenize_str("40") == [("40", (0, 2))]


def test_bos_is_known_but_never_added(raw, tmp_path):
    with_bos = Tokenizer.from_gguf(write_gguf(tmp_path / "m.gguf", raw, bos=1))
    assert with_bos.bos_id == 1
    assert 1 not in with_bos.encode("Hi")
    with_bos.save(tmp_path / "saved")
    assert Tokenizer.load(tmp_path / "saved").bos_id == 1


def test_saved_tokenizers_come_back(tokenizer, from_gguf, pieces, tmp_path):
    text = "A red bus<|im_end|><img>x</img> 12 猫"
    for place, each in enumerate((tokenizer, from_gguf, pieces)):
        folder = tmp_path / str(place) / "deep"
        each.save(folder)
        again = Tokenizer.load(folder)
        assert again.encode(text) == each.encode(text)
        assert (again.vocab_size, again.bos_id) == (each.vocab_size, each.bos_id)
        assert again.special_ids == each.special_ids


def test_tokenizers_travel_to_workers(tokenizer, pieces):
    for each in (tokenizer, pieces):
        each.encode_array("warm")
        assert pickle.loads(pickle.dumps(each)).encode("A red bus") == each.encode("A red bus")


def test_remembered_ids_cannot_be_changed(tokenizer):
    with pytest.raises(ValueError, match="read-only"):
        tokenizer.encode_array("Hello")[0] = 3


def test_token_id(tokenizer, pieces):
    assert tokenizer.decode([tokenizer.token_id("+")]) == "+"
    assert tokenizer.token_id("<|im_end|>") == tokenizer.encode("<|im_end|>")[0]
    assert pieces.token_id("<IMG_CONTEXT>") == 422
    with pytest.raises(ConfigError, match=r"'<\|im_ends\|>' is not one token .* did you mean '<\|im_end\|>'\?"):
        tokenizer.token_id("<|im_ends|>")


# --- sentencepiece -----------------------------------------------------------------------------------------------------


def test_pieces_equal_sentencepiece_between_added_tokens(piece_model, pieces):
    model = sentencepiece.SentencePieceProcessor(model_proto=piece_model)
    first, second = "A red bus", " and 12 cars\n图"
    assert pieces.encode(first) == model.encode(first)
    assert pieces.encode(f"{first}<img>{second}</img>") == [*model.encode(first), 420, *model.encode(second), 421]
    assert pieces.encode("<s>a</s>") == [model.bos_id(), *model.encode("a"), model.eos_id()]
    assert pieces.bos_id == model.bos_id()
    assert pieces.vocab_size == 425
    assert len(pieces.encode("[UNUSED_TOKEN_146]")) == 1


def test_pieces_decode_bytes_and_added_names(pieces):
    assert len(pieces.encode("𝄞")) > 1  # byte fallback
    ids = pieces.encode("𝄞<img><note>")
    assert pieces.decode(ids) == "𝄞<note>"
    assert pieces.decode(ids, skip_special=False) == "𝄞<img><note>"


def test_a_marker_with_rstrip_swallows_white_space(pieces):
    assert pieces.encode("<|end|>\n  a") == pieces.encode("<|end|>a")
    assert pieces.encode("<img>\n  a") != pieces.encode("<img>a")


def test_dummy_prefix_is_taken_back(tmp_path):
    model = train_pieces(vocab_size=400)
    (tmp_path / "tokenizer.model").write_bytes(model)
    tokenizer = Tokenizer.load(tmp_path)
    peer = sentencepiece.SentencePieceProcessor(model_proto=model)
    ids = tokenizer.encode("The picture")
    assert ids == peer.encode("The picture")
    assert tokenizer.decode(ids) == peer.decode(ids) == "The picture"


# --- refusals ----------------------------------------------------------------------------------------------------------


def test_a_directory_without_tokenizer_says_what_it_holds(tmp_path):
    with pytest.raises(CheckpointError, match=r"holds: nothing\); expected tokenizer.json or tokenizer.model"):
        Tokenizer.load(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(CheckpointError, match=r"it holds: model.safetensors\)"):
        Tokenizer.load(tmp_path)
    with pytest.raises(CheckpointError, match="no such directory"):
        Tokenizer.load(tmp_path / "nowhere")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"version": "1.0"}'])
def test_a_damaged_tokenizer_json(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"tokenizer.json is not a readable tokenizer file: .*; fetch it again"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no model", b"\xff" * 40])
def test_a_damaged_sentencepiece_model(tmp_path, content):
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"tokenizer.model is not a sentencepiece model"):
        Tokenizer.load(tmp_path)


def test_damaged_side_files(tmp_path, piece_model):
    (tmp_path / "tokenizer.model").write_bytes(piece_model)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"tokenizer_config.json is not JSON"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="holds a JSON list; expected an object"):
        Tokenizer.load(tmp_path)


def test_a_decoder_of_another_kind(tmp_path):
    from tokenizers import Tokenizer as RawTokenizer
    from tokenizers import decoders, models

    raw = RawTokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
    raw.decoder = decoders.WordPiece()
    raw.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ConfigError, match=r"decoder of kind \['WordPiece'\]; expected a byte-level one"):
        Tokenizer.load(tmp_path)


def test_gguf_header_reads_only_what_is_asked(raw, tmp_path):
    path = write_gguf(tmp_path / "m.gguf", raw)
    everything = read_gguf_header(path)
    assert everything["general.languages"] == ["en", "zh"]
    assert everything["general.numbers"] == [1, 2, 3]
    assert everything["llama.rope.freq_base"] == 10000.0
    assert len(everything["tokenizer.ggml.tokens"]) == raw.get_vocab_size()
    assert set(read_gguf_header(path, ("llama.",))) == {"llama.rope.freq_base"}


def test_gguf_that_cannot_be_read(raw, tmp_path):
    with pytest.raises(CheckpointError, match=r"no GGUF file at .*nowhere.gguf"):
        Tokenizer.from_gguf(tmp_path / "nowhere.gguf")
    with pytest.raises(CheckpointError, match="cannot be read as a GGUF file"):
        Tokenizer.from_gguf(tmp_path)
    other = tmp_path / "other"
    other.write_bytes(b"PK\3\4rest of a zip")
    with pytest.raises(CheckpointError, match=r"starts with b'PK.*', expected b'GGUF'"):
        Tokenizer.from_gguf(other)
    other.write_bytes(b"GGUF" + struct.pack("<I", 9) + bytes(40))
    with pytest.raises(CheckpointError, match="GGUF version 9; expected 1, 2 or 3"):
        Tokenizer.from_gguf(other)
    for skip in ("tokens", "token_type", "merges"):
        with pytest.raises(CheckpointError, match=rf"no tokenizer.ggml.{skip}; expected a GGUF language model"):
            Tokenizer.from_gguf(write_gguf(other, raw, skip=skip))
    with pytest.raises(ConfigError, match=r"pre-tokenizer 'qwen2'; expected 'gpt2' with 'smollm'"):
        Tokenizer.from_gguf(write_gguf(other, raw, pre="qwen2"))


def test_gguf_damaged_anywhere_is_refused_or_read_but_never_crashes(raw, tmp_path):
    whole = write_gguf(tmp_path / "m.gguf", raw).read_bytes()
    path = tmp_path / "broken.gguf"
    chance = random.Random(0)
    for cut in [8, 12, 24, 25, 40, *(chance.randrange(8, len(whole) - 200) for _ in range(40))]:
        path.write_bytes(whole[:cut])
        with pytest.raises(CheckpointError, match="truncated or damaged inside its GGUF metadata"):
            Tokenizer.from_gguf(path)
    outcomes = set()
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(chance.randrange(1, 20)):
            damaged[chance.randrange(4, 400)] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            Tokenizer.from_gguf(path)
            outcomes.add("read")
        except (CheckpointError, ConfigError):
            outcomes.add("refused")
    assert "refused" in outcomes
