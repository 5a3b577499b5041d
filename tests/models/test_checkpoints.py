"""Folders of weights: loaded whole or refused, written whole or not at all."""

import copy
import errno
import json
import os
import random
import resource
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from vedere import atomic
from vedere.errors import CheckpointError, VedereError
from vedere.models import shards
from vedere.models.checkpoints import load_model, read_config, save_model, write_atomically, write_tensors
from vedere.models.decoder import Decoder, DecoderConfig
from vedere.models.internvl import InternVL
from vedere.models.mono_internvl import MonoInternVL, MonoInternVLConfig
from vedere.models.patches import PatchConfig

CASES = ["mono-internvl", "mono-internvl-two-images", "v2pe"]
TOWERS = ["internvl-qwen2", "internvl-llama", "internvit-6b-style", "internvl-internlm2", "internvl-internlm2-dynntk"]


def small_mono(seed=0, **changes):
    torch.manual_seed(seed)
    shape = {"hidden_size": 16, "ffn_size": 24, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 4, "vocab_size": 11}
    decoder = DecoderConfig(**(shape | {"visual_ffn": True} | changes))
    return MonoInternVL(MonoInternVLConfig(vision=PatchConfig(width=8, patch=4, tile=16), decoder=decoder))


def same(one, other):
    one, other = one.state_dict(), other.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def equal_files(one, other):
    one, other = shards.read_tensors(one), shards.read_tensors(other)
    return one.keys() == other.keys() and all(
        torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one
    )


# --- the original layout -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES + TOWERS)
def test_released_layout_there_and_back_is_bit_exact(golden, tmp_path, case):
    model = load_model(golden / case)
    assert isinstance(model, MonoInternVL if case.startswith("mono") else InternVL)
    assert model.config.decoder.v2pe == (case == "v2pe")
    config = read_config(golden / case)
    save_model(model, tmp_path, layout="original", extras=config.extras)
    assert equal_files(golden / case, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads((golden / case / "config.json").read_text())


@pytest.mark.parametrize("case", CASES)
def test_own_layout_keeps_weights_shape_and_foreign_settings(golden, tmp_path, case):
    config = read_config(golden / case)
    model = load_model(golden / case)
    save_model(model, tmp_path, extras=config.extras)
    again = load_model(tmp_path)
    assert same(model, again)
    assert again.config == model.config
    assert read_config(tmp_path).extras["template"] == "internlm2-chat"
    assert json.loads((tmp_path / "config.json").read_text())["format"] == "vedere"
    assert load_file(tmp_path / "model.safetensors").keys() == model.state_dict().keys()


def test_visual_attention_experts_survive_the_original_layout(tmp_path):
    model = small_mono(visual_attention=True)
    save_model(model, tmp_path, layout="original")
    assert "language_model.model.layers.1.attention.wqkv_ve.weight" in shards.read_tensors(tmp_path)
    again = load_model(tmp_path)
    assert again.config == model.config
    assert same(model, again)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["llm_config"]["visual_attention_experts"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_model(tmp_path).config == model.config, "the names of the tensors settle it as well"


def test_a_bare_language_model_has_no_original_layout(tmp_path):
    with torch.device("meta"):
        decoder = Decoder(small_mono(visual_ffn=False).config.decoder)
    with pytest.raises(CheckpointError, match="bare language model has no original"):
        save_model(decoder, tmp_path, layout="original")
    assert list(tmp_path.iterdir()) == []


def test_shapes_without_a_place_in_the_original_config_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="qkv_bias True, out_bias False"):
        save_model(small_mono(qkv_bias=True), tmp_path, layout="original")
    with pytest.raises(CheckpointError, match="unknown layout 'hub'"):
        save_model(small_mono(), tmp_path, layout="hub")
    with pytest.raises(CheckpointError, match="cannot save a Linear"):
        save_model(torch.nn.Linear(2, 2), tmp_path)


# --- reading -----------------------------------------------------------------------------------------------------------


def test_shards_are_read_by_their_index_and_a_missing_one_is_named(tmp_path):
    model = small_mono()
    save_model(model, tmp_path, max_shard_bytes=2000)
    names = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert len(names) > 3
    assert names[0] == f"model-00001-of-{len(names):05d}.safetensors"
    assert not (tmp_path / "model.safetensors").exists()
    assert same(model, load_model(tmp_path))
    (tmp_path / names[1]).unlink()
    with pytest.raises(CheckpointError, match=f"1 of {len(names)} shards named by .* are missing: {names[1]}; finish"):
        load_model(tmp_path)


def test_an_index_and_shards_that_disagree_are_refused(tmp_path):
    save_model(small_mono(), tmp_path, max_shard_bytes=4000)
    index = json.loads((tmp_path / shards.INDEX).read_text())
    name, file = next(iter(index["weight_map"].items()))
    broken = copy.deepcopy(index)
    broken["weight_map"]["decoder.nowhere"] = file
    (tmp_path / shards.INDEX).write_text(json.dumps(broken))
    with pytest.raises(CheckpointError, match=f"places 'decoder.nowhere' in {file}, which does not hold it"):
        load_model(tmp_path)
    broken["weight_map"] = {name: "../elsewhere.safetensors"}
    (tmp_path / shards.INDEX).write_text(json.dumps(broken))
    with pytest.raises(CheckpointError, match="outside its folder; refused"):
        load_model(tmp_path)
    (tmp_path / shards.INDEX).write_text("{}")
    with pytest.raises(CheckpointError, match="is no index of shards"):
        load_model(tmp_path)
    (tmp_path / shards.INDEX).write_text(json.dumps(index))
    other = next(other for other in sorted(set(index["weight_map"].values())) if other != file)
    save_file(load_file(tmp_path / other) | {name: torch.zeros(1)}, tmp_path / other)
    with pytest.raises(CheckpointError, match=f"'{name}' is in .* and in another shard"):
        load_model(tmp_path)


def test_a_file_that_is_cut_off_says_by_how_much(golden, tmp_path):
    whole = (golden / "mono-internvl" / "model.safetensors").read_bytes()
    (tmp_path / "config.json").write_text((golden / "mono-internvl" / "config.json").read_text())
    for length in (len(whole) - 1, len(whole) // 2, 100):
        (tmp_path / "model.safetensors").write_bytes(whole[:length])
        with pytest.raises(
            CheckpointError, match=rf"is cut off: its header promises [\d,]+ bytes, the file has {length:,};"
        ):
            load_model(tmp_path)
    for length in (0, 7):
        (tmp_path / "model.safetensors").write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="is cut off: a safetensors file starts with 8 bytes"):
            load_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"<html>404 not found</html>" * 10)
    with pytest.raises(CheckpointError, match="is no intact safetensors file"):
        load_model(tmp_path)


