"""The official file forms: equal ids from each, the families' own rules, the published ids, and files that do not fit."""

import json
import random
import re
import shutil
from pathlib import Path

import pytest
import sentencepiece
from corpus import LINES, TEXT
from hypothesis import given, settings

from vedere.errors import CheckpointError, ConfigError, PromptError, VedereError
from vedere.text.byte_pairs import BYTE_OF
from vedere.text.chat import get_template
from vedere.text.tokenizer import Tokenizer

VOCABULARIES = Path(__file__).parent / "vocabularies"
NAMES = ("qwen2", "qwen2-fast", "internlm2", "phi3")
MEDIA = get_template("internvl2_5").new_tokens
LIMITS = settings(max_examples=60, deadline=None)


@pytest.fixture(scope="session")
def loaded():
    return {name: Tokenizer.load(VOCABULARIES / name) for name in NAMES}


@pytest.fixture
def copy(tmp_path):
    def of(name):
        return Path(shutil.copytree(VOCABULARIES / name, tmp_path / name))

    return of


def change(path, **values):
    data = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(data | values), encoding="utf-8")


# --- forms -------------------------------------------------------------------------------------------------------------


@LIMITS
@given(text=TEXT)
def test_slow_and_fast_form_are_one_tokenizer(loaded, text):
    ids = loaded["qwen2"].encode(text)
    assert loaded["qwen2-fast"].encode(text) == ids
    assert loaded["qwen2-fast"].decode(ids) == loaded["qwen2"].decode(ids)


def test_forms_agree_on_sizes_and_control_tokens(loaded):
    slow, fast = loaded["qwen2"], loaded["qwen2-fast"]
    assert (slow.vocab_size, slow.bos_id, slow.special_ids) == (fast.vocab_size, fast.bos_id, fast.special_ids)
    assert slow.decode(slow.encode("<tool_call><box>")) == "<tool_call>"  # added, but no control token


@pytest.mark.parametrize("name", NAMES)
def test_what_is_saved_loads_as_the_same_tokenizer(loaded, name, tmp_path):
    ours = loaded[name]
    ours.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    for line in LINES:
        assert again.encode(line) == ours.encode(line)
    assert (again.vocab_size, again.bos_id, again.special_ids) == (ours.vocab_size, ours.bos_id, ours.special_ids)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text("utf-8"))
    given = json.loads((VOCABULARIES / name / "tokenizer_config.json").read_text("utf-8"))
    assert settings["tokenizer_class"] == given["tokenizer_class"]
    assert settings["added_tokens_decoder"].keys() == given["added_tokens_decoder"].keys()


@pytest.mark.parametrize("name", ["qwen2", "internlm2"])
def test_added_tokens_and_the_map_alone_say_the_same(loaded, copy, name):
    """Releases before 2023-09 have no ``added_tokens_decoder``."""
    folder = copy(name)
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    for key in ("added_tokens_decoder", "additional_special_tokens"):
        del config[key]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    ours = Tokenizer.load(folder)
    for line in LINES:
        assert ours.encode(line) == loaded[name].encode(line)
    assert ours.special_ids == loaded[name].special_ids


def test_tokens_that_only_a_side_file_names_join_a_tokenizer_json(loaded, copy):
    folder = copy("qwen2-fast")
    data = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    data["added_tokens"] = data["added_tokens"][:3]
    (folder / "tokenizer.json").write_text(json.dumps(data))
    for line in LINES:
        assert Tokenizer.load(folder).encode(line) == loaded["qwen2"].encode(line)


