"""Names of the hub: found in a cache laid out as the hub's own, without a network; what fails says why and what to do."""

import json
import shutil

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants

import tiny_internvl
from vedere.cli import main
from vedere.errors import CheckpointError, ConfigError
from vedere.infer import hub
from vedere.infer.loading import find
from vedere.infer.session import load

NAME = "someone/tiny-vl"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty hub cache; asking the network is a failure."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    return tmp_path / "hub"


def keep(cache, source, commit=COMMIT, branch="main"):
    """Puts a folder into the cache as a download does: blobs, a snapshot of links, and a ref."""
    repository = cache / "models--someone--tiny-vl"
    snapshot = repository / "snapshots" / commit
    for folder in (snapshot, repository / "blobs", repository / "refs"):
        folder.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        blob = repository / "blobs" / f"{commit[:4]}-{path.name}"
        shutil.copyfile(path, blob)
        (snapshot / path.name).symlink_to(blob)
    (repository / "refs" / branch).write_text(commit)
    return snapshot


def sharded(path, **changes):
    from vedere.models.checkpoints import save_model

    folder = tiny_internvl.folder(path, **changes)
    save_model(
        tiny_internvl.model(tiny_internvl.config()), folder, max_shard_bytes=40_000, extras={"template": "internvl2_5"}
    )
    return folder


def test_a_cached_model_is_taken_without_asking_anyone(cache, tmp_path):
    snapshot = keep(cache, sharded(tmp_path / "a"))
    said = []
    assert find(NAME, say=said.append) == (NAME, snapshot)
    session = load(NAME, device="cpu", say=said.append)
    assert session.chat("How many?", max_new_tokens=2).answer_tokens > 0
    assert said == []


def test_offline_is_respected_and_says_what_to_do(cache, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        CheckpointError, match=r"'someone/tiny-vl' cannot be downloaded because HF_HUB_OFFLINE is set, and it is"
    ):
        find(NAME)
    assert main(["chat", "--model", NAME, "Hello?"]) == 2
    assert "HF_HUB_OFFLINE is set" in capsys.readouterr().err
    keep(cache, sharded(tmp_path / "a"))
    assert find(NAME)[0] == NAME


def test_a_revision_is_another_snapshot(cache, tmp_path):
    first = keep(cache, sharded(tmp_path / "a"))
    second = keep(cache, sharded(tmp_path / "b"), "f" * 40, "v2")
    assert find(NAME)[1] == first
    assert find(NAME, "v2")[1] == second
    assert find(NAME, "f" * 40)[1] == second
    for place in (str(tmp_path), "mini"):
        with pytest.raises(ConfigError, match=r"revision 'v2' was given, but .* is no model of the hub"):
            find(place, "v2")


def test_an_interrupted_download_is_named_and_finished(cache, tmp_path, monkeypatch):
    source = sharded(tmp_path / "a")
    snapshot = keep(cache, source)
    lost = sorted(path.name for path in snapshot.glob("model-*"))[1]
    (snapshot / lost).unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=rf"is incomplete: {lost} missing \(an interrupted download\); unset it"):
        find(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    asked = {}

    def finish(name, **options):
        asked.update(options, name=name)
        shutil.copyfile(source / lost, snapshot / lost)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", finish)
    said = []
    assert find(NAME, say=said.append)[1] == snapshot
    assert "downloading 'someone/tiny-vl'" in said[0]
    assert asked["name"] == NAME
    assert asked["revision"] is None


def test_code_is_never_downloaded():
    from huggingface_hub.utils import filter_repo_objects

    files = ["config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.model"]
    files += ["merges.txt", "chat_template.jinja", "tokenizer.json"]
    others = ["modeling_internvl_chat.py", "pytorch_model.bin", "examples/a.json", "README.md", "examples/image1.jpg"]
    kept = filter_repo_objects(files + others, allow_patterns=list(hub.PATTERNS), ignore_patterns=list(hub._NEVER))
    assert sorted(kept) == sorted(files)


def answer(status):
    """An answer of the hub with that status."""
    from huggingface_hub import errors

    module = next(base.__module__.split(".")[0] for base in errors.HfHubHTTPError.__mro__ if "http" in base.__module__)
    client = __import__(module)
    return client.Response(status, request=client.Request("GET", "https://hub.example/api"))


def failures():
    from huggingface_hub import errors

    return {
        "gated": (errors.GatedRepoError("gated", response=answer(403)), CheckpointError, "is gated: .*'hf auth login'"),
        "unknown": (
            errors.RepositoryNotFoundError("none", response=answer(404)),
            CheckpointError,
            "has no model 'someone/",
        ),
        "revision": (errors.RevisionNotFoundError("none", response=answer(404)), ConfigError, "has no revision 'v9'"),
        "network": (errors.LocalEntryNotFoundError("no connection"), CheckpointError, r"failed .*no connection.*go on"),
        "disk": (
            OSError(28, "No space left on device"),
            CheckpointError,
            "No space left on device.*run the same command",
        ),
        "server": (errors.HfHubHTTPError("bad gateway", response=answer(502)), CheckpointError, "bad gateway"),
    }


@pytest.mark.parametrize("kind", ["gated", "unknown", "revision", "network", "disk", "server"])
def test_what_goes_wrong_says_why(cache, monkeypatch, kind):
    error, expected, message = failures()[kind]

    def fail(*args, **options):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(expected, match=message):
        find(NAME, "v9", say=lambda _: None)


def test_a_repository_of_pickles_is_explained(cache, tmp_path, monkeypatch):
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").write_text("{}")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *args, **options: str(tmp_path / "half"))
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors missing\. Its weights may be pickled: .*vedere convert"
    ):
        find(NAME, say=lambda _: None)


def test_a_folder_comes_before_the_hub_and_typing_errors_do_not_ask_it(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "someone" / "tiny-vl").mkdir(parents=True)
    assert find(NAME) == (NAME, (tmp_path / NAME).relative_to(tmp_path))
    for name in ("minni", "./some/where", "../a/b", "a/b/c", "some one/x", str(tmp_path / "nowhere")):
        with pytest.raises(ConfigError, match=r"is neither a folder nor a shipped model.*or ORG/NAME of the hub"):
            find(name)
    with pytest.raises(
        ConfigError, match=r"is a release whose weights are not shipped; .*or OpenGVLab/InternVL3-8B, which"
    ):
        find("internvl3-8b")


def test_a_damaged_index_of_a_snapshot_is_named(cache, tmp_path):
    snapshot = keep(cache, sharded(tmp_path / "a"))
    (snapshot / hub.INDEX).unlink()
    for text in ("{", "[]", json.dumps({"weight_map": 3})):
        (snapshot / hub.INDEX).write_text(text)
        with pytest.raises(CheckpointError, match=r"is no index of shards .*delete the snapshot"):
            find(NAME)


def test_large_loads_report_progress(tmp_path):
    from vedere.models.checkpoints import load_model

    seen = []
    folder = sharded(tmp_path / "a")
    load_model(folder, torch.bfloat16, progress=lambda done, total: seen.append((done, total)))
    assert len(seen) == len(load_model(folder).state_dict())
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1]