def test_folders_without_weights_say_what_is_there(tmp_path):
    with pytest.raises(CheckpointError, match=r"no weights in .*found: no such folder"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="found: an empty folder"):
        load_model(tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"no .*config\.json"):
        load_model(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"found: weights\.safetensors"):
        load_model(tmp_path)


def test_every_tensor_must_be_there_and_no_other(tmp_path):
    save_model(small_mono(), tmp_path)
    tensors = {name: tensor.clone() for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    del tensors["decoder.layers.0.ffn.visual.down.weight"]
    tensors["decoder.layers.0.lora.weight"] = torch.zeros(1)
    tensors["projector.fc2.bias"] = torch.zeros(3)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load_model(tmp_path)
    message = str(caught.value)
    assert "1 missing: decoder.layers.0.ffn.visual.down.weight" in message
    assert "1 surplus: decoder.layers.0.lora.weight" in message
    assert "1 misshapen: projector.fc2.bias is [3], expected [16]" in message


def test_float16_is_refused_for_mono_however_it_comes(tmp_path):
    save_model(small_mono().half(), tmp_path)
    for dtype in (torch.float16, None):
        with pytest.raises(CheckpointError, match=r"float16 is refused for Mono-InternVL: .* NaN logits"):
            load_model(tmp_path, dtype)
    assert load_model(tmp_path, torch.bfloat16).dtype == torch.bfloat16
    assert load_model(tmp_path, torch.float32).dtype == torch.float32
    with pytest.raises(CheckpointError, match="cannot run as int8"):
        load_model(tmp_path, torch.int8)


def test_float16_is_allowed_where_it_is_safe(golden):
    assert load_model(golden / "v2pe", torch.float16).dtype == torch.float16


def test_integer_and_mixed_weights_are_refused(tmp_path):
    save_model(small_mono(), tmp_path)
    tensors = {name: tensor.clone() for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    tensors["vision.cls"] = tensors["vision.cls"].to(torch.bfloat16)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"stores tensors as bfloat16, float32; say which dtype"):
        load_model(tmp_path)
    assert load_model(tmp_path, torch.float32).dtype == torch.float32
    tensors["decoder.embed.weight"] = tensors["decoder.embed.weight"].to(torch.int8)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"'decoder\.embed\.weight' is int8 \(1 such tensors\)"):
        load_model(tmp_path)