@pytest.mark.parametrize(
    "limits",
    [
        {"truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}},
        {"padding": {"strategy": {"Fixed": 90}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 3,
                     "pad_type_id": 0, "pad_token": "x"}},
    ],
)  # fmt: skip
def test_limits_that_a_tokenizer_json_was_saved_with_do_not_count(loaded, copy, limits, tmp_path):
    """The library writes them into the file after any call with them; a prompt would be cut without a word."""
    folder = copy("qwen2-fast")
    change(folder / "tokenizer.json", **limits)
    ours = Tokenizer.load(folder)
    assert [ours.encode(line) for line in LINES] == [loaded["qwen2"].encode(line) for line in LINES]
    assert ours.bos_id is None
    ours.save(tmp_path / "saved")
    assert not json.loads((tmp_path / "saved" / "tokenizer.json").read_text("utf-8"))[next(iter(limits))]


@pytest.mark.parametrize("name", ["qwen2", "qwen2-fast"])
@pytest.mark.parametrize("where", ["additional_special_tokens", "added_tokens_decoder"])
def test_a_side_file_may_call_an_added_token_special(copy, name, where):
    folder = copy(name)
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    if where == "additional_special_tokens":
        config[where].append("<tool_call>")
    else:
        next(token for token in config[where].values() if token["content"] == "<tool_call>")["special"] = True
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    ours = Tokenizer.load(folder)
    assert ours.decode(ours.encode("<tool_call>a</tool_call>")) == "a</tool_call>"


def test_ids_with_a_gap_stay_where_the_file_has_them(copy, tmp_path):
    folder = copy("qwen2")
    (folder / "tokenizer_config.json").unlink()
    (folder / "added_tokens.json").write_text('{"<img>": 1700, "<far>": 1605}')
    ours = Tokenizer.load(folder)
    assert ours.encode("<img>a<far>")[::2] == [1700, 1605]
    assert ours.vocab_size == 1701
    ours.save(tmp_path / "saved")
    assert Tokenizer.load(tmp_path / "saved").encode("<img>a<far>") == ours.encode("<img>a<far>")


def test_a_chat_template_file_goes_with_the_configuration(copy, tmp_path):
    folder = copy("qwen2")
    (folder / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    Tokenizer.load(folder).save(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text("utf-8"))
    assert saved["chat_template"] == "{{ messages }}"


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_text_is_refused_and_ids_of_nothing_stand_for_nothing(loaded, name):
    ours = loaded[name]
    for half in ("a\ud800b", "a\udcff"):
        for encode in (ours.encode, ours.encode_array, ours.token_id):
            with pytest.raises(
                PromptError, match="the text holds half of a surrogate pair at character 1; expected whole"
            ):
                encode(half)
    for text in (b"a", None, 5):
        with pytest.raises(PromptError, match=f"text of type {type(text).__name__} was given; expected a string"):
            ours.encode(text)
    ids = ours.encode("The cat")
    assert ours.decode([-100, *ids, -1, 10**9, 1 << 70]) == ours.decode(ids)  # labels hold -100


# --- sentencepiece families --------------------------------------------------------------------------------------------


@LIMITS
@given(text=TEXT)
def test_internlm2_is_sentencepiece_between_added_tokens(loaded, text):
    """No dummy prefix, on the first run and on later ones; spaces are kept on both ways."""
    model = sentencepiece.SentencePieceProcessor(model_file=str(VOCABULARIES / "internlm2" / "tokenizer.model"))
    added = loaded["internlm2"]._vocabulary.added
    longest_first = sorted(added, key=len, reverse=True)
    expected = []
    for place, run in enumerate(re.split("(" + "|".join(map(re.escape, longest_first)) + ")", text)):
        expected += [added[run]] if place % 2 else model.encode(run)
    ids = loaded["internlm2"].encode(text)
    assert ids == expected
    if not any(mark in text for mark in (*added, "▁", "\0")):
        assert loaded["internlm2"].decode(ids) == text == model.decode(ids)


def test_internlm2_markers_replace_reserved_pieces(loaded):
    ours = loaded["internlm2"]
    assert ours.bos_id == 1
    assert ours.encode("<|im_start|>") == ours.encode("[UNUSED_TOKEN_11]") == [3999]
    assert ours.decode([3999], skip_special=False) == "<|im_start|>"
    assert ours.decode(ours.encode("  a b"), skip_special=False) == "  a b"


def test_phi3_puts_one_space_in_front_and_markers_swallow_white_space(loaded):
    ours = loaded["phi3"]
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(VOCABULARIES / "phi3" / "tokenizer.model"))
    user, end, img = (ours.token_id(text) for text in ("<|user|>", "<|end|>", "<img>"))
    space = pieces.piece_to_id("▁")
    assert ours.encode("Hello") == pieces.encode("Hello")
    hello = ours.encode("aHello")[len(ours.encode("a")) :]
    assert ours.encode("<|user|>\n Hello<|end|>\n") == [space, user, *hello, end]
    assert ours.encode("<img>Hello") == [img, *hello]  # a named token: the lone prefix is taken back
    assert ours.encode(" ") == pieces.encode(" ")
    assert ours.decode(ours.encode("Hello  you")) == "Hello  you"
    assert ours.bos_id is None


def test_a_file_that_does_not_say_is_legacy(copy):
    folder = copy("phi3")
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    del config["legacy"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    ours = Tokenizer.load(folder)
    run = ours.encode("Hello")
    assert ours.encode("<img>Hello") == [ours.token_id("<img>"), *run]  # each run has its prefix
    assert ours.encode("") == []


def test_a_token_that_counts_only_as_a_word(copy):
    folder = copy("internlm2")
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    config["added_tokens_decoder"]["4000"].update(single_word=True)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    ours = Tokenizer.load(folder)
    assert 4000 in ours.encode("a <img> b")
    assert 4000 in ours.encode("<img>")
    assert 4000 not in ours.encode("a<img> b")
    assert 4000 not in ours.encode(" <img>b")
    assert ours.decode(ours.encode("a<img> <img>b"), skip_special=False) == "a<img> <img>b"


# --- published ids -----------------------------------------------------------------------------------------------------


def big_qwen(folder, added, lists):
    """A byte-level vocabulary of Qwen2's size, its tokens beyond the bytes without meaning."""
    vocab = BYTE_OF | {f"¤{i}": i for i in range(256, 151643)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "added_tokens.json").write_text(json.dumps(added))
    config = {"tokenizer_class": "Qwen2Tokenizer", "additional_special_tokens": lists}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return Tokenizer.load(folder)


QWEN2 = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QWEN25 = (
    *QWEN2,
    *("<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>"),
    *("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
    *("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
    *("<|repo_name|>", "<|file_sep|>"),
)
QWEN3 = (*QWEN25, "<tool_response>", "</tool_response>", "<think>", "</think>")


@pytest.mark.parametrize(
    ("base", "first", "rows"), [(QWEN2, 151646, 151655), (QWEN25, 151665, 151674), (QWEN3, 151669, 151936)]
)
def test_published_ids_of_the_qwen_families(base, first, rows, tmp_path):
    """InternVL2-1B, InternVL2.5 and 3, InternVL3.5."""
    names = [*base, *MEDIA]
    ours = big_qwen(tmp_path, {text: 151643 + place for place, text in enumerate(names)}, [*QWEN2, *MEDIA])
    template = get_template("internvl2_5")
    assert [ours.token_id(text) for text in MEDIA] == list(range(first, first + 9))
    assert [ours.token_id(text) for text in QWEN2] == [151643, 151644, 151645]
    assert template.stop_ids(ours) == (151645,)
    assert ours.vocab_size == first + 9 <= rows
    template.check_markers(ours)


def test_tokens_added_to_a_bare_qwen_get_the_published_ids(tmp_path):
    """What training does to Qwen2.5 before InternVL2.5's first stage."""
    bare = big_qwen(tmp_path, dict(zip(QWEN25, range(151643, 151665), strict=True)), list(QWEN2))
    assert bare.with_tokens(MEDIA).encode("".join(MEDIA)) == list(range(151665, 151674))


def user_defined(text):
    entry = b"\x0a" + bytes([len(text)]) + text.encode() + b"\x18\x04"
    return b"\x0a" + bytes([len(entry)]) + entry


def test_published_ids_of_internlm2(tmp_path):
    """InternVL 2 and 2.5 on InternLM2, and Mono-InternVL."""
    small = (VOCABULARIES / "internlm2" / "tokenizer.model").read_bytes()
    more = b"".join(user_defined(f"[UNUSED_TOKEN_{i}]") for i in range(4000, 92544))
    (tmp_path / "tokenizer.model").write_bytes(small + more)
    plain = ("<|plugin|>", "<|interpreter|>", "<|action_end|>", "<|action_start|>", "<|im_end|>", "<|im_start|>")
    names = (*plain, *MEDIA)
    (tmp_path / "added_tokens.json").write_text(json.dumps({text: 92538 + i for i, text in enumerate(names)}))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"additional_special_tokens": list(names)}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "InternLM2Tokenizer"}))
    ours = Tokenizer.load(tmp_path)
    assert ours.encode("".join(names)) == list(range(92538, 92553))
    assert (ours.vocab_size, ours.bos_id) == (92553, 1)
    assert get_template("internlm2-chat").stop_ids(ours) == (92542, 92543, 2)
    assert get_template("internvl2_5").stop_ids(ours) == (92542,)
    assert ours.special_ids >= {0, 1, 2, *range(92538, 92553)}


