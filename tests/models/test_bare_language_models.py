"""Bare language models as the hub has them: InternLM2 in its original naming, Qwen2, in every kind of file."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import small_internlm2
from vedere.errors import CheckpointError
from vedere.models import keymaps, sources
from vedere.models.checkpoints import load_model, read_config
from vedere.models.decoder import Decoder, DecoderConfig
from vedere.models.delta import tensors_sha256
from vedere.text.tokenizer import Tokenizer

PREFIX = "language_model."


def silent(line):
    pass


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VEDERE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def cut_out(whole, folder):
    """The language model of a recorded checkpoint as a folder of its own, without prefix and visual experts."""
    folder.mkdir()
    tensors = load_file(whole / "model.safetensors")
    own = {name.removeprefix(PREFIX): t for name, t in tensors.items() if name.startswith(PREFIX)}
    save_file({name: t for name, t in own.items() if ".feed_forward_ve." not in name}, folder / "model.safetensors")
    config = json.loads((whole / "config.json").read_text())["llm_config"]
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["InternLM2ForCausalLM"]}))
    return folder


def logits(decoder, ids):
    with torch.no_grad():
        return decoder.logits(decoder(decoder.embed(ids), torch.arange(len(ids)), [0, len(ids)]))


@pytest.mark.parametrize("case", ["mono-internvl", "mono-internvl-two-images", "internvl-internlm2-dynntk", "v2pe"])
def test_a_bare_internlm2_says_what_the_assembly_says_without_pictures(golden, tmp_path, case):
    """dynntk has biases, and 90 tokens are beyond its trained length."""
    bare = load_model(cut_out(golden / case, tmp_path / "bare"), torch.float32)
    whole = load_model(golden / case, torch.float32)
    assert isinstance(bare, Decoder)
    assert read_config(tmp_path / "bare").layout == "internlm2"
    ids = torch.randint(3, 400, (90,), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        hidden = whole(ids, torch.arange(len(ids)), [0, len(ids)])
    assert torch.equal(logits(bare, ids), whole.decoder.logits(hidden))


def in_shards(folder):
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    files = {name: f"model-{1 + (place > 7):05d}-of-00002.safetensors" for place, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: tensors[name] for name in names if files[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    (folder / "model.safetensors").unlink()


def in_pickles(folder):
    tensors = load_file(folder / "model.safetensors")
    files = {name: f"pytorch_model-{1 + place % 2:05d}-of-00002.bin" for place, name in enumerate(sorted(tensors))}
    for file in set(files.values()):
        torch.save({name: tensors[name] for name in tensors if files[name] == file}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": files}))
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize("rearrange", [None, in_shards, in_pickles])
def test_any_kind_of_file_becomes_one_folder_in_the_cache(cache, tmp_path, rearrange):
    folder = small_internlm2.write(tmp_path / "hub")
    tensors = keymaps.internlm2(small_internlm2.shape()).to_own(load_file(folder / "model.safetensors"))
    if rearrange:
        rearrange(folder)
    said = []
    made = sources.language_model(folder, said.append)
    assert made.parent == cache
    assert said == ["converting hub to vedere's layout, once"]
    assert sources.language_model(folder, said.append) == made
    assert len(said) == 1
    assert read_config(made).model == small_internlm2.shape()
    found = load_file(made / "model.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert sources.identity(made) == tensors_sha256(tensors)
    text = "<|im_start|>user\nIs it red?<|im_end|>"
    assert Tokenizer.load(made).encode(text) == Tokenizer.load(folder).encode(text)


@pytest.mark.parametrize("file", ["tokenizer_config.json", "config.json", "model.safetensors"])
def test_a_folder_that_changed_is_converted_anew(cache, tmp_path, file):
    folder = small_internlm2.write(tmp_path / "hub")
    first = sources.language_model(folder, silent)
    if file == "model.safetensors":
        shutil.copyfile(small_internlm2.write(tmp_path / "other", seed=6) / file, folder / file)
    else:
        data = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(data | {"changed": True}))
    assert sources.language_model(folder, silent) != first


def test_a_vocabulary_that_an_earlier_version_kept_is_not_taken(cache, tmp_path, monkeypatch):
    folder = small_internlm2.write(tmp_path / "hub")
    with monkeypatch.context() as earlier:
        earlier.setattr("vedere.text.tokenizer.VOCABULARY_VERSION", b"before side files")
        before = sources.language_model(folder, silent)
    after = sources.language_model(folder, silent)
    assert after != before
    assert sources.language_model(folder, silent) == after


def test_what_is_no_plain_internlm2_is_refused(tmp_path):
    folder = small_internlm2.write(tmp_path / "hub")
    tensors = load_file(folder / "model.safetensors")
    reward = {("v_head.weight" if name == "output.weight" else name): t for name, t in tensors.items()}
    save_file(reward, folder / "model.safetensors")
    with pytest.raises(
        CheckpointError,
        match=r"not a complete 'internlm2' checkpoint .*1 missing: output\.weight .*; 1 surplus.*like a reward model",
    ):
        load_model(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rope_scaling": {"type": "yarn", "factor": 2.0}}))
    with pytest.raises(
        CheckpointError, match=r"'rope_scaling\.type' is 'yarn'; expected one of 'default', 'dynamic', 'linear'"
    ):
        load_model(folder)
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "internlm3"}))
    with pytest.raises(CheckpointError, match=r"model_type is 'internlm3'; expected .*'internlm2', 'llama', 'qwen2'"):
        load_model(folder)


def test_a_folder_without_tokenizer_is_refused(cache, tmp_path):
    folder = small_internlm2.write(tmp_path / "hub")
    (folder / "tokenizer.model").unlink()
    with pytest.raises(
        CheckpointError, match=r"no tokenizer in .*hub \(it holds: .*expected tokenizer.json or tokenizer"
    ):
        sources.language_model(folder, silent)
    assert list(cache.iterdir()) == []


QWEN2 = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "max_position_embeddings": 32768,
    "hidden_act": "silu",
    "use_sliding_window": False,
    "tie_word_embeddings": True,
}


def write_qwen2(folder, **changes):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(QWEN2 | changes))
    shapes = keymaps.llama(read_config(folder).model).foreign_shapes
    tensors = {name: torch.randn(shape) * 0.3 + (len(shape) == 1) for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors")
    return tensors


def test_qwen2_has_biases_on_query_key_and_value_only(tmp_path):
    tensors = write_qwen2(tmp_path / "qwen")
    biases = {name.split(".", 3)[3] for name in tensors if name.endswith(".bias")}
    assert biases == {f"self_attn.{part}_proj.bias" for part in "qkv"}
    model = load_model(tmp_path / "qwen")
    assert isinstance(model, Decoder)
    assert model.config.tied_head
    first = model.layers[0].attention.text.qkv.bias
    assert torch.equal(first[:32], tensors["model.layers.0.self_attn.q_proj.bias"])
    with pytest.raises(CheckpointError, match=r"'use_sliding_window' is True; expected one of False"):
        write_qwen2(tmp_path / "sliding", use_sliding_window=True)


@pytest.mark.peer
def test_qwen2_says_what_its_own_library_says(tmp_path):
    import transformers

    write_qwen2(tmp_path / "qwen", tie_word_embeddings=False)
    peer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "qwen", dtype=torch.float32)
    ids = torch.randint(0, 300, (40,))
    with torch.no_grad():
        expected = peer(ids[None]).logits[0]
    torch.testing.assert_close(logits(load_model(tmp_path / "qwen"), ids), expected, rtol=0, atol=1e-4)


def test_internlm2_is_the_name_inside_the_assemblies_without_its_prefix():
    config = DecoderConfig(hidden_size=8, ffn_size=6, layers=2, heads=2, kv_heads=1, head_dim=4, vocab_size=5)
    bare = keymaps.internlm2(config).foreign_shapes
    assert {"model.tok_embeddings.weight", "model.layers.1.attention.wqkv.weight", "output.weight"} <= bare.keys()
    assert [PREFIX + rule.foreign[0] for rule in keymaps.language_rules(config, keymaps.INTERNLM2)] == [
        rule.foreign[0] for rule in keymaps.language_rules(config, keymaps.INTERNLM2, PREFIX)
    ]