def test_weights_can_be_trained_without_touching_the_file(tmp_path):
    save_model(small_mono(), tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    model = load_model(tmp_path)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(tensor.is_meta for tensor in model.state_dict().values())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert not same(model, load_model(tmp_path))


def test_loading_does_not_import_the_compiler(golden):
    """Initial values on the meta device would: more than a second of every start."""
    code = (
        "import sys; from vedere.models.checkpoints import load_model; "
        "[load_model(path) for path in sys.argv[1:]]; print({'torch._dynamo', 'sympy'} & set(sys.modules))"
    )
    folders = [str(golden / case) for case in ("mono-internvl", "v2pe")]
    done = subprocess.run([sys.executable, "-c", code, *folders], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


class _Runs:
    def __reduce__(self):
        return (os.mkdir, ("pickle-was-run",))


def test_old_pickled_weights_are_read_as_data_only(golden, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = golden / "mono-internvl"
    (tmp_path / "config.json").write_text((source / "config.json").read_text())
    tensors = load_file(source / "model.safetensors")
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    assert same(load_model(source), load_model(tmp_path))
    torch.save(tensors | {"extra": _Runs()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="runs no code out of pickles"):
        load_model(tmp_path)
    assert not (tmp_path / "pickle-was-run").exists()
    torch.save([1, 2], tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="something else than named tensors"):
        load_model(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(CheckpointError, match="cannot be read as plain tensors"):
        load_model(tmp_path)


def test_damaged_files_only_ever_give_vedere_errors(golden, tmp_path):
    source = golden / "mono-internvl"
    files = {name: (source / name).read_bytes() for name in ("config.json", "model.safetensors")}
    generator = random.Random(7)
    outcomes = set()
    for _ in range(150):
        name = generator.choice(list(files))
        data = bytearray(files[name])
        reach = len(data) if name == "config.json" else 4000  # the header; damaged numbers are no damage to the format
        for _ in range(generator.randint(1, 4)):
            at = generator.randrange(reach)
            kind = generator.randrange(3)
            if kind == 0:
                data[at] = generator.randrange(256)
            elif kind == 1:
                del data[at : at + generator.randint(1, 40)]
            else:
                data[at:at] = bytes(generator.randrange(32, 127) for _ in range(generator.randint(1, 6)))
        for other, content in files.items():
            (tmp_path / other).write_bytes(data if other == name else content)
        try:
            load_model(tmp_path)
            outcomes.add("loaded")
        except VedereError as error:
            outcomes.add("refused" if str(error) else "refused without a word")
    assert outcomes == {"loaded", "refused"}


# --- writing -----------------------------------------------------------------------------------------------------------


def full_disk(path):
    path.write_bytes(b"half")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def test_a_full_disk_leaves_the_old_file(tmp_path):
    target = tmp_path / "state.json"
    write_atomically(target, lambda path: path.write_text("old"))
    with pytest.raises(CheckpointError) as caught:
        write_atomically(target, full_disk)
    message = str(caught.value)
    assert message.startswith(f"cannot write {target}: No space left on device (")
    assert "MB free); what was there before is untouched" in message
    assert target.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


def test_an_interrupted_writer_leaves_nothing_behind(tmp_path):
    def interrupted(path):
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a" / "state.json", interrupted)
    assert list((tmp_path / "a").iterdir()) == []


@pytest.mark.parametrize("most", [10**9, 3000])
@pytest.mark.parametrize("layout", ["vedere", "original"])
def test_a_file_size_limit_leaves_the_old_checkpoint(tmp_path, most, layout):
    """The operating system itself refuses to write more, in the middle of a real save."""
    old = small_mono(1)
    save_model(old, tmp_path, layout=layout, max_shard_bytes=most)
    names = sorted(entry.name for entry in tmp_path.iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2500, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"cannot write .*File too large.*untouched"):
            save_model(small_mono(2), tmp_path, layout=layout, max_shard_bytes=most)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == names
    assert same(old, load_model(tmp_path))


class Killed(BaseException):
    """Stands for a process that ends here: nothing after it runs."""


@pytest.mark.parametrize(("before", "after"), [(6000, 6000), (10**9, 6000), (6000, 10**9), (10**9, 10**9)])
def test_a_kill_at_any_rename_leaves_the_old_or_the_new_checkpoint(tmp_path, monkeypatch, before, after):
    old, new = small_mono(1), small_mono(2)
    states, moment = [], 0
    while True:
        folder = tmp_path / str(moment)
        save_model(old, folder, max_shard_bytes=before)
        left = moment

        def count(call):
            def counted(*args, **kwargs):
                nonlocal left
                if left == 0:
                    raise Killed
                left -= 1
                return call(*args, **kwargs)

            return counted

        with monkeypatch.context() as patch:
            patch.setattr(atomic.os, "replace", count(os.replace))
            patch.setattr(shards.Path, "unlink", count(shards.Path.unlink))
            patch.setattr(atomic.shutil, "rmtree", lambda *args, **kwargs: None)
            try:
                save_model(new, folder, max_shard_bytes=after)
                done = True
            except Killed:
                done = False
        model = load_model(folder)
        states.append("old" if same(model, old) else "new" if same(model, new) else "mixed")
        if done:
            break
        moment += 1
    assert "mixed" not in states
    assert states[0] == "old"
    assert states[-1] == "new"
    assert states == sorted(states, reverse=True), "once new, always new"
    visible = {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}
    assert len([name for name in visible if name.endswith(".safetensors")]) == (
        1 if after == 10**9 else len(visible) - 2
    )


def test_leftovers_of_dead_processes_are_removed_and_those_of_living_ones_kept(tmp_path):
    dead, living = (
        tmp_path / f".a.{atomic._host()}.{2**22 + 5}.00.tmp",
        tmp_path / f".a.{atomic._host()}.{os.getppid()}.00.tmp",
    )
    foreign, other = tmp_path / ".a.elsewhere.1.00.tmp", tmp_path / f".b.{atomic._host()}.{2**22 + 5}.00.tmp"
    for folder in (dead, living, foreign, other):
        folder.mkdir()
        (folder / "a").write_text("half")
    write_atomically(tmp_path / "a", lambda path: path.write_text("whole"))
    assert {entry.name for entry in tmp_path.iterdir()} == {"a", living.name, foreign.name, other.name}


def test_written_files_follow_the_umask(tmp_path):
    before = os.umask(0o022)
    try:
        save_model(small_mono(), tmp_path)
    finally:
        os.umask(before)
    assert {entry.stat().st_mode & 0o777 for entry in tmp_path.iterdir()} == {0o644}


def test_unwritable_places_are_reported(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match=r"cannot write .*Not a directory|cannot write .*File exists"):
        save_model(small_mono(), tmp_path / "file" / "deeper")
    with pytest.raises(CheckpointError, match="max_shard_bytes is 0"):
        write_tensors(tmp_path, {"a": torch.zeros(1)}, max_shard_bytes=0)


def test_the_index_is_the_published_form(tmp_path):
    tensors = {"a": torch.zeros(10), "b": torch.zeros(10), "c": torch.zeros(100)}
    write_tensors(tmp_path, tensors, max_shard_bytes=80)
    index = json.loads((tmp_path / shards.INDEX).read_text())
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert index == {"metadata": {"total_size": 480}, "weight_map": {"a": files[0], "b": files[0], "c": files[1]}}