# --- files that do not fit ---------------------------------------------------------------------------------------------


def refused(folder, *words, error=CheckpointError):
    with pytest.raises(error) as caught:
        Tokenizer.load(folder)
    for word in (*words, str(folder)):
        assert word in str(caught.value), str(caught.value)


def test_vocab_and_merges_that_do_not_fit(copy):
    folder = copy("qwen2")
    merges = (folder / "merges.txt").read_text("utf-8")
    (folder / "merges.txt").write_text(merges + "t zzz\n", encoding="utf-8")
    refused(folder, "is 't' with 'zzz', and 'zzz' is no token; fetch both from one release")
    (folder / "merges.txt").write_text(merges + "one two three\n", encoding="utf-8")
    refused(folder, "line 1346 of", "is 'one two three'; expected two tokens with a space between")
    (folder / "merges.txt").write_bytes(b"\xff\xfe")
    refused(folder, "merges.txt cannot be read: 'utf-8' codec")
    (folder / "merges.txt").unlink()
    refused(folder, "holds vocab.json without merges.txt; fetch that too")


def test_vocabularies_that_lose_text_or_share_ids(copy):
    folder = copy("qwen2")
    vocab = json.loads((folder / "vocab.json").read_text("utf-8"))
    for changed, words in [
        ({text: index for text, index in vocab.items() if text not in "ab"}, "lacks 2 of the 256 byte characters, 'a'"),
        (vocab | {"a": vocab["b"]}, "one id,"),
        (vocab | {"a": -1}, "gives 'a' the id -1; expected a number from 0 to 16777215"),
        (vocab | {"a": 1 << 24}, "gives 'a' the id 16777216"),
        (vocab | {"a": "7"}, "gives 'a' the id 7"),
        (vocab | {"a": True}, "gives 'a' the id True"),
    ]:
        (folder / "vocab.json").write_text(json.dumps(changed))
        refused(folder, words)
    (folder / "vocab.json").write_text("[1, 2")
    refused(folder, "vocab.json is not JSON")


def test_a_class_whose_rules_are_unknown(copy):
    folder = copy("qwen2")
    change(folder / "tokenizer_config.json", tokenizer_class="RobertaTokenizer")
    refused(folder, "of a RobertaTokenizer; expected a Qwen2Tokenizer or GPT2Tokenizer", error=ConfigError)


def test_gpt2_keeps_digits_together(copy):
    folder = copy("qwen2")
    change(folder / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")
    splits = Tokenizer.load(folder)._vocabulary.inner.pre_tokenizer.pre_tokenize_str("40")
    assert [text for text, _ in splits] == ["40"]


@pytest.mark.parametrize("name", ["qwen2", "qwen2-fast"])
def test_added_tokens_in_the_way_of_others(copy, name):
    folder = copy(name)
    added = folder / "added_tokens.json"
    added.unlink(missing_ok=True)
    for new, words in [
        ({"<new>": 300}, "the added token '<new>' the id 300, but "),
        ({"<img>": 1650}, "gives '<img>' the id 1650, but it has 1605 already"),
        ({"<new>": 1605}, "gives '<new>' the id 1605, but '<img>' has it"),
        ({"a": 1650}, "the added token 'a' the id 1650, but the vocabulary has it at "),
        ({"<new>": 1 << 24}, "'<new>' has the id 16777216; expected ids below 16777216"),
        ({"<new>": -4}, "added token '-4' is"),
        ({"<new>": "x"}, "added token 'x' is"),
        ({"": 1650}, "added token '1650' is"),
    ]:
        added.write_text(json.dumps(new))
        refused(folder, words)
    added.write_text('{"<new>": 1614}')
    assert Tokenizer.load(folder).token_id("<new>") == 1614


def test_added_tokens_in_the_place_of_a_piece(copy):
    folder = copy("internlm2")
    for index in (5, 1000):  # a byte, a word
        (folder / "added_tokens.json").write_text(json.dumps({"<new>": index}))
        refused(folder, f"the added token '<new>' has the id {index}, which is that of the piece ")
    (folder / "added_tokens.json").write_text('{"<new>": 3990}')  # reserved
    assert Tokenizer.load(folder).token_id("<new>") == 3990


def test_one_text_with_two_ids(copy):
    folder = copy("internlm2")
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    config["added_tokens_decoder"]["4100"] = {"content": "<img>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    refused(folder, "gives '<img>' the ids 4000 and 4100; expected one id a token")


def test_ids_of_a_tokenizer_json_that_would_move(copy):
    """The library gives such a token the next free id without a word."""
    folder = copy("qwen2-fast")
    data = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    data["added_tokens"][-1]["id"] = 1700
    (folder / "tokenizer.json").write_text(json.dumps(data))
    refused(folder, "gives the added token '</box>' the id 1700", "it would become 1613")


def test_a_tokenizer_json_that_makes_the_library_panic(copy, capfd):
    folder = copy("qwen2-fast")
    data = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    left, right = data["model"]["merges"][-1]
    del data["model"]["vocab"][left + right]
    (folder / "tokenizer.json").write_text(json.dumps(data))
    refused(folder, "tokenizer.json is not a readable tokenizer file")


@pytest.mark.parametrize("name", ["internlm2", "phi3"])
def test_a_truncated_sentencepiece_model(copy, name):
    folder = copy(name)
    path = folder / "tokenizer.model"
    whole = path.read_bytes()
    ends = {found.start() for found in re.finditer(rb"\n.\n.\[UNUSED", whole, re.DOTALL)}
    for cut in {0, 1, len(whole) // 2, len(whole) - 1, *range(len(whole) - 400, len(whole), 7)}:
        path.write_bytes(whole[:cut])
        if cut in ends:  # only reserved pieces are missing
            assert Tokenizer.load(folder).encode("Hello") == Tokenizer.load(VOCABULARIES / name).encode("Hello")
        else:
            refused(folder, "is not a sentencepiece model")


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_load_or_are_refused(copy, name):
    folder, chance = copy(name), random.Random(name)
    files = sorted(path for path in folder.iterdir())
    outcomes = set()
    for _ in range(60):
        path = chance.choice(files)
        whole = path.read_bytes()
        damaged = bytearray(whole)
        for _ in range(chance.randrange(1, 6)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(bytes(damaged[: chance.choice((len(damaged), chance.randrange(len(damaged))))]))
        try:
            ours = Tokenizer.load(folder)
            ids = ours.encode("a <img> 12 猫\n")
            assert all(0 <= index < ours.vocab_size for index in ids)
            ours.decode(ids)
            outcomes.add("read")
        except VedereError as error:
            outcomes.add("refused" if str(folder) in str(error) else str(error))
        path.write_bytes(whole)
    assert outcomes in ({"read", "refused"}, {"refused"})
